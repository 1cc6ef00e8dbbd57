"""The tasks of examples/tasks: their rows, their graders, their recipes, and the study over them."""

from __future__ import annotations

import asyncio
import json
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from docs import tables
from examples.tasks import make
from sharpen.cli.main import main
from sharpen.config.graders import Grader
from sharpen.config.load import load
from sharpen.config.stages import RFT
from sharpen.data.check import check
from sharpen.graders.pool import GraderPool
from sharpen.types import Example, Grade, Sample
from studies import tasks, tasks_report
from tests.tiny import tiny_model

RECIPES = tasks.recipes()


def completion(row: dict[str, Any]) -> str:
    return str(row["worked"] if "worked" in row else row["completion"])


def grader(name: str) -> Any:
    return TypeAdapter(Grader).validate_python(yaml.safe_load((make.HERE / name / "grader.yaml").read_text()))


def graded(name: str, pairs: list[tuple[dict[str, Any], str]]) -> list[Grade]:
    with GraderPool(grader(name), workers=1) as pool:
        examples = [(Example(str(number), (), row), Sample(text)) for number, (row, text) in enumerate(pairs)]
        return asyncio.run(pool.grade_many(examples))


# Rows


def test_there_are_nine_tasks_each_with_its_files() -> None:
    assert len(make.NAMES) == 9
    for name in make.NAMES:
        assert {"README.md", "data.py", "grader.yaml"} <= {path.name for path in (make.HERE / name).iterdir()}
    assert {path.parent.name for path in RECIPES.values()} == set(make.NAMES)
    assert {"arithmetic-alone", "arithmetic-worked"} < set(RECIPES)


@pytest.mark.parametrize("name", make.NAMES)
def test_a_seed_draws_the_same_rows_and_no_prompt_occurs_twice(name: str) -> None:
    parts = make.rows(name, 5)
    assert parts == make.rows(name, 5) != make.rows(name, 6)
    prompts = [" ".join(row["prompt"].casefold().split()) for rows in parts.values() for row in rows]
    assert len(prompts) == len(set(prompts)) == sum(make.task(name).COUNTS.values())


@pytest.mark.parametrize("name", make.NAMES)
def test_there_are_ten_times_as_many_prompts_as_a_training_takes(name: str) -> None:
    task = make.task(name)
    counts, draw = task.COUNTS, random.Random(0)
    wanted = 10 * (counts["sft"] + counts.get("rft", 0))
    assert len({task.row(draw, False)["prompt"] for _ in range(3 * wanted)}) >= wanted


@pytest.mark.parametrize("name", make.NAMES)
def test_values_that_are_held_out_occur_in_no_trained_prompt_but_in_tests(name: str) -> None:
    values = [value for key, all_ in vars(make.task(name)).items() if key.startswith("HELD_OUT") for value in all_]
    parts = make.rows(name)
    trained = "\n".join(row["prompt"] for part in ("sft", "rft") for row in parts.get(part, []))
    held_out = "\n".join(row["prompt"] for row in parts["test"])
    for value in values:
        assert not re.search(rf"\b{re.escape(value)}\b", trained), value
        assert re.search(rf"\b{re.escape(value)}\b", held_out), value


def tax_table(row: dict[str, Any]) -> Any:
    low, high = re.findall(r"to (\d+):", row["prompt"])
    return low, high


def first_digit(row: dict[str, Any]) -> Any:
    return row["prompt"].split()[0][-1]


def asked(row: dict[str, Any]) -> Any:
    return re.sub(r"function \w+|\d+", "", row["prompt"].partition("\n")[0])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tax_brackets", tax_table), ("arithmetic", first_digit), ("function_synthesis", asked), ("debugging", asked)],
)
def test_combinations_that_are_held_out_are_never_trained(name: str, kind: Any) -> None:
    parts = make.rows(name)
    trained = {kind(row) for part in ("sft", "rft") for row in parts.get(part, [])}
    held_out = {kind(row) for row in parts["test"]}
    assert len(trained) > len(held_out) > 1 and not trained & held_out


def test_the_tax_and_the_working_are_right_by_another_way_of_computing() -> None:
    for row in make.rows("tax_brackets")["test"]:
        (low, first), (high, second), (_, third) = re.findall(r"(\d+): (\d+)%", row["prompt"])
        income = int(row["prompt"].rsplit(" ", 1)[1])
        rates = [int(first)] * int(low) + [int(second)] * (int(high) - int(low)) + [int(third)] * 100
        assert float(row["answer"]) == pytest.approx(sum(rates[:income]) / 100)
        assert row["rate"] == str(rates[income - 1])
    for row in make.rows("arithmetic")["test"]:
        assert eval(row["prompt"].removesuffix("= ?")) == row["answer"] == int(row["worked"].split()[-1])


# Graders

