"""`python`: OpenAI's grader, a program with `def grade(sample, item) -> float`, in a jail."""

from __future__ import annotations

import ast
import sys

from sharpen.config.graders import Python, parsed
from sharpen.errors import GraderError
from sharpen.graders.base import finite, grader_fault
from sharpen.graders.plugin import FAULT, read_return
from sharpen.graders.template import seen
from sharpen.sandbox import plan
from sharpen.sandbox.jail import Blueprint, Jail
from sharpen.sandbox.outcome import Limits, Outcome
from sharpen.sandbox.run import Run
from sharpen.types import Example, Grade, Sample


class Programmed(Jail):
    """A jail with the grader's program: in a run of its own for each grade, or in one that stays."""

    def __init__(self, blueprint: Blueprint, config: Python) -> None:
        self._config = config
        self._limits = Limits(seconds=config.time_limit)
        self._run: Run | None = None
        super().__init__(blueprint)

    def grade(self, sample: dict[str, object], item: dict[str, object]) -> Outcome:
        """What the program's `grade` returns, or why it does not."""
        if self._run is None or self._run.ended:
            self._leave()
            self._run = self.run(self._config.source, self._limits)
            loaded = self._run.loaded()
            if loaded.kind != "value":
                self._leave()
                return loaded
        outcome = self._run.call("grade", sample, item)
        if not self._config.persistent:
            self._leave()
        return outcome

    def kill(self) -> None:
        """End all of it, and close the files."""
        self._leave()
        super().kill()

    def _leave(self) -> None:
        run, self._run = self._run, None
        if run:
            run.kill()


class PythonGrader:
    """Calls the program's `grade`, and takes its number (or its dict with "score") for the score.

    Whatever else comes of it is a fault of the grader, whose detail begins with its kind, such as `oom`.
    """

    def __init__(self, config: Python) -> None:
        self._config = config
        self._modules = imported(parsed(config.source))

    def worker(self) -> Programmed:
        """A jail that has loaded the packages which the program imports. Raises GraderError."""
        packages = {distribution(module) for module in self._modules}
        return Programmed(plan.blueprint(plan.isolation(), packages, self._modules), self._config)

    def grade(self, worker: Programmed, example: Example, sample: Sample) -> Grade:
        """Call the program with what graders see of the sample, and the item's fields."""
        try:
            outcome = worker.grade(seen(sample), dict(example.item))
        except ValueError as error:
            return grader_fault("invalid_variable_error", str(error))
        if outcome.kind != "value":
            return grader_fault(FAULT, f"{outcome.kind}: {outcome.detail}")
        try:
            return finite(read_return(outcome.value), FAULT)
        except (TypeError, ValueError, OverflowError) as error:
            return grader_fault(FAULT, str(error))


def imported(program: ast.Module) -> list[str]:
    """The modules that a program imports anywhere, but for those of the standard library."""
    names = set()
    for node in ast.walk(program):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return sorted(name for name in names if name.partition(".")[0] not in sys.stdlib_module_names)


def distribution(module: str) -> str:
    """The installed distribution that a module comes with. Raises GraderError when there is none."""
    found = plan.distributions().get(module.partition(".")[0])
    if not found:
        raise GraderError(
            f"the grader imports {module!r}, which is not installed",
            remedy=f"{sys.executable} -m pip install 'sharpen[graders]' for the packages of OpenAI's image",
        )
    return found[0]
