"""Pairs of an earlier run's graded completions, on rollouts written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.config.data import PairsData
from sharpen.data.source import fingerprint, read_labelled, read_pairs
from sharpen.errors import ConfigError, DataError
from sharpen.runs.store import write_lines

Line = dict[str, Any]


def line(example: str, text: str, score: float | None, finish: str = "stop", **more: Any) -> Line:
    prompt = [{"role": "user", "content": f"ask {example}"}]
    return {"example": example, "prompt": prompt, "text": text, "finish": finish, "scores": {"score": score}, **more}


def made(folder: Path, *steps: list[Line], stage: str = "rft") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "recipe.yaml").write_text("model: x\n")
    (folder / "rollouts" / stage).mkdir(parents=True)
    for number, lines in enumerate(steps, start=1):
        write_lines(folder / "rollouts" / stage / f"step-{number:05d}.jsonl", lines)
    return folder


def taken(folder: Path, **settings: Any) -> list[tuple[str, str, str]]:
    data = PairsData(pairs_from=str(folder), **settings)
    found = read_pairs(data, Path())
    return [(row.messages[0]["content"], row.chosen[0]["content"], row.rejected[0]["content"]) for row in found]


GROUP = [line("a", "bad", 0.0), line("a", "fair", 0.4), line("a", "good", 0.9), line("a", "best", 1.0)]


def test_the_best_of_each_group_stands_against_its_worst(tmp_path: Path) -> None:
    run = made(tmp_path / "run", [*GROUP, line("b", "no", 0.0), line("b", "yes", 1.0)], [line("a", "x", 1), GROUP[0]])
    assert taken(run) == [("ask a", "best", "bad"), ("ask b", "yes", "no"), ("ask a", "x", "bad")]


def test_more_of_a_group_may_be_asked_for_and_scores_that_differ_more(tmp_path: Path) -> None:
    run = made(tmp_path / "run", GROUP)
    assert taken(run, per_group=3) == [("ask a", "best", "bad"), ("ask a", "good", "fair")]
    assert taken(run, per_group=3, min_gap=0.5) == [("ask a", "best", "bad")]


def test_what_is_cut_off_is_never_better_and_what_has_no_score_or_the_same_text_makes_no_pair(tmp_path: Path) -> None:
    cut = [line("a", "endless", 1.0, "length"), line("a", "short", 0.5), line("a", "wrong", 0.2)]
    faulty = [line("b", "right", 1.0), line("b", "unknown", None), line("b", "right", 0.0)]
    run = made(tmp_path / "run", cut + faulty)
    assert taken(run) == [("ask a", "short", "wrong")]


def test_of_completions_with_equal_scores_there_is_no_pair(tmp_path: Path) -> None:
    run = made(tmp_path / "run", [line("a", "one", 1.0), line("a", "two", 1.0)])
    with pytest.raises(DataError, match=r"run: no pair can be made: in no group.*min_gap 0.*lower min_gap"):
        taken(run)


def test_thoughts_and_tools_come_along(tmp_path: Path) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    lines = [line("a", str(score), score, reasoning=f"so {score}", tools=[tool]) for score in (0.0, 1.0)]
    (row,) = read_pairs(PairsData(pairs_from=str(made(tmp_path / "run", lines))), Path())
    assert [answer[0]["reasoning_content"] for answer in (row.chosen, row.rejected)] == ["so 1.0", "so 0.0"]
    assert row.tools[0]["function"]["name"] == "f"


def test_a_stage_is_chosen_by_name_where_there_are_several(tmp_path: Path) -> None:
    made(tmp_path / "run", GROUP)
    made(tmp_path / "run", [line("z", "worse", 0.0), line("z", "better", 1.0)], stage="second")
    assert taken(tmp_path / "run", stage="second") == [("ask z", "better", "worse")]
    with pytest.raises(ConfigError, match=r"stage: several stages.*Give one of rft, second"):
        taken(tmp_path / "run")
    with pytest.raises(ConfigError, match=r"stage: .*of this stage.*third.*rft, second"):
        taken(tmp_path / "run", stage="third")


def test_a_split_gives_each_pair_to_one_side(tmp_path: Path) -> None:
    lines = [line(str(number), text, score) for number in range(40) for text, score in (("no", 0.0), ("yes", 1.0))]
    run = made(tmp_path / "run", lines)
    sides = [set(taken(run, split={"test": 0.25, "part": part})) for part in ("train", "test")]
    assert len(sides[1]) == 10 and not sides[0] & sides[1] and len(sides[0] | sides[1]) == 40


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda path: None, r"pairs_from: there is no run.*nowhere.*earlier run"),
        (lambda path: made(path), r"pairs_from: the run has no completions"),
        (
            lambda path: made(path, [line("a", "x", 1.0, messages=[])]),
            r"step-00001\.jsonl:1.*episodes in an environment",
        ),
    ],
)
def test_what_pairs_cannot_be_made_of_is_said(prepare: Any, words: str, tmp_path: Path) -> None:
    prepare(tmp_path / "nowhere")
    with pytest.raises((ConfigError, DataError), match=words):
        taken(tmp_path / "nowhere")


def test_other_stages_do_not_read_pairs_and_other_completions_have_another_fingerprint(tmp_path: Path) -> None:
    data = PairsData(pairs_from=str(made(tmp_path / "one", GROUP)))
    other = PairsData(pairs_from=str(made(tmp_path / "two", [line("a", "other", 0.0), *GROUP[1:]])))
    assert fingerprint(data, Path()) != fingerprint(other, Path()) == fingerprint(other, Path())
    with pytest.raises(DataError, match=r"preference rows"):
        list(read_labelled(data, Path()))
