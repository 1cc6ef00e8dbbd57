"""Checkpoints of a stage: whole or absent, verified before use, the newest good one wins."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.errors import CheckpointError, DivergedError
from sharpen.models import scorer
from sharpen.models.adapter_files import save_adapter
from sharpen.models.adapters import attached
from sharpen.models.load import Loaded, save
from sharpen.runs.manifest import publish, verify
from sharpen.runs.retention import checkpoints, kept, remove
from sharpen.train.engine import Engine
from sharpen.train.optim import state_of
from sharpen.types import Checkpoint


class Restored(NamedTuple):
    """What a resumed stage goes on from."""

    checkpoint: Checkpoint
    state: dict[str, Any]
    manifest: dict[str, Any]


def write(
    folder: Path, step: int, engine: Engine, loaded: Loaded, state: dict[str, Any], facts: dict[str, Any]
) -> Checkpoint:
    """Write `folder`/step-00040: what is trained, and all that training needs to go on.

    The model is as transformers saves it; where an adapter is trained, it stands alone, as PEFT saves it.

    Raises DivergedError rather than write numbers that are not finite.
    """
    check_finite(engine)
    path = folder / f"step-{step:05d}"
    with publish(path, {"step": step, **facts}) as aside:
        if attached(loaded.model):
            save_adapter(loaded.model, aside)
            if scorer.is_scorer(loaded.model):
                scorer.add_head(loaded.model, aside)
        else:
            save(loaded.model, loaded.tokenizer, aside, loaded.dtype)
        engine.save_state(aside)
        (aside / "state.json").write_text(json.dumps({"engine": engine.state(), **state}))
    return Checkpoint(path, step)


def thin(folder: Path, step: int, last: int, every: int | None) -> None:
    """Drop what the checkpoint of `step`, just written, makes superfluous: all but the `last` newest and each `every`.

    Raises CheckpointError, and drops nothing, where it does not match its manifest. Later ones than it were damaged
    when the stage went on without them, and go.
    """
    found = checkpoints(folder)
    verify(found[step])
    stay = kept((known for known in found if known <= step), last, every)
    for known, path in found.items():
        if known not in stay:
            remove(path)
    for leftover in folder.glob(".step-*"):  # of a process that was killed
        shutil.rmtree(leftover)


def check_finite(engine: Engine) -> None:
    """Raise DivergedError unless all weights and the optimiser's moments are finite."""
    moments = (moment for master in engine.masters for moment in state_of(engine.adam, master).values())
    if not all(bool(tensor.isfinite().all()) for tensor in (*engine.parameters, *engine.masters, *moments)):
        raise DivergedError(
            "the weights are no longer finite, so they are not written",
            remedy=f"Lower optim.lr (now {engine.optim.peak:g})",
        )


def newest(folder: Path) -> Iterator[Restored | CheckpointError]:
    """From the newest down: the first good checkpoint, preceded by the error of each damaged one."""
    for path in reversed(checkpoints(folder).values()):
        try:
            manifest = verify(path)
        except CheckpointError as error:
            yield error
            continue
        state = json.loads((path / "state.json").read_text())
        yield Restored(Checkpoint(path, manifest["step"]), state, manifest)
        return
