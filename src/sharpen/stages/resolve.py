"""A recipe with nothing left open: absolute paths, inline rows on disk, threads, versions, data hashes."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sharpen import __version__
from sharpen.config.adapters import Full
from sharpen.config.base import Config, replaced
from sharpen.config.data import Data, FileData, InlineData, PairsData, Source
from sharpen.config.graders import BatchEndpoint, Grader, Plugin, RewardModel
from sharpen.config.graders.version import version as grader_version
from sharpen.config.load import RESOLVED, as_yaml, dump, load
from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT, SFT, AnyStage
from sharpen.data import pairs
from sharpen.data.source import fingerprint, pinned
from sharpen.errors import RunError
from sharpen.models.folder import pinned as pinned_model
from sharpen.models.load import compute_dtype
from sharpen.models.load import resolve as resolve_model
from sharpen.runs.store import write_lines, write_text
from sharpen.stages import own_graders, starts
from sharpen.train.rate import Choice, auto_lr

EXTRAS = ("numba", "llguidance")
"""numba's compiled loops round as torch does but for the last bit; llguidance says what a form allows."""

PACKAGES = ("torch", "transformers", "peft", "tokenizers", "numpy", "reasoning-gym", "math-verify")


class Resolved(NamedTuple):
    """A recipe as run, and the hash of each data source."""

    recipe: Recipe
    data: dict[str, str]


def resolve(recipe: Recipe, out: Path, base: Path) -> Resolved:
    """Fill in what depends on place and machine, and write `out`/recipe.yaml."""
    recipe = placed(own_graders.named(recipe, out), base)
    stages = tuple(_stage(stage, out, base) for stage in recipe.stages)
    evals = tuple(
        config.model_copy(update={"data": _data(config.data, out, base, f"evals/{config.name}")})
        for config in recipe.evals
    )
    recipe = recipe.model_copy(update={"stages": stages, "evals": evals})
    resolve_model(recipe.model)  # fetch now, so that a missing model fails before anything else
    recipe = recipe.model_copy(update={"model": pinned_model(recipe.model)})
    starts.check(recipe)
    resolved = Resolved(recipe, _fingerprints(recipe))
    noted = {"versions": versions(), "hardware": _hardware(recipe), "data": resolved.data}
    facts = {RESOLVED: {**noted, "graders": grader_versions(recipe), "starts": starts.digests(recipe)}}
    _write(out, recipe, facts)
    return resolved


def placed(recipe: Recipe, base: Path) -> Recipe:
    """The recipe with absolute paths where its models are folders and its graders files, and its number of threads."""
    local = base / recipe.model
    model = str(local.resolve()) if local.is_dir() else recipe.model
    graders_placed: Recipe = with_paths(starts.pinned(recipe, base), base)
    return graders_placed.model_copy(update={"model": model, "threads": recipe.threads or _threads()})


def with_paths(value: Any, base: Path) -> Any:
    """The config, in which every grader that names a path has it absolute."""

    def placed(config: Config) -> Config:
        return config.placed(base) if isinstance(config, RewardModel | BatchEndpoint | Plugin) else config

    return replaced(value, placed)


def rewrite(out: Path, recipe: Recipe) -> None:
    """Put `recipe` in the place of the run's own; the facts noted at its start stay."""
    written = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))
    _write(out, recipe, {RESOLVED: written[RESOLVED]})


def settle_rates(recipe: Recipe, parameters: int) -> tuple[Recipe, dict[str, Choice]]:
    """The recipe with a number for each `lr: auto`, by the model's parameter count; and what was chosen, by stage."""
    chosen = {
        stage.name: auto_lr(stage.type, parameters, adapter=not isinstance(recipe.trains(index), Full))
        for index, stage in enumerate(recipe.stages)
        if stage.optim.lr == "auto"
    }
    stages = tuple(
        stage.model_copy(update={"optim": stage.optim.model_copy(update={"lr": chosen[stage.name].lr})})
        if stage.name in chosen
        else stage
        for stage in recipe.stages
    )
    return recipe.model_copy(update={"stages": stages}), chosen


def reopen(out: Path) -> tuple[Resolved, str]:
    """The resolved recipe of a run, and which versions differ now. Raises RunError when its data changed."""
    path = out / "recipe.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(written, dict) or RESOLVED not in written:
        raise RunError(
            "this recipe.yaml is no run's: it notes no versions and data hashes",
            value=str(path),
            remedy="Start a run with it: sharpen run RECIPE --out DIR",
        )
    facts = written[RESOLVED]
    resolved = Resolved(load(path), facts["data"])
    for name, digest in _fingerprints(resolved.recipe).items():
        if digest != facts["data"][name]:
            raise RunError(
                "data changed since the run began", value=name, remedy="Restore it, or start a new run with --out"
            )
    for name, digest in starts.digests(resolved.recipe).items():
        if digest != facts["starts"][name]:
            raise RunError(
                "the model changed since the run began", value=name, remedy="Restore it, or start a new run with --out"
            )
    now = {**versions(), **_hardware(resolved.recipe)}
    before = {**facts["versions"], **facts["hardware"]}
    changed = [f"{name} {before.get(name)} -> {value}" for name, value in now.items() if before.get(name) != value]
    return resolved, ", ".join(changed)