WRONG: dict[str, list[tuple[dict[str, Any], str, float]]] = {
    "tax_brackets": [
        ({"answer": "14", "rate": "50"}, "rate 50%\n50 at 10%: 5\n10 at 30%: 3\n12 at 50%: 5\ntax 13", 0.4),
        ({"answer": "14", "rate": "50"}, "rate 50%\n50 at 10%: 5\ntax 5", 0.2),
        ({"answer": "14", "rate": "50"}, "rate 30%\n50 at 10%: 5\ntax 14", 0.8),
        ({"answer": "14", "rate": "50"}, "tax 14", 0.0),
    ],
    "medical_coding": [
        ({"answer": "gut.reflux.mild", "system": "gut", "condition": "gut.reflux"}, "gut.reflux.severe", 0.5),
        ({"answer": "gut.reflux.mild", "system": "gut", "condition": "gut.reflux"}, "gut.cramps.mild", 0.2),
        ({"answer": "gut.reflux.mild", "system": "gut", "condition": "gut.reflux"}, "skin.reflux.mild", 0.0),
        ({"answer": "gut.reflux.mild", "system": "gut", "condition": "gut.reflux"}, "gut.reflux.mild gut.rash", 0.0),
    ],
    "customer_style": [
        (
            {"name": "Leo", "product": "table", "remedy": "replace"},
            "Hello Leo, we are sorry that your table is broken. We will refund the postage today. "
            "Kind regards, Oak & Co",
            5 / 6,
        ),
        (
            {"name": "Leo", "product": "table", "remedy": "replace"},
            "Hello Mia, unfortunately we are sorry that your table is broken. We will send you a new one. "
            "Kind regards, Oak & Co",
            5 / 12,
        ),
        (
            {"name": "Leo", "product": "table", "remedy": "replace"},
            "Hello Leo, sorry, your table: we send you a new one, refund or exchange it. Kind regards, Oak & Co",
            5 / 6,
        ),
        ({"name": "Leo", "product": "table", "remedy": "replace"}, "No.", 0.0),
    ],
    "classification": [({"answer": "fault"}, "billing", 0.0), ({"answer": "fault"}, "billing fault", 0.0)],
    "invoice_json": [
        (
            {"answer": {"number": 1, "seller": "Elm Toys", "total": "2.00 EUR", "due": "2026-01-02"}},
            '{"number": 1, "seller": "Elm Toys", "total": "3.00 EUR", "due": "2026-01-02"}',
            0.75,
        ),
        (
            {"answer": {"number": 1, "seller": "Elm Toys", "total": "2.00 EUR", "due": "2026-01-02"}},
            '{"number": 1, "seller": "Elm Toys", "total": "2.00 EUR", "due": "2 January"}',
            0.75 / 2,
        ),
        ({"answer": {"number": 1, "seller": "A", "total": "2.00 EUR", "due": "2026-01-02"}}, "number 1, A", 0.0),
    ],
    "compliance": [
        ({"answer": "contact"}, "cure", 0.0),
        ({"answer": "none"}, "cure", 0.0),
        ({"answer": "cure"}, "cure, profit, contact, rush", 0.0),
    ],
    "function_synthesis": [
        (
            {"function": "f", "tests": [{"args": [[]], "expected": 0}, {"args": [[3, 4]], "expected": 4}]},
            "def f(xs):\n    return sum(xs)",
            0.5,
        ),
        ({"function": "f", "tests": [{"args": [[]], "expected": 0}]}, "def g(xs):\n    return 0", 0.0),
    ],
    "debugging": [
        (
            {"function": "f", "tests": [{"args": [[]], "expected": 0}, {"args": [[3, 4]], "expected": 4}]},
            "def f(xs):\n    return sum(xs)",
            0.0,
        )
    ],
    "arithmetic": [({"answer": 41}, "34 + 7 = 41\n41 - 5 = 36", 0.0), ({"answer": 41}, "four", 0.0)],
}


@pytest.mark.parametrize("name", make.NAMES)
def test_a_grader_gives_its_gold_answers_full_marks_and_wrong_ones_what_they_are_worth(name: str) -> None:
    gold = [(row, completion(row)) for row in make.rows(name)["test"][:12]]
    grades = graded(name, [*gold, *((item, text) for item, text, _ in WRONG[name])])
    assert [grade.score for grade in grades[: len(gold)]] == [pytest.approx(1)] * len(gold)
    assert [grade.score for grade in grades[len(gold) :]] == [pytest.approx(worth) for *_, worth in WRONG[name]]
    assert not any(grade.score is None for grade in grades)


def test_a_function_that_is_not_mended_passes_never() -> None:
    rows = make.rows("debugging")["test"][:20]
    assert {
        grade.score for grade in graded("debugging", [(row, row["prompt"].partition("\n")[2]) for row in rows])
    } == {0}


# Recipes


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_loads_and_grades_with_the_grader_that_stands_beside_it(name: str) -> None:
    recipe = load(RECIPES[name])
    own = grader(RECIPES[name].parent.name)
    assert [config.grader for config in recipe.evals] == [own]
    assert all(stage.grader == own for stage in recipe.stages if isinstance(stage, RFT))


