"""When a failing grader or environment must stop the run instead of starving it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.types import BUDGET_SPENT, ENVIRONMENT_ERROR, Fault, Grade


@dataclass
class FaultGuard:
    """Watches the share of rollouts that the *grader* or the environment failed on, step by step."""

    max_share: float
    """Of one step's grades."""

    max_steps: int
    """Steps running with any fault."""

    running: int = 0

    def check(self, grades: Sequence[Grade]) -> str | None:
        """The reason to pause after this step's grades, or None."""
        faulty = [grade for grade in grades if not grade.valid]
        self.running = self.running + 1 if faulty else 0
        if not faulty:
            return None
        if spent := next((grade for grade in faulty if grade.fault and grade.fault.kind == BUDGET_SPENT), None):
            return f"the budget of a grader is used up ({spent.explanation})"
        first = faulty[0].fault
        cause = f"{first.kind}: {first.detail}" if first else "no cause given"
        if len(faulty) > self.max_share * len(grades):
            return f"the {failed(first)} failed on {len(faulty)} of {len(grades)} completions of one step ({cause})"
        if self.running >= self.max_steps:
            return f"the {failed(first)} failed in {self.running} steps running ({cause})"
        return None


def failed(fault: Fault | None) -> str:
    """Whose fault it was: the grader's, or the environment's."""
    return "environment" if fault and fault.kind == ENVIRONMENT_ERROR else "grader"


def count(grades: Sequence[Grade]) -> dict[str, int]:
    """How often each kind of fault occurred, of completions and graders alike."""
    return dict(Counter(grade.fault.kind for grade in grades if grade.fault))
