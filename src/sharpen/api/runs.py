"""Running a recipe from Python, and what came out of it."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, overload

from sharpen.api import frames
from sharpen.api.graders import GraderFunction, GraderObject
from sharpen.api.pictures import Curves
from sharpen.api.recipes import Recipe
from sharpen.api.watching import Lines
from sharpen.config.load import load
from sharpen.errors import RunError, SharpenError
from sharpen.reports import html
from sharpen.reports.read import read
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines, resume_command


def run(recipe: Recipe | str | Path, *, out: str | Path | None = None, observer: Observer | None = None) -> Run:
    """Run a recipe, or a recipe file, to its end. Also works where an event loop is already running.

    `out` is a new folder; without it `runs/python-DATE-TIME`. The run's progress is printed, or told to `observer`
    (`sharpen.Observer()` is silent). Raises SharpenError with the remedy; what was done until
    then is in the run directory.
    """
    from sharpen.stages import pipeline  # imports torch

    if isinstance(recipe, Recipe):
        config, functions, base = recipe.config, recipe.functions, Path()
    else:
        config, functions, base = load(Path(recipe)), {}, Path(recipe).parent
    folder = Path(out) if out else Path("runs") / time.strftime("python-%Y%m%d-%H%M%S")
    with _spoken(folder):
        pipeline.run(config, folder, base=base, observer=observer or Lines(), functions=functions)
    return Run(folder)


def resume(
    path: str | Path,
    *,
    set: Sequence[str] = (),
    graders: Mapping[str, GraderFunction | GraderObject] | None = None,
    observer: Observer | None = None,
) -> Run:
    """Go on with a stopped run.

    `graders` are the functions and objects that graded it, by the name of their stage or eval (`evals.NAME` where a
    stage has the same name). One that a module has is found there; so is a function of the running script or notebook,
    under its name. `set`, such as `["stages.rft.steps=200"]`, extends the run, also when it is finished.
    Raises SharpenError with the remedy.
    """
    from sharpen.stages import pipeline  # imports torch

    with _spoken(Path(path)):
        pipeline.resume(Path(path), set, observer=observer or Lines(), functions=graders)
    return Run(Path(path))


def open_run(path: str | Path) -> Run:
    """The handle on a run directory that exists, finished or not. Raises RunError where there is none."""
    if not (Path(path) / "recipe.yaml").is_file():
        raise RunError("there is no run", value=str(path), remedy="Name the folder that a run was written to")
    return Run(Path(path))


class Run:
    """A run directory, read. In a notebook its value is the report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loaded: dict[str, Any] = {}

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json (docs/architecture.md). Raises RunError where the run has not come to one yet."""
        try:
            return dict(json.loads((self.path / "summary.json").read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise RunError(
                "the run has no summary yet", value=str(self.path), remedy="It is written when the run ends or stops"
            ) from error

    @property
    def verdict(self) -> str:
        """What the training was worth, in plain words."""
        return str(self.summary["verdict"])

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One mapping a step, of all stages."""
        return read_lines(self.path / "metrics.jsonl")

    @overload
    def rollouts(self, stage: str | None = None, step: int | None = None, *, as_frame: Literal[True] = True) -> Any: ...

    @overload
    def rollouts(
        self, stage: str | None = None, step: int | None = None, *, as_frame: Literal[False]
    ) -> list[dict[str, Any]]: ...

    def rollouts(self, stage: str | None = None, step: int | None = None, *, as_frame: bool = True) -> Any:
        """What the policy tried in training: a pandas DataFrame with one row a completion, or a list of such dicts.

        Its columns: stage, step (from 1), example (the row's id), prompt, text, reward, advantage, score (None where
        the grader failed), tokens (their number), finish, fault, explanation, version (steps the policy had taken), and
        `scores.NAME` for each further number that the grader gave. Raises ConfigError for a stage or step without any,
        and where pandas is not installed.
        """
        rows = frames.rollouts(read(self.path), stage, step)
        return frames.frame(rows, frames.ROLLOUTS) if as_frame else rows

    @overload
    def evals(self, name: str | None = None, model: str | None = None, *, as_frame: Literal[True] = True) -> Any: ...

    @overload
    def evals(
        self, name: str | None = None, model: str | None = None, *, as_frame: Literal[False]
    ) -> list[dict[str, Any]]: ...

    def evals(self, name: str | None = None, model: str | None = None, *, as_frame: bool = True) -> Any:
        """The answers to held-out problems: a pandas DataFrame with one row a problem and model, or a list of dicts.

        Its columns: eval, model ("base" or a stage), id, prompt, answer (the reference), text, score, correct, format,
        found (0, 1 or None), tokens, finish, fault, explanation, samples (drawn answers). Raises as `rollouts`.
        """
        rows = frames.evals(read(self.path), name, model)
        return frames.frame(rows, frames.EVALS) if as_frame else rows

    def curves(self, stage: str | None = None) -> Curves:
        """A picture of the training, for notebooks; `.save("curves.svg")` writes it.

        Raises ConfigError where no step of the stage, or of any, is recorded.
        """
        metrics = self.metrics
        frames.known("stage", stage, [line["stage"] for line in metrics])
        return Curves([line for line in metrics if stage in (None, line["stage"])])

    def report(self) -> Path:
        """Write report.html anew from what is there, and return its path."""
        return html.write(self.path)

    def generate(
        self,
        prompts: Sequence[str | Sequence[Mapping[str, Any]]],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """The final model's answers to prompts (texts, or lists of messages); greedy by default."""
        from sharpen.rollout.base import Params
        from sharpen.rollout.generate import Answerer
        from sharpen.stages.pipeline import blocking

        answerer = Answerer(self._final_model())
        chats = [
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]
            for prompt in prompts
        ]
        requests = [answerer.request(chat, (seed, place)) for place, chat in enumerate(chats)]
        rollouts = blocking(answerer.answer(requests, Params(max_tokens, temperature)))
        return [rollout.sample.text for rollout in rollouts]

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    def _repr_html_(self) -> str:
        """The report, for notebooks: in a frame, so that its styles stay its own."""
        from html import escape

        page = escape(html.page(read(self.path)))
        return f'<iframe srcdoc="{page}" style="width:100%;height:48rem;border:0"></iframe>'

    def _final_model(self) -> Any:
        from sharpen.answer.named import named
        from sharpen.models.load import compute_dtype
        from sharpen.models.load import load as load_model

        place = named(str(self.path))
        if place not in self._loaded:
            recipe = load(self.path / "recipe.yaml")
            self._loaded[place] = load_model(place, compute_dtype(recipe.dtype), recipe.chat_template_kwargs)
            if notice := self._loaded[place].notice:
                warnings.warn(notice, stacklevel=3)
        return self._loaded[place]


@contextmanager
def _spoken(folder: Path) -> Iterator[None]:
    """Say in errors how to go on from here, in Python's words instead of the command line's."""
    try:
        yield
    except SharpenError as error:
        error.remedy = error.remedy.replace(resume_command(folder), f"sharpen.resume({str(folder)!r})")
        error.args = (error.describe(),)
        raise
