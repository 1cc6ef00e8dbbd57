"""Generated problems: addressed by index, repeatable, scorable; wrong names and parameters are told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest
import reasoning_gym  # type: ignore[import-untyped]

from sharpen.config.data import ReasoningGymData
from sharpen.data import gym
from sharpen.errors import ConfigError
from sharpen.types import Example

LISTED = [
    "calendar_arithmetic",
    "caesar_cipher",
    "chain_sum",
    "family_relationships",
    "gcd",
    "gsm_symbolic",
    "leg_counting",
    "letter_counting",
    "needle_haystack",
    "number_sorting",
    "simple_equations",
    "spell_backward",
    "syllogism",
    "word_sorting",
]


def source(generator: str = "chain_sum", **fields: Any) -> ReasoningGymData:
    return ReasoningGymData(generator=generator, **{"count": 5, **fields})


def draw(generator: str = "chain_sum", **fields: Any) -> list[Example]:
    return list(gym.examples(source(generator, **fields)))


@pytest.mark.parametrize("generator", [*LISTED, "acre"])
def test_an_item_is_the_same_in_whatever_range_it_is_drawn(generator: str) -> None:
    wide = {row.id: row for row in draw(generator, start=497, count=6)}
    narrow = {row.id: row for row in draw(generator, start=500, count=2)}
    assert len(narrow) == 2
    assert all(wide[name] == row for name, row in narrow.items())


@pytest.mark.parametrize("generator", sorted(set(LISTED) - {"gsm_symbolic"}))
def test_item_i_is_drawn_from_random_i(generator: str) -> None:
    for row in draw(generator, start=498, count=4):
        index = int(row.id.split(":")[1])
        entry = reasoning_gym.create_dataset(generator, seed=index, size=1)[0]
        assert (row.item["question"], row.item["answer"]) == (entry["question"], entry["answer"])


@pytest.mark.parametrize("generator", LISTED)
def test_the_gold_answer_gets_full_marks_also_after_json(generator: str) -> None:
    verifier = reasoning_gym.create_dataset(generator, size=1, seed=0)
    for row in draw(generator, count=3):
        item = json.loads(json.dumps(row.item, allow_nan=False))
        assert verifier.score_answer(item["answer"], item) >= 1
        assert item["generator"] == generator


def test_the_listed_generators_give_the_same_items_in_every_process() -> None:
    program = (
        "import sys; from sharpen.config.data import ReasoningGymData as D; from sharpen.data import gym\n"
        "for name in sys.argv[1:]:\n"
        "    for row in gym.examples(D(generator=name, count=10)): print(row.id, row.messages, row.item)"
    )
    outputs = [
        subprocess.run(
            [sys.executable, "-c", program, *LISTED],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert outputs[0].count(b"\n") > 9 * len(LISTED)


def test_a_labelled_problem_ends_with_the_answer() -> None:
    rows = list(gym.labelled(source(suffix=" ?")))
    assert [row.prompt for row in rows] == [row.messages for row in draw(suffix=" ?")]
    for row, example in zip(rows, draw(), strict=True):
        assert row.messages[-1] == {"role": "assistant", "content": example.item["answer"]}
        assert row.trained == (1,)


def test_repeated_prompts_are_dropped_within_a_range() -> None:
    params = {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1}
    rows = draw(params=params, count=600)
    prompts = [row.messages[0]["content"] for row in rows]
    assert len(set(prompts)) == len(prompts) <= 200  # 10 x 10 sums, two signs


def test_start_count_params_and_suffix_change_the_problems() -> None:
    base = draw()
    assert [row.id for row in base] == [f"chain_sum:{i}" for i in range(5)]
    assert draw(start=2)[:3] == base[2:]
    assert draw(count=3) == base[:3]
    assert draw(params={"max_terms": 2}) != base
    assert draw("gcd")[0].messages != base[0].messages
    suffixed = draw(suffix=" Only the number.")
    assert suffixed[0].messages[0]["content"] == base[0].messages[0]["content"] + " Only the number."
    assert suffixed[0].item == base[0].item


FAULTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "misspelt": ({"generator": "chain_sums"}, "generator", "chain_sum"),
    "unknown": ({"generator": "qqqqq"}, "generator", "list of datasets"),
    "unrepeatable": ({"generator": "isomorphic_strings"}, "generator", "JSONL"),
    "misspelt parameter": ({"params": {"min_term": 2}}, "params.min_term", "min_terms"),
    "unknown parameter": ({"params": {"qqqqq": 2}}, "params.qqqqq", "max_digits"),
    "seed": ({"params": {"seed": 2}}, "params.seed", "start and count"),
    "wrong type": ({"params": {"min_terms": "two"}}, "params.min_terms", "int"),
    "bool as number": ({"params": {"min_terms": True}}, "params.min_terms", "int"),
    "wrong value": ({"params": {"min_terms": 0}}, "params.min_terms", "positive"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_wrong_generator_or_parameter_is_named(name: str) -> None:
    fields, path, hint = FAULTS[name]
    with pytest.raises(ConfigError) as caught:
        draw(**fields)
    assert caught.value.path == path
    assert hint in str(caught.value)


def test_a_generator_without_answers_cannot_be_imitated() -> None:
    assert draw("graph_color", count=1)[0].item["answer"] is None
    with pytest.raises(ConfigError, match="no answers to imitate"):
        list(gym.labelled(source("graph_color", count=1)))