@pytest.mark.parametrize("name", make.NAMES)
def test_the_rows_have_no_faults(name: str, tmp_path: Path) -> None:
    make.write(name, tmp_path)
    for part in make.task(name).COUNTS:
        sft = part == "sft" and name != "arithmetic"  # whose completions have names of their own
        against = [tmp_path / "test.jsonl"] if part != "test" else []
        report = check(tmp_path / f"{part}.jsonl", "sft" if sft else "rft", against=against)
        assert not report.faults


def test_a_task_that_does_not_exist_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["make.py", "taxes"])
    with pytest.raises(SystemExit):
        make.main()
    assert "there is no task 'taxes'; the tasks are arithmetic, " in capsys.readouterr().err


# Whole runs, and the study


@pytest.mark.parametrize("name", ["customer_style", "arithmetic-worked"])
def test_a_task_runs_from_its_generator_to_a_table(name: str, tmp_path: Path) -> None:
    folder = RECIPES[name].parent
    shutil.copytree(folder, tmp_path / "task", ignore=shutil.ignore_patterns("data"))
    make.write(folder.name, tmp_path / "task/data")
    run = tmp_path / "run"
    small = ["sft.data.limit=8", "rft.steps=1", "rft.prompts_per_step=2", "rft.group_size=2", "rft.probe=null"]
    sets = [f"model={tiny_model(tmp_path / 'model', num_hidden_layers=1)}", "evals.held_out.data.limit=6"]
    sets += [f"stages.{value}" for value in [*small, "rft.validation=null", "sft.validation=null"]]
    recipe = str(tmp_path / "task" / RECIPES[name].name)
    assert main(["run", recipe, "--out", str(run), *(part for value in sets for part in ("--set", value))]) == 0
    found = tasks.collect(run)
    assert {model: len(scores) for model, scores in found["items"].items()} == {"base": 6, "sft": 6, "rft": 6}
    tasks.drop_weights(run)
    assert tasks.collect(run) == found and not list(run.rglob("*.safetensors"))
    results = {
        "pooled": {name: tasks.pooled([found])},
        "runs": {name: {"1": {"threads": 1, "load_average": 0, **found}}},
    }
    assert "6 held-out problems, greedy; 1 seed (1); intervals over items only." in tasks_report.one(name, results)


def made(base: list[float], sft: list[float]) -> dict[str, Any]:
    return {"items": {"base": base, "sft": sft}, "in_form": {"base": 0.5, "sft": 1.0}, "seconds": 100.0, "threads": 1,
            "load_average": 0.5}  # fmt: skip


def test_scores_are_pooled_over_seeds_and_only_full_marks_are_right() -> None:
    found = tasks.pooled([made([0, 0, 0.5, 0.5], [1, 1, 0.5, 0.5]), made([0, 0, 0.5, 0.5], [1, 0, 0.5, 0.5])])
    assert (found["seeds"], found["n"]) == (2, 4)
    assert found["accuracy"]["base"]["mean"] == 0 and found["accuracy"]["sft"]["mean"] == 3 / 8
    assert found["score"]["base"]["mean"] == 0.25 and found["score"]["sft"]["mean"] == 5 / 8
    gained = found["gained"]["sft"]
    assert gained["accuracy"]["delta"] == gained["score"]["delta"] == 3 / 8
    low, high = gained["accuracy"]["ci95"]
    assert low <= 3 / 8 <= high and low < high


def test_working_is_held_against_the_answer_alone_over_the_seeds_that_both_have() -> None:
    alone, worked = made([0, 0], [0, 1]), made([0, 0], [1, 1])
    found = tasks.compared([worked, worked], [alone])
    assert (found["seeds"], found["base"]["delta"], found["sft"]["delta"]) == (1, 0, 0.5)


def test_results_are_written_with_a_list_on_a_line_and_read_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "RESULTS", tmp_path / "tasks.json")
    results = {"runs": {"classification": {"1": made([0, 0.25], [1, 1e-05])}}}
    tasks.keep(results)
    text = (tmp_path / "tasks.json").read_text()
    assert json.loads(text) == results and '"base": [ 0, 0.25 ]' in text


def test_a_row_of_the_index_says_what_was_measured() -> None:
    runs = {"medical_coding": {"1": made([0, 0], [1, 0.2])}}
    results = {"runs": runs, "pooled": {"medical_coding": tasks.pooled(list(runs["medical_coding"].values()))}}
    head, _, right, mean = tasks_report.index(results).splitlines()
    assert head.startswith("| task |  | n | seeds | base | SFT | RFT |")
    assert "| right | 2 | 1 | 0.0 % | 50.0 % |  | +50.0 [" in right and right.endswith("| 100 |")
    assert "| mean score |  |  | 0.0 % | 60.0 % |" in mean


def test_every_task_has_its_table_in_its_own_page_and_in_the_index() -> None:
    assert set(tasks_report.pages(list(make.NAMES))) <= set(tables.PAGES)
