"""A run whose completions are held to a form: what it measures of itself, and that it may be broken off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from sharpen.errors import Interrupted
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.core.held import SLOW
from tests.runs.lab import World, bits, differences, events
from tests.runs.test_lag import Stopping
from tests.tiny import tiny_model

SCHEMA = {
    "type": "object",
    "properties": {"a": {"enum": ["x", "yy", 7]}, "b": {"type": "boolean"}},
    "required": ["a", "b"],
    "additionalProperties": False,
}
FORMS = {
    "schema": {"type": "json_schema", "json_schema": {"name": "pair", "schema": SCHEMA, "strict": True}},
    "regex": {"type": "regex", "pattern": "[a-f]{2,5}[0-9]"},
}
WHOLE = 30
"""Tokens that suffice for either form."""


def held(world: World, form: str, steps: int, **sampling: Any) -> dict[str, Any]:
    """An RFT stage of so many steps, of which one batch waits, and a look at held-out prompts at the end."""
    return world.rft_stage(
        response_format=FORMS[form],
        validation=world.rft_validation,
        steps=steps,
        eval_every=9,
        algorithm={"overlong_buffer": 0.0, "max_lag": 1},
        sampling={"max_tokens": WHOLE, **sampling},
    )


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("sampling", [{}, {"top_p": 0.9}], ids=["all", "top-p"])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("path", ["fast", "slow"])
def test_the_first_step_finds_sampler_and_trainer_at_one_under_the_mask(
    world: World, tmp_path: Path, path: str, form: str, sampling: dict[str, Any]
) -> None:
    model = world.model if path == "fast" else str(tiny_model(tmp_path / "model", SLOW, num_hidden_layers=1))
    pipeline.run(world.recipe(held(world, form, 1, **sampling), model=model), tmp_path / "run", base=world.folder)
    (parity,) = events(tmp_path / "run", "parity")
    assert parity["tokens"] > 30 and parity["logprob_gap_max"] <= 1e-4


@pytest.mark.usefixtures("here")
def test_attempts_and_answers_are_of_the_form_in_training_and_in_evaluations(world: World, tmp_path: Path) -> None:
    checks = Draft202012Validator(SCHEMA)
    evaluated = world.eval_config(response_format=FORMS["schema"], max_tokens=WHOLE)
    pipeline.run(world.recipe(held(world, "schema", 2), evals=[evaluated]), tmp_path, base=world.folder)
    attempts = [line for path in tmp_path.glob("rollouts/rft/*.jsonl") for line in read_lines(path)]
    answers = [line for path in tmp_path.glob("evals/held/*.jsonl") for line in read_lines(path)]
    assert len(attempts) == 12 and len(answers) == 10
    for line in (*attempts, *answers):
        assert line["finish"] == "stop"
        checks.validate(json.loads(line["text"]))
    for line in answers:
        checks.validate(json.loads(line["samples"][0]["text"]))


@pytest.mark.usefixtures("here")
def test_a_run_broken_off_while_held_batches_wait_ends_with_the_same_bits(world: World, tmp_path: Path) -> None:
    recipe = world.recipe(held(world, "schema", 4))
    pipeline.run(recipe, tmp_path / "whole", base=world.folder)
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        pipeline.run(recipe, tmp_path / "broken", base=world.folder, observer=Stopping(3, KeyboardInterrupt))
    pipeline.resume(tmp_path / "broken")
    assert differences(bits(tmp_path / "whole"), bits(tmp_path / "broken")) == []