def changed_graders(out: Path, recipe: Recipe) -> str:
    """Which graders have another version than the run noted at its start; a run of an older sharpen noted none."""
    before = yaml.safe_load((out / "recipe.yaml").read_text(encoding="utf-8"))[RESOLVED].get("graders", {})
    now = grader_versions(recipe)
    return ", ".join(
        f"{name} {before[name]} -> {now[name]}" for name in now if before.get(name, now[name]) != now[name]
    )


def grader_versions(recipe: Recipe, only: int | None = None) -> dict[str, str]:
    """The version of each grader of the recipe, by the place that names it: `stages.rft`, `evals.held_out.data`; or of
    those of one stage."""
    found: dict[str, Grader | None] = {}
    for config in recipe.evals if only is None else ():
        found |= _graders(f"evals.{config.name}", config.grader, data=config.data)
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, RFT) and only in (None, index):
            place = f"stages.{stage.name}"
            found |= _graders(place, stage.grader, data=stage.data, validation=stage.validation)
    return {place: grader_version(own) for place, own in found.items() if own}


def _graders(place: str, own: Grader | None, **data: Data | None) -> dict[str, Grader | None]:
    """A stage's or eval's own grader, and those of its sources, by number where there are several."""
    found = {place: own}
    for field, several in data.items():
        if isinstance(several, tuple):
            found |= {f"{place}.{field}.{number}": source.grader for number, source in enumerate(several)}
        elif several is not None:
            found[f"{place}.{field}"] = several.grader
    return found


def _write(out: Path, recipe: Recipe, facts: dict[str, Any]) -> None:
    write_text(out / "recipe.yaml", dump(recipe) + as_yaml(facts))


def _stage(stage: AnyStage, out: Path, base: Path) -> AnyStage:
    """The stage with the places of its data."""
    placed: dict[str, Any] = {"data": _data(stage.data, out, base, f"stages/{stage.name}")}
    if stage.validation is not None:
        placed["validation"] = _data(stage.validation, out, base, f"validation/{stage.name}")
    if isinstance(stage, SFT) and stage.replay is not None:
        data = _data(stage.replay.data, out, base, f"replay/{stage.name}")
        placed["replay"] = stage.replay.model_copy(update={"data": data})
    return stage.model_copy(update=placed)


def _data(data: Data, out: Path, base: Path, name: str) -> Data:
    if isinstance(data, tuple):
        return tuple(_source(source, out, base, f"{name}-{place}") for place, source in enumerate(data, start=1))
    return _source(data, out, base, name)


def _source(source: Source, out: Path, base: Path, name: str) -> Source:
    match source:
        case PairsData():  # kept here: the earlier run may go
            path = out / "data" / f"{name}.jsonl"
            write_lines(path, [record for _, record in pairs.rows(source, base)])
            return FileData(path=str(path.resolve()), split=source.split, weight=source.weight)
        case InlineData():
            path = out / "data" / f"{name}.jsonl"
            write_lines(path, source.rows)
            kept = {key: getattr(source, key) for key in ("columns", "split", "grader", "weight")}
            return FileData(path=str(path.resolve()), **kept)
        case FileData():
            return pinned(source, base)
        case _:
            return source


def _fingerprints(recipe: Recipe) -> dict[str, str]:
    sources: dict[str, Data] = {f"evals.{config.name}": config.data for config in recipe.evals}
    for stage in recipe.stages:
        sources[f"stages.{stage.name}.data"] = stage.data
        if stage.validation is not None:
            sources[f"stages.{stage.name}.validation"] = stage.validation
        if isinstance(stage, SFT) and stage.replay is not None:
            sources[f"stages.{stage.name}.replay.data"] = stage.replay.data
    return {name: fingerprint(data, Path()) for name, data in sources.items()}


def _threads() -> int:
    """As many as OMP_NUM_THREADS says, which torchrun sets to 1; else all cores."""
    said = os.environ.get("OMP_NUM_THREADS", "")
    return int(said) if said.isdigit() and int(said) else os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Those of sharpen, Python and the libraries that results may depend on."""
    found = {name: version(name) for name in PACKAGES}
    for name in EXTRAS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "none"
    return {"sharpen": __version__, "python": platform.python_version(), **found}


def _hardware(recipe: Recipe) -> dict[str, Any]:
    return {
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "threads": recipe.threads,
        "compute": str(compute_dtype(recipe.dtype)).removeprefix("torch."),
    }
