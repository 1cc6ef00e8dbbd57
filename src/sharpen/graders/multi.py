"""`multi`: a formula over the grades of several graders."""

from __future__ import annotations

from collections.abc import Mapping

from sharpen.config.formula import Formula, FormulaError
from sharpen.graders.base import grader_fault, repeatable
from sharpen.types import Fault, Grade


def combine(grades: Mapping[str, Grade], formula: Formula) -> Grade:
    """One grade of several; its metrics are their scores, under their names.

    A grader's fault in any of them is one of the whole. A completion's fault gives its own grader's minimum,
    and is kept as the cause: one that may not repeat goes first, for the run's journal to see it.
    """
    for name, part in grades.items():
        if part.score is None:
            kind, detail = (part.fault.kind, part.fault.detail) if part.fault else ("other_error", "no cause given")
            return grader_fault(kind, f"{name}: {detail}")
    scores = {name: part.score for name, part in grades.items() if part.score is not None}
    try:
        score = formula(scores)
    except FormulaError as error:
        return grader_fault("formula_parse_error", f"{formula.text}: {error}")
    said = "; ".join(f"{name} {part.score:g}: {part.explanation}" for name, part in grades.items())
    return Grade(score, scores, said, _cause(grades))


def _cause(grades: Mapping[str, Grade]) -> Fault | None:
    faulty = [(name, part) for name, part in grades.items() if part.fault]
    for name, part in sorted(faulty, key=lambda pair: repeatable(pair[1])):
        if part.fault:
            return Fault(part.fault.kind, f"{name}: {part.fault.detail}")
    return None
