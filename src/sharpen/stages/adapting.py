"""What a stage trains: all weights, a new adapter, or that of the stage before.

Between stages the model is plain: an adapter is merged when its stage is published, and stands beside the
merged model in `models/STAGE/adapter`. A stage that continues one loads the adapter's own base and puts it back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.config.adapters import Continue, Full, Lora
from sharpen.config.recipe import Recipe
from sharpen.data.order import generator
from sharpen.errors import ConfigError, ModelError
from sharpen.models import adapters
from sharpen.models.load import Loaded, load
from sharpen.models.quiet import quiet

if TYPE_CHECKING:
    from peft import LoraConfig

ADAPTER = "adapter"
"""The folder of the adapter, inside its model's."""


def prepare(recipe: Recipe, index: int, loaded: Loaded, run: Path) -> str:
    """Make ready what the stage at `index` trains, on the plain model of the stage before; returns it in words."""
    match trained := recipe.trains(index):
        case Lora():
            adapters.attach(loaded.model, _settings(trained, recipe, index, loaded), _seed(recipe, index))
        case Continue():
            loaded.model = None  # two models at once may not fit
            loaded.model = load(_base(recipe, index, run), loaded.dtype).model
            adapters.attach_saved(loaded.model, run / "models" / recipe.stages[index - 1].name / ADAPTER)
    return words(recipe, index, loaded)


def words(recipe: Recipe, index: int, loaded: Loaded) -> str:
    """What the stage trains: `LoRA rank 16 on all linear layers: 4.9 M of 139 M parameters (3.5 %)`."""
    trained = recipe.trains(index)
    count, whole = adapters.trainable(loaded.model)
    if isinstance(trained, Full):
        return f"all {_count(whole)} parameters"
    made = recipe.trains(_origin(recipe, index))
    assert isinstance(made, Lora)
    kind = ("rs" if made.rslora else "") + ("DoRA" if made.dora else "LoRA")
    but = " (not the experts)" if adapters.has_experts(loaded.model) else ""
    places = {"all-linear": f"all linear layers{but}", "attention": "attention"}
    where = ", ".join(made.targets) if isinstance(made.targets, tuple) else places[made.targets]
    begun = f", continued from {recipe.stages[index - 1].name}" if isinstance(trained, Continue) else ""
    return (
        f"{kind} rank {made.rank} on {where}{begun}: "
        f"{_count(count)} of {_count(whole)} parameters ({100 * count / whole:.2g} %)"
    )


def _settings(trained: Lora, recipe: Recipe, index: int, loaded: Loaded) -> LoraConfig:
    with quiet():
        from peft import LoraConfig  # takes seconds to import
    try:
        targets = adapters.target_names(loaded.model, trained.targets)
    except ModelError as error:
        where = f"stages.{recipe.stages[index].name}.adapter.targets"
        raise ConfigError(error.fact, path=where, value=error.value, remedy=error.remedy) from error
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=f"models/{recipe.stages[index - 1].name}" if index else recipe.model,
        r=trained.rank,
        lora_alpha=trained.alpha,
        lora_dropout=trained.dropout,
        use_dora=trained.dora,
        use_rslora=trained.rslora,
        target_modules=targets,
    )


def _seed(recipe: Recipe, index: int) -> int:
    return int(generator((recipe.seed, recipe.stages[index].name, ADAPTER)).integers(2**63))


def _origin(recipe: Recipe, index: int) -> int:
    """The stage that made the adapter which the stage at `index` trains."""
    return _origin(recipe, index - 1) if isinstance(recipe.trains(index), Continue) else index


def _base(recipe: Recipe, index: int, run: Path) -> str:
    """The model that this adapter was put into."""
    origin = _origin(recipe, index)
    return str(run / "models" / recipe.stages[origin - 1].name) if origin else recipe.model


def _count(number: int) -> str:
    """`4.9 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
