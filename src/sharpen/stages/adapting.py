"""What a stage trains: all weights, a new adapter, one stacked on another, or that of the stage before.

Between stages the model is plain: adapters are merged when their stage is published, and stand beside the merged
model in `models/STAGE/adapter`. A stage that continues one, or stacks one on it, loads the adapters' own base and puts
them back.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.config.adapters import Continue, Full, Lora, QLora
from sharpen.config.recipe import Recipe
from sharpen.data.order import generator
from sharpen.errors import ConfigError, ModelError
from sharpen.models import adapters, scorer
from sharpen.models.adapter_files import ADAPTER, attach_below, attach_saved, base_of, save_adapter, save_stack
from sharpen.models.load import Loaded, load
from sharpen.models.quantized import FourBits, functional
from sharpen.models.quiet import quiet
from sharpen.stages import starts
from sharpen.stages.earlier import TOP

if TYPE_CHECKING:
    from peft import LoraConfig


def check_installed(recipe: Recipe) -> None:
    """Raise ConfigError where a stage wants weights in 4 bits, and bitsandbytes is not installed."""
    if any(isinstance(recipe.trains(index), QLora) for index in range(len(recipe.stages))):
        functional()


def prepare(recipe: Recipe, index: int, loaded: Loaded, run: Path) -> str:
    """Make ready what the stage at `index` trains, on the plain model of the stage before; returns it in words.

    Raises ConfigError for layers that the model does not have, and where bitsandbytes is needed and not installed;
    ModelError for an adapter that was made for another base.
    """
    trained = recipe.trains(index)
    if not isinstance(trained, Full):
        _put_adapters(trained, recipe, index, loaded, run)
    return finished(recipe, index, loaded)


def finished(recipe: Recipe, index: int, loaded: Loaded) -> str:
    """Make a model with the stage's adapters what the stage trains: itself, or a reward model; returns it in words."""
    if not recipe.stages[index].makes_policy:
        scorer.become(loaded, _seed(recipe, index, scorer.HEAD))
    return words(recipe, index, loaded)


def _put_adapters(trained: Lora | QLora | Continue, recipe: Recipe, index: int, loaded: Loaded, run: Path) -> None:
    made, four_bits = recipe.made(index), _four_bits(recipe, index)
    again = isinstance(trained, Continue) or trained.stack
    if again:
        loaded.model = None  # two models at once may not fit
        loaded.model = load(_base(recipe, index, run), loaded.dtype).model
    settings = None if isinstance(trained, Continue) else _settings(trained, recipe, index, loaded)
    if starts.maker(recipe, made).stack:
        attach_below(loaded.model, _checked(_start(recipe, made, run) / ADAPTER, recipe, index))
    if settings is None:
        own = own_adapter(_start(recipe, index, run))
        attach_saved(loaded.model, own if recipe.elsewhere(index) else _checked(own, recipe, index), four_bits)
        loaded.model.peft_config[adapters.NAME].base_model_name_or_path = _base(recipe, index)  # as seen from this run
    else:
        adapters.attach(loaded.model, settings, _seed(recipe, index, ADAPTER), four_bits)


def words(recipe: Recipe, index: int, loaded: Loaded) -> str:
    """What the stage trains: `LoRA rank 16 on all linear layers: 4.9 M of 139 M parameters (3.5 %)`."""
    trained = recipe.trains(index)
    count, whole = adapters.trainable(loaded.model)
    scores = "" if recipe.stages[index].makes_policy else ", and a new head that gives scores"
    if isinstance(trained, Full):
        return f"all {_count(whole)} parameters{scores}"
    made = starts.maker(recipe, index)
    kind = ("rs" if made.rslora else "") + ("DoRA" if made.dora else "LoRA")
    but = " (not the experts)" if adapters.has_experts(loaded.model) else ""
    places = {"all-linear": f"all linear layers{but}", "attention": "attention"}
    where = ", ".join(made.targets) if isinstance(made.targets, tuple) else places[made.targets]
    begun = f", continued from {starts.name(recipe, index)}" if isinstance(trained, Continue) else ""
    on = f", stacked on that of {_start(recipe, recipe.made(index)).name}" if made.stack else ""
    lowest = starts.maker(recipe, recipe.bottom(index))
    base = f", over weights in 4 bits ({lowest.how()})" if isinstance(lowest, QLora) else ""
    return (
        f"{kind} rank {made.rank} on {where}{base}{on}{begun}{scores}: "
        f"{_count(count)} of {_count(whole)} parameters ({100 * count / whole:.2g} %)"
    )


def save_adapters(model: Any, folder: Path) -> None:
    """Write what lies on the base beside a model, for PEFT, and alone what was trained, where that is not all of it."""
    if adapters.stacked(model):
        save_stack(model, folder / ADAPTER)
        save_adapter(model, folder / TOP)
    elif adapters.attached(model):
        save_adapter(model, folder / ADAPTER)
    for part in (folder / ADAPTER, folder / TOP):
        if part.exists() and scorer.is_scorer(model):
            scorer.add_head(model, part)


def own_adapter(folder: Path) -> Path:
    """Where `save_adapters` put the adapter that was trained."""
    return folder / TOP if (folder / TOP).exists() else folder / ADAPTER


def _settings(trained: Lora | QLora, recipe: Recipe, index: int, loaded: Loaded) -> LoraConfig:
    with quiet():
        from peft import LoraConfig  # takes seconds to import
    try:
        targets = adapters.target_names(loaded.model, trained.targets)
    except ModelError as error:
        where = f"stages.{recipe.stages[index].name}.adapter.targets"
        raise ConfigError(error.fact, path=where, value=error.value, remedy=error.remedy) from error
    return LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=_base(recipe, index),
        r=trained.rank,
        lora_alpha=trained.alpha,
        lora_dropout=trained.dropout,
        use_dora=trained.dora,
        use_rslora=trained.rslora,
        target_modules=targets,
    )


def _four_bits(recipe: Recipe, index: int) -> FourBits | None:
    """How the base under the stage's adapters is held, where it is not dense."""
    lowest = starts.maker(recipe, recipe.bottom(index))
    return FourBits(lowest.quant_type, lowest.double_quant) if isinstance(lowest, QLora) else None


def _seed(recipe: Recipe, index: int, what: str) -> int:
    return int(generator((recipe.seed, recipe.stages[index].name, what)).integers(2**63))


def _start(recipe: Recipe, index: int, run: Path = Path()) -> Path:
    """The folder of the model that a stage starts from, with that model's adapters beside it."""
    return Path(starts.start(recipe, index, run))


def _base(recipe: Recipe, index: int, run: Path = Path()) -> str:
    """The model under the stage's adapters. Without `run` as adapters note it: in the run, from where that lies."""
    return starts.base(recipe, index, run)


def _checked(folder: Path, recipe: Recipe, index: int) -> Path:
    """The folder of an adapter, if it was made for the base that it is put into."""
    if (noted := base_of(folder)) != (base := _base(recipe, index)):
        raise ModelError(
            f"the adapter was made for another base, {noted}",
            value=str(folder),
            remedy=f"Put back the one that was trained on {base}, or start a new run",
        )
    return folder


def _count(number: int) -> str:
    """`4.9 M`."""
    for size, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return str(number)
