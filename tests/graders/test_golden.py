"""Golden cases of all graders that need no server: what each says of a completion is worked out elsewhere.

`golden/cases.jsonl` has cases by hand and from documents, with their sources; `golden/pairs.py` asks the libraries.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from rapidfuzz import fuzz, utils

from sharpen.config.graders import Grader, Multi, SingleGrader
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample
from tests.graders.golden.pairs import PAIRS, said

READ: TypeAdapter[SingleGrader | Multi] = TypeAdapter(Grader)
CASES = [json.loads(line) for line in (Path(__file__).parent / "golden/cases.jsonl").read_text("utf-8").splitlines()]
SIMILAR = [case for case in CASES if case["grader"]["type"] == "text_similarity"]
GROUPS: dict[str, list[dict[str, Any]]] = {}
for other in (case for case in CASES if case["grader"]["type"] != "text_similarity"):
    GROUPS.setdefault(json.dumps(other["grader"], sort_keys=True), []).append(other)

ROUNDED = 1e-4
"""Documents write four digits, some of them cut off."""
METRICS = ("fuzzy_match", "bleu", "gleu", "meteor", *(f"rouge_{kind}" for kind in "12345l"))


def graded(config: Mapping[str, Any], *pairs: tuple[Mapping[str, Any], str]) -> list[Grade]:
    with GraderPool(READ.validate_python(config), workers=1) as pool:
        return asyncio.run(pool.grade_many([(Example("e", (), item), Sample(text)) for item, text in pairs]))


def compare(case: Mapping[str, Any], given: Grade, score: float | None) -> None:
    wanted, shown = case["expected"], f"{case['output']!r:.200}: {given}"
    assert (score is None) == (wanted["score"] is None), shown
    assert score == pytest.approx(wanted["score"], abs=ROUNDED), shown
    assert (given.fault.kind if given.fault else "") == wanted["fault"], shown
    for name, value in wanted.get("metrics", {}).items():
        assert given.metrics[name] == pytest.approx(value), (name, shown)


@pytest.mark.parametrize("group", GROUPS, ids=[json.loads(group)["type"] for group in GROUPS])
def test_a_golden_case_is_graded_as_its_source_says(group: str) -> None:
    cases = GROUPS[group]
    given = graded(json.loads(group), *((case["item"], case["output"]) for case in cases))
    for case, grade in zip(cases, given, strict=True):
        compare(case, grade, grade.score)


@pytest.fixture(scope="module")
def by_each_metric() -> tuple[list[Grade], list[Grade]]:
    """The pairs, and the cases of text_similarity, by all metrics: NLTK takes seconds to import, so in one jail."""
    parts = {metric: {"type": "text_similarity", "evaluation_metric": metric} for metric in METRICS}
    pairs = [({"answer": reference}, text) for text, reference in PAIRS.values()]
    cases = [(case["item"], case["output"]) for case in SIMILAR]
    given = graded({"type": "multi", "graders": parts, "calculate_output": "fuzzy_match"}, *pairs, *cases)
    return given[: len(pairs)], given[len(pairs) :]


def test_a_golden_case_of_text_similarity_is_graded_as_its_source_says(
    by_each_metric: tuple[list[Grade], list[Grade]],
) -> None:
    for case, given in zip(SIMILAR, by_each_metric[1], strict=True):
        compare(case, given, given.metrics.get(case["grader"]["evaluation_metric"]))


def test_the_golden_cases_are_many_and_of_every_grader_without_a_server() -> None:
    assert len(CASES) >= 220
    assert {case["grader"]["type"] for case in CASES} == set(
        "string_check text_similarity math numeric regex json_schema multi python code_tests length format language "
        "repetition sql reasoning_gym".split()
    )
    assert all(case["source"] for case in CASES)


def test_openais_own_example_of_a_python_grader_gives_what_rapidfuzz_says() -> None:
    (case,) = (case for case in CASES if case["output"] == "fuzzy wuzzy was a bear")
    ratio = fuzz.WRatio(case["output"], case["item"]["reference_answer"], processor=utils.default_process)
    assert case["expected"]["score"] == pytest.approx(ratio / 100)


def test_each_metric_of_text_similarity_is_what_its_library_says(
    by_each_metric: tuple[list[Grade], list[Grade]],
) -> None:
    for (name, pair), given in zip(PAIRS.items(), by_each_metric[0], strict=True):
        assert given.fault is None, name
        assert given.metrics == pytest.approx(said(*pair)), name
        assert all(0 <= score <= 1 for score in given.metrics.values()), name
