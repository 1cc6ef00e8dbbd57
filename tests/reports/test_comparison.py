"""Runs side by side: arms, what differs, which claims are made, and the page that shows them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.errors import RunError
from sharpen.reports.compare import page, write
from sharpen.reports.comparison import Comparison, compare
from tests.reports import synthetic_run
from tests.reports.test_report_page import ATTACK, Outline


def run(folder: Path, right: str, *, seed: int = 1, lr: float = 1e-4, first: int = 0, **more: Any) -> Path:
    """A run that got these items right ("1") or wrong ("0"), numbered from `first`; `more` goes into the recipe."""
    stages = [{"type": "sft", "name": "sft", "optim": {"lr": lr}, "data": {"path": f"{folder}/data.jsonl"}}]
    facts = {"versions": {"torch": "2.13"}, "hardware": {"cores": seed}, "data": {"stages.sft.data": "abc123"}}
    recipe = {"model": "m", "seed": seed, "stages": stages, "resolved": facts, **more}
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    answers = [
        {
            "id": f"i{number}",
            "prompt": [{"role": "user", "content": f"Question {number}?"}],
            "text": f"{folder.name} says {bit}",
            "correct": int(bit),
            "score": float(bit),
        }
        for number, bit in enumerate(right, first)
    ]
    synthetic_run.jsonl(folder / "evals/held/base.jsonl", [{**answer, "correct": 0} for answer in answers])
    synthetic_run.jsonl(folder / "evals/held/sft.jsonl", answers)
    line = {"stage": "sft", "type": "sft", "loss": lr * 1000 + seed}
    synthetic_run.jsonl(folder / "metrics.jsonl", [{**line, "step": step} for step in (1, 2, 3)])
    return folder


def refused(*paths: Path) -> str:
    with pytest.raises(RunError) as caught:
        compare(paths)
    return str(caught.value)


def test_runs_that_differ_only_in_seed_and_place_are_one_arm(tmp_path: Path) -> None:
    paths = [run(tmp_path / f"low-{seed}", "01", seed=seed) for seed in (10, 1, 2)]
    paths += [run(tmp_path / f"high-seed{seed}", "11", seed=seed, lr=2e-4) for seed in (1, 2)]
    found = compare(paths)
    assert [(arm.name, arm.seeds) for arm in found.arms] == [("low", ("1", "2", "10")), ("high", ("1", "2"))]
    assert found.differences == (("stages.sft.optim.lr", ("0.0001", "0.0002")),)


def test_other_data_and_other_versions_are_differences(tmp_path: Path) -> None:
    facts = {"versions": {"torch": "2.14"}, "hardware": {}, "data": {"stages.sft.data": "fff"}}
    found = compare([run(tmp_path / "a", "01"), run(tmp_path / "b", "01", resolved=facts)])
    assert dict(found.differences) == {
        "stages.sft.data.path": ("contents abc123", "contents fff"),
        "versions.torch": ("2.13", "2.14"),
    }


def only(found: Comparison) -> Any:
    (result,) = found.evals
    return result


def test_single_runs_are_compared_over_items_and_told_that_seeds_were_not_varied(tmp_path: Path) -> None:
    found = compare([run(tmp_path / "a", "0" * 30 + "1" * 10), run(tmp_path / "b", "1" * 40, lr=1e-3)])
    (test,) = only(found).tests
    assert test.difference.delta == pytest.approx(0.75)
    assert "b gets more right than a: +75.0 points" in test.claim()
    assert "Seeds were not varied in a and b" in test.claim()


def test_a_claim_over_seeds_says_that_every_seed_agrees(tmp_path: Path) -> None:
    worse = [run(tmp_path / f"a-{seed}", "0" * 20 + "1" * 20, seed=seed) for seed in (1, 2)]
    better = [run(tmp_path / f"b-{seed}", "0" * seed + "1" * (40 - seed), seed=seed, lr=1e-3) for seed in (1, 2)]
    (test,) = only(compare([*worse, *better])).tests
    assert test.claim().startswith("b gets more right than a: +46.2 points")
    assert test.claim().endswith("every seed agrees.")
    (back,) = only(compare([*better, *worse])).tests
    assert back.claim().startswith("a gets less right than b: −46.2 points")


def test_without_proof_it_says_that_no_difference_is_shown(tmp_path: Path) -> None:
    half, other = "01" * 20, "10" * 20
    (test,) = only(compare([run(tmp_path / "a", half), run(tmp_path / "b", other, lr=1e-3)])).tests
    assert test.claim().startswith("No difference shown between b and a: 0.0 points")
    assert re.search(r"a true difference of 44\.3 points would be found 4 times in 5", test.claim())  # 2.8016 / √40


def test_seeds_that_disagree_make_no_claim(tmp_path: Path) -> None:
    before = [run(tmp_path / f"a-{seed}", "0" * 30 + "1" * 10, seed=seed) for seed in (1, 2)]
    after = [
        run(tmp_path / "b-1", "1" * 40, seed=1, lr=1e-3),
        run(tmp_path / "b-2", "0" * 31 + "1" * 9, seed=2, lr=1e-3),
    ]
    (test,) = only(compare([*before, *after])).tests
    assert "No difference shown" in test.claim() and "the seeds do not agree" in test.claim()


def test_only_common_items_are_compared_and_counted(tmp_path: Path) -> None:
    found = only(compare([run(tmp_path / "a", "0011"), run(tmp_path / "b", "1111", lr=1e-3, first=2)]))
    assert (found.items, found.left_out) == (2, 4)
    assert [score.mean for score in found.scores.values()] == [1.0, 1.0]


def test_an_item_is_another_where_its_prompt_is(tmp_path: Path) -> None:
    paths = [run(tmp_path / "a", "0011"), run(tmp_path / "b", "1111", lr=1e-3)]
    file = paths[1] / "evals/held/sft.jsonl"
    file.write_text(file.read_text().replace("Question", "Query"))
    assert "no item in common" in refused(*paths)


def test_items_won_and_lost_are_shown_by_runs_that_show_it(tmp_path: Path) -> None:
    before = [run(tmp_path / "a-1", "00110", seed=1), run(tmp_path / "a-2", "00111", seed=2)]
    after = [run(tmp_path / "b-1", "01010", seed=1, lr=1e-3), run(tmp_path / "b-2", "11011", seed=2, lr=1e-3)]
    found = only(compare([*before, *after]))
    flips = found.flips(found.tests[0])
    assert [(old["id"], old["text"], new["text"]) for old, new in flips.won] == [
        ("i1", "a-1 says 0", "b-1 says 1"),
        ("i0", "a-1 says 0", "b-2 says 1"),
    ]
    assert [(old["id"], new["text"]) for old, new in flips.lost] == [("i2", "b-1 says 0")]
    assert flips.same == 2


def test_arms_of_one_name_are_told_apart(tmp_path: Path) -> None:
    found = compare([run(tmp_path / "x/run", "01"), run(tmp_path / "y/run", "11", lr=1e-3)])
    assert [arm.name for arm in found.arms] == ["run (1)", "run (2)"]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    one = run(tmp_path / "a", "01")
    assert "two or more" in refused(one)
    assert "two or more" in refused(one, tmp_path / "x" / ".." / "a")
    assert "no run directory" in refused(one, tmp_path / "none")
    assert "done twice (got 'a, b')" in refused(one, run(tmp_path / "b", "01"))
    other = run(tmp_path / "c", "01", lr=1e-3)
    (other / "evals/held").rename(other / "evals/else")
    assert "no eval in common (got 'a: held; c: else')" in refused(one, other)


def test_an_eval_without_common_items_is_left_out_with_a_note(tmp_path: Path) -> None:
    paths = [run(tmp_path / "a", "01"), run(tmp_path / "b", "11", lr=1e-3)]
    for path in paths:
        synthetic_run.jsonl(path / "evals/more/sft.jsonl", [{"id": path.name, "prompt": "x", "correct": 1}])
    found = compare(paths)
    assert [result.name for result in found.evals] == ["held"]
    assert found.notes == ("Eval more is left out: its runs have no item in common.",)
    assert found.notes[0] in page(found)


def test_runs_that_ended_at_different_stages_are_told_apart(tmp_path: Path) -> None:
    paths = [run(tmp_path / "a", "01"), run(tmp_path / "b", "11", lr=1e-3)]
    (paths[0] / "evals/held/sft.jsonl").unlink()
    found = compare(paths)
    assert found.notes == ("Eval held was answered last by different stages: a by base, b by sft.",)
    assert only(found).scores["a"].mean == 0.0


def test_seeds_of_one_recipe_are_shown_side_by_side(tmp_path: Path) -> None:
    found = compare([run(tmp_path / f"a-{seed}", right, seed=seed) for seed, right in ((1, "0011"), (2, "0111"))])
    score = only(found).scores["a"]
    assert (score.mean, score.by_seed, only(found).tests) == (0.625, (0.5, 0.75), ())
    assert "differ only in their seed" in page(found)


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    """Two whole synthetic runs, of other presets and seeds."""
    paths = []
    for name, steps in (("grpo", 10), ("dapo", 20)):
        path = synthetic_run.write(tmp_path / name, rft_steps=steps, items=60)
        recipe = yaml.safe_load((path / "recipe.yaml").read_text())
        recipe["stages"][1]["algorithm"] = {"preset": name}
        (path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
        paths.append(path)
    return paths


def test_the_page_overlays_a_line_for_each_run(pair: list[Path], tmp_path: Path) -> None:
    outline = Outline(write(tmp_path / "compare.html", compare(pair)).read_text())
    drawn = [json.loads(value) for name, value in outline.attributes if name == "data-series"]
    assert all(len(plot) == 2 for plot in drawn)
    assert {plot[0][-1][0] for plot in drawn} == {10, 40} and {plot[1][-1][0] for plot in drawn} == {20, 40}
    classes = {value for name, value in outline.attributes if name == "class"}
    assert {"line main sft", "line main rft"} <= classes
    text = re.sub(r"\s+", " ", outline.text)
    for title in ("Loss", "Reward", "Completion length", "KL to the start"):
        assert f" {title} " in text
    assert "stages.rft.algorithm.preset grpo dapo" in text
    assert "No difference shown between dapo and grpo" in text


def test_the_page_is_the_same_each_time_and_runs_nothing(pair: list[Path]) -> None:
    for path in pair:
        for file in (path / "evals/held_out").iterdir():
            lines = [
                json.loads(line) | {"text": ATTACK, "explanation": ATTACK} for line in file.read_text().splitlines()
            ]
            lines[0]["correct"] = int(path.name == "grpo")
            synthetic_run.jsonl(file, lines)
        with (path / "recipe.yaml").open("a") as recipe:
            recipe.write(f"note: {path.name + ATTACK!r}\n")
    first = page(compare(pair))
    assert first == page(compare(pair))
    outline = Outline(first)
    assert outline.tags.count("script") == 1 and "img" not in outline.tags
    assert not [name for name, _ in outline.attributes if name.startswith("on")]
    assert ATTACK in outline.text
