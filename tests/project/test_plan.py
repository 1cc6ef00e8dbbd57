"""What fits into the minutes, and the recipe that says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from sharpen.config.load import load
from sharpen.config.recipe import Recipe
from sharpen.config.stages import SFT
from sharpen.data.read import Where
from sharpen.project import graders, plan
from sharpen.project.parts import Parts
from sharpen.project.plan import Plan
from sharpen.project.recipe import recipe
from sharpen.project.rows import Row
from sharpen.project.tasks import TASKS


def rows(count: int, prompt: int, answer: int) -> list[Row]:
    return [Row(Where("x", 1), ({"role": "user", "content": "p" * prompt},), "a" * answer)] * count


def parts(train: int, test: int, prompt: int = 300, answer: int = 7) -> Parts:
    return Parts(rows(train, prompt, answer), rows(20, prompt, answer), rows(test, prompt, answer))


def seconds(found: Plan, given: Parts, *, prompt: int, answer: int) -> float:
    """The plan's time, added up anew from its own numbers."""
    trained = found.train_limit or len(given.train)
    tokens = (prompt + answer) / plan.BYTES_PER_TOKEN + 2 * plan.TOKENS_PER_MESSAGE
    rounds = 3 if found.rft_steps else 2
    tested = rounds * (found.test_limit or len(given.test))
    attempt = plan.SECONDS_PER_ATTEMPT + plan.SECONDS_PER_ATTEMPT_TOKEN * answer / plan.BYTES_PER_TOKEN
    return (
        plan.START_SECONDS
        + trained * found.epochs * tokens * plan.SECONDS_PER_TRAINED_TOKEN
        + tested * (plan.SECONDS_PER_ANSWER + plan.SECONDS_PER_ANSWER_TOKEN * found.max_tokens)
        + bool(found.rft_steps) * (found.rft_steps + 2) * plan.PROMPTS * plan.GROUP * attempt
    )


@pytest.mark.parametrize("minutes", [2, 10, 60])
@pytest.mark.parametrize("reinforced", [False, True])
@pytest.mark.parametrize(("train", "test"), [(12, 6), (120, 60), (3000, 300), (14000, 300)])
@pytest.mark.parametrize(("prompt", "answer"), [(80, 7), (300, 100), (2000, 600)])
def test_a_plan_keeps_to_the_minutes(
    minutes: int, reinforced: bool, train: int, test: int, prompt: int, answer: int
) -> None:
    given = parts(train, test, prompt, answer)
    found = plan.plan(given, minutes, reinforced=reinforced)
    assert found.seconds == pytest.approx(seconds(found, given, prompt=prompt, answer=answer))
    least = 1 + 0.5 * (prompt + answer) / 400  # minutes: few tokens of few rows cannot take less
    assert found.seconds <= 60 * max(minutes, least)
    assert found.epochs >= 1 and found.train_limit < train and found.test_limit < test


def test_a_200_row_file_is_seen_several_times_and_tested_whole() -> None:
    found = plan.plan(parts(120, 60, prompt=200), 10, reinforced=False)
    assert (found.epochs, found.train_limit, found.test_limit, found.eval_every) == (4, 0, 0, 15)
    assert found.seconds < 300


def test_few_rows_are_seen_more_often_and_many_less() -> None:
    epochs = [plan.plan(parts(train, 60), 30, reinforced=False).epochs for train in (12, 60, 120, 240, 2000)]
    assert epochs == [10, 8, 4, 3, 2]


def test_where_time_does_not_suffice_rows_epochs_and_rft_are_cut() -> None:
    assert plan.plan(parts(120, 60), 10, reinforced=True).rft_steps == 30
    assert plan.plan(parts(120, 60, answer=300), 10, reinforced=True).rft_steps < 30
    cut = plan.plan(parts(5000, 300, prompt=1000, answer=500), 2, reinforced=True)
    assert cut.rft_steps == 0 and cut.epochs == 1 and cut.train_limit and cut.test_limit == plan.FEWEST_TEST


def test_the_longest_right_answer_fits_into_max_tokens() -> None:
    """A token of English has four bytes or so, of digits and brackets two."""
    assert plan.plan(parts(120, 60, answer=7), 10, reinforced=False).max_tokens == 16
    assert plan.plan(parts(120, 60, answer=400), 10, reinforced=False).max_tokens == 208


def written(folder: Path, text: str) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(text)
    assert max(map(len, text.splitlines())) <= 120
    return load(path)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("grader", [graders.GRADER, graders.TESTED, graders.CALLED])
def test_a_recipe_is_the_plan(tmp_path: Path, task: str, grader: str) -> None:
    given = parts(5000, 300)
    found = plan.plan(given, 4, reinforced=TASKS[task].reinforced)
    made = written(tmp_path, recipe(TASKS[task], "org/model@main", found, given, grader, 4))
    sft, *rft = made.stages
    assert isinstance(sft, SFT)
    assert (made.model, sft.epochs, sft.batch_size, sft.eval_every) == (
        "org/model@main",
        found.epochs,
        plan.BATCH,
        found.eval_every,
    )
    assert [getattr(stage, "steps") for stage in rft] == [found.rft_steps] * bool(found.rft_steps)  # noqa: B009
    assert made.evals[0].max_tokens == found.max_tokens
    assert (getattr(sft.data, "limit") or 0) == found.train_limit  # noqa: B009
    assert (getattr(made.evals[0].data, "limit") or 0) == found.test_limit  # noqa: B009


@pytest.mark.parametrize("task", TASKS)
def test_a_stage_that_was_left_out_can_be_put_back_by_taking_the_marks_away(tmp_path: Path, task: str) -> None:
    given = parts(100, 50)
    found = plan.plan(given, 10, reinforced=False)
    text = recipe(TASKS[task], "m", found, given, graders.GRADER, 10)
    why = TASKS[task].instead or "it does not fit into 10 minutes"
    assert f"# An RFT stage is left out: {why}." in text
    back = "".join(line.removeprefix("# ") + "\n" for line in text.splitlines() if not line.startswith("# An RFT"))
    back = back.partition("\n\n")[2]  # without the lines at the top
    assert [stage.type for stage in written(tmp_path, back).stages] == ["sft", "rft"]


@pytest.mark.parametrize("model", ["yes", "null", "a: b", "#1", "C:\\models", '"x"', "org/name@v1", "/a b/ü"])
def test_any_name_of_a_model_is_read_back(tmp_path: Path, model: str) -> None:
    given = parts(100, 50)
    text = recipe(TASKS["chat"], model, plan.plan(given, 10, reinforced=False), given, graders.GRADER, 10)
    assert written(tmp_path, text).model == model
