"""Whole runs of models that do not compute on our attention, and of a mixture of experts in bfloat16."""

from __future__ import annotations

import io
import signal
from pathlib import Path

import pytest
import torch

from sharpen.cli.progress import Plain
from sharpen.cli.track import Plan
from sharpen.errors import Interrupted
from sharpen.models.load import load
from sharpen.stages import pipeline
from sharpen.stages.evaluate import standalone
from tests.runs.lab import World, bits, differences, events
from tests.runs.test_stopped import Sender
from tests.tiny import SLOW_ARCHITECTURES, tiny_model


@pytest.mark.parametrize(
    ("architecture", "dtype"), [*((name, "float32") for name in SLOW_ARCHITECTURES), ("gpt_oss", "bfloat16")]
)
@pytest.mark.usefixtures("here")
def test_a_stopped_run_ends_with_the_bits_of_an_undisturbed_one(tmp_path: Path, architecture: str, dtype: str) -> None:
    """SFT, RFT with a lag and a cut, and an evaluation; stopped in RFT."""
    world = World(tmp_path)
    model = tiny_model(tmp_path / architecture, architecture, num_hidden_layers=1, layer_types=None)
    recipe = world.whole().model_copy(update={"model": str(model), "dtype": dtype})
    whole, stopped, log = tmp_path / "whole", tmp_path / "stopped", io.StringIO()
    pipeline.run(recipe, whole, base=world.folder, observer=Plain(Plan(whole, str(model), ()), log))
    with pytest.raises(Interrupted):
        pipeline.run(recipe, stopped, base=world.folder, observer=Sender(signal.SIGTERM, lambda what: what == "rft 3"))
    pipeline.resume(stopped)
    assert not differences(bits(stopped), bits(whole))
    assert not torch.equal(*(load(path, torch.float32).model.lm_head.weight for path in (model, whole / "models/rft")))

    alerts = [event for event in events(whole, "alert") if event["kind"] == "slow_path"]
    gaps = [event for event in events(whole, "alert") if event["kind"] == "logprob_gap"]
    slow = architecture in SLOW_ARCHITECTURES
    assert not gaps and len(alerts) == slow
    assert len([event for event in events(stopped, "alert") if event["kind"] == "slow_path"]) == 2 * slow
    assert ("the fast path does not know this model" in log.getvalue()) == slow
    assert ("the fast path does not know this model" in (whole / "report.html").read_text()) == slow


@pytest.mark.usefixtures("here")
def test_an_evaluation_outside_a_run_says_it_too(tmp_path: Path) -> None:
    world, log = World(tmp_path), io.StringIO()
    model = str(tiny_model(tmp_path / "bloom", "bloom"))
    config = world.recipe(evals=[world.eval_config()]).evals[0]
    observer = Plain(Plan(tmp_path, model, ()), log)
    standalone(model, config, None, base=tmp_path, observer=observer)
    assert "the fast path does not know this model (bloom)" in log.getvalue()
