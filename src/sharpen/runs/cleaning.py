"""What of a run nothing needs any more, and taking it away: nothing goes before what replaces it verifies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sharpen.errors import CheckpointError, RunError
from sharpen.runs.listing import files, parsed
from sharpen.runs.manifest import verify
from sharpen.runs.retention import checkpoints, kept, remove

STAGE = re.compile(r"\d+-(.+)")


class Keep(NamedTuple):
    """What is asked to stay; None: as `stage_plan` and the recipe have it. `every` 0: none for good."""

    last: int | None = None
    every: int | None = None
    rollouts: bool = True


class Part(NamedTuple):
    """A folder that may go, and why."""

    path: Path
    bytes: int
    why: str


@dataclass
class Plan:
    """What may go of a run; `notes` say what stays although it was to go, `losses` what is then no longer possible."""

    run: Path
    parts: list[Part] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """What would be free."""
        return sum(part.bytes for part in self.parts)

    def add(self, path: Path, why: str) -> None:
        """A folder may go."""
        self.parts.append(Part(path, sum(size for _, size in files(path)), why))


def plan(run: Path, keep: Keep, look: Callable[[str], None] = lambda what: None) -> Plan:
    """What may go of a run that no process is at work in; `look` is told what is being read, as that takes time.

    Raises RunError where the recipe cannot be read: it says what is to stay.
    """
    found = Plan(run)
    stages = _stages(run)
    begun = _begun(run, tuple(stages))
    for folder in sorted(path for path in (run / "stages").glob("*") if path.is_dir()):
        name = named[1] if (named := STAGE.fullmatch(folder.name)) else ""
        if name in stages:
            look(f"{run.name}: {name}")
            later = bool(begun) and list(stages).index(name) < list(stages).index(begun)
            _plan_stage(found, folder, name, stages[name], keep, later=later)
    for path in _leftovers(run):
        found.add(path, "left by a process that was killed")
    if not keep.rollouts and (run / "rollouts").is_dir():
        found.add(run / "rollouts", "the completions, as --rollouts asks")
        found.losses.append("a report written anew shows no completions, and `sharpen regrade` finds none")
    return found


def carry_out(plan: Plan) -> None:
    """Take away what a plan names. The run must be held (`RunDir`) since before it was made."""
    for part in plan.parts:
        remove(part.path)


def _plan_stage(found: Plan, folder: Path, name: str, every: int | None, keep: Keep, *, later: bool) -> None:
    """The checkpoints of a stage; `later`: another stage stands on its model, so it can never go on."""
    saved = checkpoints(folder / "checkpoints")
    if not saved:
        return
    done = _published(found, name)
    last = keep.last if keep.last is not None else 0 if later and done else 1
    if not last and not done:
        found.notes.append(f"{name} is not done, so its newest checkpoint stays")
        last = 1
    newest = _newest_sound(found, saved, name, last)
    if len(newest) < last:
        return
    outdated = set(saved) if not last else {step for step in saved if step < min(newest)}
    outdated -= kept(saved, 0, every if keep.every is None else keep.every)
    why = f"step {max(newest)} is newer and verifies" if last else f"models/{name} verifies, and {name} is done"
    for step in sorted(outdated):
        found.add(saved[step], why)
    if not last and outdated and not later:
        left = max(set(saved) - outdated, default=0)
        found.losses.append(f"{name} can then be trained further only from step {left} on")


def _newest_sound(found: Plan, saved: dict[int, Path], name: str, count: int) -> list[int]:
    """The newest so many that match their manifests; those passed over on the way are noted."""
    sound: list[int] = []
    for step, path in reversed(saved.items()):
        if len(sound) == count:
            break
        try:
            verify(path)
            sound.append(step)
        except CheckpointError as error:
            found.notes.append(f"{path.name} of {name} is damaged and left as it is ({error.fact})")
    return sound


def _published(found: Plan, name: str) -> bool:
    """Whether a stage's model stands there whole."""
    folder = found.run / "models" / name
    if not folder.is_dir():
        return False
    try:
        verify(folder)
    except CheckpointError as error:
        found.notes.append(f"models/{name} is damaged ({error.fact}), so what it was to replace stays")
        return False
    return True


def _stages(run: Path) -> dict[str, int | None]:
    """The stages' names in order, and the `keep_every` of each."""
    try:
        recipe: Any = yaml.safe_load((run / "recipe.yaml").read_text(encoding="utf-8", errors="replace"))
        every = {str(stage["name"]): stage.get("keep_every") for stage in recipe["stages"]}
        return {name: int(steps) if steps else None for name, steps in every.items()}
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise RunError(
            "its recipe.yaml cannot be read, so nothing says what is to stay",
            value=str(run),
            remedy="Remove the folder by hand if you are done with it",
        ) from error


def _begun(run: Path, stages: tuple[str, ...]) -> str:
    """The last stage of which there is a step or a model."""
    try:
        lines = (run / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
    except OSError:
        lines = []
    met = {str(line.get("stage")) for raw in lines if (line := parsed(raw))}
    return next((name for name in reversed(stages) if name in met or (run / "models" / name).is_dir()), "")


def _leftovers(run: Path) -> Iterator[Path]:
    """Folders that `publish` and `remove` leave when they are killed; an old one only where the new one stands."""
    places = (run, run / "models", *(run / "stages").glob("*"), *(run / "stages").glob("*/checkpoints"))
    for place in places:
        for path in sorted(place.glob(".*")):
            name, _, ending = path.name[1:].rpartition(".")
            if not path.is_dir() or path.is_symlink() or not name:
                continue
            if ending in ("writing", "removed") or (ending == "old" and (place / name).is_dir()):
                yield path
