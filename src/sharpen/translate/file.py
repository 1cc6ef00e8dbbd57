"""From another trainer's file to a recipe: whose it is, and what becomes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from sharpen.config.load import as_yaml, parse, read_mapping
from sharpen.errors import ConfigError
from sharpen.translate import axolotl, llama_factory, trl
from sharpen.translate.keys import Translated

Trainer = Literal["trl", "llama-factory", "axolotl"]
TRAINERS: tuple[str, ...] = get_args(Trainer)

_MARKS: dict[Trainer, set[str]] = {
    "axolotl": {"base_model", "micro_batch_size", "sequence_len", "datasets", "val_set_size", "num_epochs"},
    "llama-factory": {"finetuning_type", "cutoff_len", "dataset", "stage", "template", "lora_target", "lora_rank"},
    "trl": set(
        """num_generations max_completion_length dataset_name reward_funcs max_length loss_type use_peft epsilon
        assistant_only_loss completion_only_loss per_device_train_batch_size output_dir""".split()
    ),
}
"""Keys that tell whose a file is; the most of them win."""


def translated(path: Path, trainer: Trainer | None = None) -> Translated:
    """What a file of TRL, LLaMA-Factory or Axolotl, YAML or JSON, becomes here: a recipe that loads.

    Raises ConfigError where the file cannot be read, is nobody's, or asks for training that has no counterpart.
    """
    values = read_mapping(path, "configuration", "Name a YAML or JSON file")
    whose = trainer or _whose(values, path)
    try:
        match whose:
            case "trl":
                found = trl.translate(values)
            case "llama-factory":
                found = llama_factory.translate(values, path.parent)
            case "axolotl":
                found = axolotl.translate(values)
    except (TypeError, ValueError, AttributeError) as error:  # a value of another kind than that trainer takes
        raise ConfigError(
            f"{path}: a value is not of the kind that {whose} takes: {error}", remedy="Mend it there"
        ) from error
    parse(found.recipe)
    return found


def as_text(found: Translated, path: Path) -> str:
    """The recipe as YAML; at its head, as remarks, what it does not say."""
    head = [f"# Imported from {found.source}'s {path.name} by `sharpen import`."]
    for title, lines in (("Check", found.check), ("Not carried over", [str(entry) for entry in found.left])):
        if lines:
            head += ["#", f"# {title}:", *(f"#   {' '.join(line.split())}" for line in lines)]
    return "\n".join([*head, "", as_yaml(found.recipe)])


def _whose(values: dict[str, Any], path: Path) -> Trainer:
    counts = {trainer: len(marks & set(values)) for trainer, marks in _MARKS.items()}
    best = max(counts.values())
    winners = [trainer for trainer, count in counts.items() if count == best]
    if best == 0 or len(winners) > 1:
        raise ConfigError(
            f"{path}: whose configuration this is cannot be told from its keys",
            value=sorted(values)[:6],
            remedy=f"Say it with --from {', '.join(TRAINERS)}",
        )
    return winners[0]
