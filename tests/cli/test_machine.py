"""Doctor and prediction: facts about this machine, and what follows from them."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from sharpen.cli import forecast, machine
from sharpen.cli.main import main
from sharpen.cli.quickstart import recipe_path
from sharpen.config.load import load, parse
from sharpen.config.recipe import Recipe

REFERENCE = machine.Speed("bfloat16", forecast.REFERENCE_SPEED)
GYM = {"type": "reasoning_gym", "generator": "chain_sum"}


def recipe(steps: int = 40) -> Recipe:
    sft = {"type": "sft", "data": {"path": "labelled.jsonl"}, "epochs": 3}
    rft = {"type": "rft", "data": {**GYM, "count": 900}, "grader": {"type": "math"}, "steps": steps}
    held_out = {"name": "held_out", "data": {**GYM, "start": 5000, "count": 500}, "grader": {"type": "math"}}
    return parse({"model": "m", "stages": [sft, rft], "evals": [held_out]})


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "labelled.jsonl").write_text("{}\n" * 100 + "\n")
    return tmp_path


def test_the_reference_machine_needs_the_reference_seconds(base: Path) -> None:
    found = forecast.forecast(recipe(), base, REFERENCE, budget=1e9)
    sft = forecast.SECONDS_PER_SFT_ROW * 100 * 3
    rft = forecast.SECONDS_PER_COMPLETION * 40 * 16 * 8
    evals = forecast.SECONDS_PER_ANSWER * 500 * 3
    assert found.seconds == pytest.approx(forecast.START_SECONDS + sft + rft + evals)
    assert not found.cut
    assert found.overrides() == []


def test_the_packaged_recipe_is_predicted_to_take_what_it_took() -> None:
    """6 min 32 s, uncut, on the reference machine; 5 min 4 s of older code on one with 2.36 TFLOP/s in AMX."""
    found = forecast.forecast(load(recipe_path()), recipe_path().parent, REFERENCE)
    assert found.seconds == pytest.approx(392, rel=0.05) and not found.cut
    fast = forecast.forecast(load(recipe_path()), recipe_path().parent, machine.Speed("bfloat16", 2.36e12))
    assert fast.seconds < 304


def test_a_slower_machine_needs_longer_for_its_matrix_products(base: Path) -> None:
    fast = forecast.forecast(recipe(), base, REFERENCE, budget=1e9)
    slow = forecast.forecast(recipe(), base, machine.Speed("float32", forecast.REFERENCE_SPEED / 3), budget=1e9)
    share = forecast.MATMUL_SHARE
    assert slow.seconds == pytest.approx((3 * share + 1 - share) * fast.seconds)


def test_steps_are_cut_to_the_budget(base: Path) -> None:
    whole = forecast.forecast(recipe(), base, REFERENCE, budget=1e9).seconds
    cut = forecast.forecast(recipe(), base, REFERENCE, budget=0.8 * whole)
    assert forecast.FEWEST_STEPS < cut.steps["rft"] < 40
    assert cut.seconds <= 0.8 * whole
    assert cut.uncut_seconds == pytest.approx(whole)
    assert cut.overrides() == [f"stages.rft.steps={cut.steps['rft']}"]
    one_more = recipe(steps=cut.steps["rft"] + 1)
    assert forecast.forecast(one_more, base, REFERENCE, budget=1e9).seconds > 0.8 * whole


def test_some_steps_always_remain(base: Path) -> None:
    assert forecast.forecast(recipe(), base, REFERENCE, budget=0.0).steps == {"rft": forecast.FEWEST_STEPS}
    assert forecast.forecast(recipe(steps=3), base, REFERENCE, budget=0.0).steps == {"rft": 3}


def test_this_machine_has_facts() -> None:
    assert machine.cores() >= 1
    found = machine.memory()
    assert found is None or 0 < found.free <= found.total
    assert machine.disk_free(Path("/no/such/folder/yet")) > 0
    assert machine.matmul_speed(0.1).flops > 1e8


def test_doctor_finds_this_machine_sound(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "matmul_speed", lambda: REFERENCE)
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for name in (
        "Python",
        "torch",
        "cores",
        "memory",
        "disk",
        "matrix units",
        str(REFERENCE),
        "quickstart",
    ):
        assert name in said
    assert "✗" not in said


def test_doctor_says_how_to_mend_a_missing_torch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.import_module

    def without_torch(name: str, *rest: Any) -> Any:
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'")
        return real(name, *rest)

    monkeypatch.setattr(importlib, "import_module", without_torch)
    assert main(["doctor"]) == 1
    said = capsys.readouterr().out
    assert "✗ torch" in said
    assert "-m pip install torch==2.13.0" in said
    assert "cores" in said
