"""Where each stage starts: from a stage before it, from the recipe's model, or from a model of an earlier run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sharpen.config.adapters import Continue, Full, Lora, QLora
from sharpen.config.recipe import Recipe
from sharpen.models.load import Loaded, load
from sharpen.models.load import resolve as resolve_model
from sharpen.runs import lineage
from sharpen.stages import earlier

KEEPING = {"save_every", "keep_last", "keep_every"}
"""Fields of a stage that change no bit of its model, and are no part of its lineage."""


def start(recipe: Recipe, index: int, run: Path) -> str:
    """What `models.load` takes for the model that the stage at `index` starts from; `run` is the run's directory."""
    before = recipe.parent(index)
    return model_of(recipe, before, run) if before is not None else recipe.elsewhere(index) or recipe.model


def model_of(recipe: Recipe, index: int | None, run: Path) -> str:
    """What `models.load` takes for the model of the stage at `index`; None: for the recipe's."""
    return recipe.model if index is None else str(run / "models" / recipe.stages[index].name)


def name(recipe: Recipe, index: int) -> str:
    """What the stage at `index` starts from, as the recipe calls it."""
    before = recipe.parent(index)
    return recipe.stages[before].name if before is not None else recipe.elsewhere(index) or recipe.model


def needs(recipe: Recipe, index: int, run: Path) -> set[int]:
    """The stages that the one at `index` stands on: what it starts from, and reward models that its graders ask."""
    before, settings = recipe.parent(index), recipe.stages[index].model_dump(mode="json")
    scorers = (other for other in range(index) if not recipe.stages[other].makes_policy)
    asked = {other for other in scorers if _says(settings, str(Path(model_of(recipe, other, run)).resolve()))}
    return asked | ({before} if before is not None else set())


def put(name: str, loaded: Loaded, recipe: Recipe) -> None:
    """Load another model in the place of the one in memory, which goes first: two at once may not fit."""
    loaded.model = None
    vars(loaded).update(vars(load(name, loaded.dtype, recipe.chat_template_kwargs)))


# Adapters


def maker(recipe: Recipe, index: int) -> Lora | QLora:
    """The settings with which the adapter was made that the stage at `index` trains."""
    made = recipe.made(index)
    trained = recipe.trains(made)
    return _earlier(recipe, made).settings if isinstance(trained, Continue) else recipe.maker(made)


def base(recipe: Recipe, index: int, run: Path = Path()) -> str:
    """What `models.load` takes for the model under the adapters of the stage at `index`. Without `run` as adapters note
    it: a model of the run from where that lies."""
    lowest = recipe.bottom(index)
    if isinstance(recipe.trains(lowest), Continue):
        return _earlier(recipe, lowest).base
    return start(recipe, lowest, run)


def _earlier(recipe: Recipe, index: int) -> earlier.Adapter:
    return earlier.adapter(Path(recipe.elsewhere(index) or ""), _where(recipe, index))


# Models of earlier runs


def pinned(recipe: Recipe, base: Path) -> Recipe:
    """The recipe in which each `from` that is a path is the absolute one of a model's folder.

    Raises ConfigError, RunError and ModelError where it is none to start from.
    """

    def found(index: int, path: str) -> Path:
        return earlier.found((base / Path(path).expanduser()).resolve(), _where(recipe, index))

    stages = tuple(
        stage.model_copy(update={"from_": str(found(index, path))}) if (path := recipe.elsewhere(index)) else stage
        for index, stage in enumerate(recipe.stages)
    )
    return recipe.model_copy(update={"stages": stages})


def check(recipe: Recipe) -> None:
    """Raise ModelError where a stage cannot go on from an earlier run's model, whose path is pinned."""
    for index in range(len(recipe.stages)):
        if path := recipe.elsewhere(index):
            where = _where(recipe, index)
            earlier.check_tokenizer(Path(path), recipe.model, recipe.chat_template_kwargs, where)
            if isinstance(recipe.trains(index), Continue):
                _earlier(recipe, index)


def digests(recipe: Recipe) -> dict[str, str]:
    """The hash of each earlier run's model that a stage starts from or lies on, by the place in the recipe."""
    found: dict[str, str] = {}
    for index in range(len(recipe.stages)):
        if path := recipe.elsewhere(index):
            found[_where(recipe, index)] = lineage.contents(Path(path))
            if isinstance(recipe.trains(index), Continue):
                base = resolve_model(_earlier(recipe, index).base)
                found[f"the base of {_where(recipe, index)}"] = lineage.contents(base)
    return found


def _where(recipe: Recipe, index: int) -> str:
    return f"stages.{recipe.stages[index].name}.from"


# Lineage


def origin(recipe: Recipe, index: int, run: Path, trains: str, data: dict[str, str]) -> dict[str, Any]:
    """What is known of the model of the stage at `index` before it is trained, for its lineage.

    `trains` says in words what is trained, `data` has the hash of each source. Paths in the run are written from there,
    so that equal runs have equal lineages wherever they lie.
    """
    stage, own = recipe.stages[index], f"stages.{recipe.stages[index].name}"
    adapted = not isinstance(recipe.trains(index), Full)
    settings = stage.model_copy(update={"adapter": recipe.trains(index)}).model_dump(mode="json", exclude=KEEPING)
    return {
        "name": stage.name,
        "type": stage.type,
        "parents": [_parent(recipe, index, run)],
        "recipe": {
            "model": recipe.model,
            "seed": recipe.seed,
            "dtype": recipe.dtype,
            "chat_template_kwargs": recipe.chat_template_kwargs,
            "stage": _inside(settings, f"{run.resolve()}/"),
        },
        "adapter": {
            "words": trains,
            "base": base(recipe, index) if adapted else None,
            "settings": maker(recipe, index).model_dump(mode="json") if adapted else None,
        },
        "data": {place: digest for place, digest in data.items() if place.startswith(f"{own}.")},
    }


def _parent(recipe: Recipe, index: int, run: Path) -> dict[str, Any]:
    folder = resolve_model(start(recipe, index, run))
    before = recipe.parent(index)
    if before is not None:
        called = recipe.stages[before].name
        return lineage.parent(called, folder, f"models/{called}")
    given = recipe.elsewhere(index) or recipe.model
    if not Path(given).is_dir():
        return lineage.parent(given, folder, None)
    known = lineage.read(folder)
    return lineage.parent(known["name"] if known else folder.name, folder, given)


def _inside(value: Any, run: str) -> Any:
    """Plain values, in which a path within the run is one from there."""
    match value:
        case dict():
            return {key: _inside(inner, run) for key, inner in value.items()}
        case list():
            return [_inside(inner, run) for inner in value]
        case str():
            return value.removeprefix(run)
    return value


def _says(value: Any, text: str) -> bool:
    """Whether the text stands anywhere in plain values."""
    match value:
        case dict():
            return any(_says(inner, text) for inner in value.values())
        case list():
            return any(_says(inner, text) for inner in value)
    return bool(value == text)
