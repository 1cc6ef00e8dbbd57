"""A `sharpen run` without a model: `fake_run.py RUN STEPS SECONDS [MANNER …]` writes what a real one would.

Manners: `crash` (dies at step 2, the first time) · `crash-always` · `refuse` (a SharpenError before it begins) · `fail`
(one in the run) · `guard` (the run pauses itself) · `hang` (writes nothing after step 1) · `deaf` (does not stop when
asked) · `quick-death` (dies before the first step).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

run, steps, seconds, manners = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), set(sys.argv[4:])
asked: list[int] = []
signal.signal(signal.SIGTERM, (lambda *_: None) if "deaf" in manners else lambda number, _: asked.append(number))
folder = run / "stages/01-sft/checkpoints"


def append(name: str, line: dict[str, object]) -> None:
    with (run / name).open("a") as file:
        file.write(json.dumps(line) + "\n")


def event(event: str, **fields: object) -> None:
    append("events.jsonl", {"time": round(time.time(), 3), "event": event, **fields})


def checkpoint(step: int) -> None:
    place = folder / f"step-{step:05d}"
    place.mkdir(parents=True, exist_ok=True)
    (place / "adapter_config.json").write_text("{}")
    (place / "trainer.safetensors").write_text("much")
    for old in sorted(folder.glob("step-*"))[:-3]:
        for file in old.iterdir():
            file.unlink()
        old.rmdir()
    event("checkpoint", stage="sft", step=step, path=str(place.relative_to(run)))


def rewind(step: int) -> None:
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))


def main() -> int:
    (run.parent / f"{run.name}.pids").open("a").write(f"{os.getpid()}\n")
    (run.parent / f"{run.name}.env").write_text(json.dumps(dict(os.environ)))
    if "quick-death" in manners:
        print("loading with sk-abcdefghijklmnop")
        os.kill(os.getpid(), signal.SIGKILL)
    if "refuse" in manners:
        print("error: the recipe is not one\nWrite another", file=sys.stderr)
        return 2
    run.mkdir(parents=True, exist_ok=True)
    again = (run / "recipe.yaml").exists()
    (run / "recipe.yaml").write_text("stages: []\n")
    event("resumed" if again else "started", model="tiny")
    found = sorted(folder.glob("step-*"))
    done = int(found[-1].name.removeprefix("step-")) if found else 0
    rewind(done)
    if "guard" in manners and not again:
        event("paused", stage="sft", step=done, cause="the grader failed on 3 of 4 completions of one step")
        return 2
    if "fail" in manners:
        event("failed", cause=f"{sys.argv[0]}: a row is too long, at {os.environ.get('HOME')}")
        print("error: a row is too long", file=sys.stderr)
        return 2
    for step in range(done + 1, steps + 1):
        time.sleep(seconds)
        line = {"stage": "sft", "type": "sft", "step": step, "steps": steps, "loss": 1 / step, "token_accuracy": 0.5}
        append("metrics.jsonl", {**line, "lr": 0.1, "tokens": {"sampled": 0, "trained": 7}})
        if "crash-always" in manners or ("crash" in manners and step == 3 and not again):
            os.kill(os.getpid(), signal.SIGKILL)
        if "hang" in manners and not again:
            time.sleep(3600)
        if step % 2 == 0 or asked:
            checkpoint(step)
        if asked:
            event("interrupted", stage="sft", step=step, cause="SIGTERM")
            return 130
    model = run / "models/sft"
    model.mkdir(parents=True, exist_ok=True)
    (model / "config.json").write_text("{}")
    event("finished")
    return 0


sys.exit(main())
