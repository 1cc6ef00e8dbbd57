"""What a client asks for runs: each method's recipe trains a tiny model, also on fewer rows than a batch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from sharpen.config.load import as_yaml, load
from sharpen.config.recipe import Recipe
from sharpen.runs.store import read_lines
from sharpen.server.jobs.prepare import prepare
from sharpen.server.tables import jobs
from sharpen.stages import pipeline
from tests.server.jobs_lab import PAIRS, PROMPTS, ROWS, Lab
from tests.tiny import tiny_model

GRADER = {
    "type": "multi",
    "graders": {
        "a": {
            "type": "string_check",
            "name": "a",
            "input": "{{ sample.output_text }}",
            "reference": "A",
            "operation": "like",
        },
        "b": {
            "type": "text_similarity",
            "name": "b",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
            "evaluation_metric": "fuzzy_match",
        },
    },
    "calculate_output": "0.5 * a + 0.5 * b",
}


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("recipes")
    model = tiny_model(folder / "model", num_hidden_layers=1)
    made = Lab(folder, models={"tiny": str(model)})
    yield made
    made.close()


def run(lab: Lab, out: Path, **asked: Any) -> tuple[Recipe, Path]:
    """A job's run, made as the supervisor makes it but in this process."""
    answer = lab.ask("POST", "/v1/fine_tuning/jobs", {"model": "tiny", "seed": 3, **asked})
    assert answer.status_code == 200, answer.text
    query = select(jobs).where(jobs.c.id == answer.json()["id"])
    row = lab.server.db.look(lambda connection: connection.execute(query).one())
    prepared = asyncio.run(prepare(lab.server, row, judge_url="http://127.0.0.1:1/v1", threads=1))
    path = out / "recipe.yaml"
    path.write_text(as_yaml(prepared.recipe))
    recipe = load(path)
    pipeline.run(recipe, out / "run", base=out)
    return recipe, out / "run"


@pytest.mark.parametrize(("method", "rows"), [("supervised", ROWS), ("dpo", PAIRS)])
def test_rows_are_learned_with_a_checkpoint_at_each_epoch(
    lab: Lab, tmp_path: Path, method: str, rows: list[Any]
) -> None:
    hyperparameters = {"n_epochs": 3, "batch_size": 64}
    _, out = run(
        lab,
        tmp_path,
        training_file=lab.file(rows[:6]),
        validation_file=lab.file(rows[6:9]),
        method={"type": method, method: {"hyperparameters": hyperparameters}},
    )
    lines = read_lines(out / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3] and all("validation" in line for line in lines)
    kept = sorted(path.name for path in out.glob("stages/*/checkpoints/step-*"))
    assert kept == ["step-00001", "step-00002", "step-00003"]
    assert (out / "models" / {"supervised": "sft"}.get(method, method) / "config.json").is_file()


def test_graded_completions_are_learned_from_with_the_best_model_at_the_end(lab: Lab, tmp_path: Path) -> None:
    hyperparameters = {
        "n_epochs": 1,
        "batch_size": 2,
        "compute_multiplier": 0.25,
        "eval_interval": 2,
        "eval_samples": 2,
    }
    recipe, out = run(
        lab,
        tmp_path,
        training_file=lab.file(PROMPTS[:8]),
        validation_file=lab.file(PROMPTS[8:12]),
        method={
            "type": "reinforcement",
            "reinforcement": {"grader": GRADER, "hyperparameters": hyperparameters | {"reasoning_effort": "low"}},
        },
    )
    lines = read_lines(out / "metrics.jsonl")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["validation"]["n"] for line in lines if "validation" in line] == [2, 2]
    assert recipe.stages[0].final == "best" and (out / "models" / "rft" / "config.json").is_file()
