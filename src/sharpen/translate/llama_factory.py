"""LLaMA-Factory's YAML, as `llamafactory-cli train` reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sharpen.errors import ConfigError
from sharpen.translate import common, preferences
from sharpen.translate.keys import Keys, Translated

DEFAULTS: dict[str, Any] = {
    **common.HF_DEFAULTS,
    "stage": "sft",
    "finetuning_type": "lora",
    "lora_rank": 8,
    "lora_target": "all",
    "cutoff_len": 2048,
    "dataset_dir": "data",
    "pref_loss": "sigmoid",
    "pref_beta": 0.1,
    "dpo_label_smoothing": 0.0,
    "simpo_gamma": 0.5,
    "kto_chosen_weight": 1.0,
    "kto_rejected_weight": 1.0,
}
"""Of LLaMA-Factory's arguments; alpha is twice the rank."""

COLUMNS = {
    "prompt": "prompt",
    "response": "completion",
    "messages": "messages",
    "system": "system",
    "chosen": "chosen",
    "rejected": "rejected",
    "kto_tag": "label",
}
"""The columns of dataset_info.json by ours."""


def translate(values: dict[str, Any], folder: Path) -> Translated:
    """The recipe of a configuration that stands in `folder`. Raises ConfigError for a stage that has no counterpart."""
    keys = Keys(values, DEFAULTS)
    stage = str(keys.take("stage"))
    if stage not in TYPES:
        raise ConfigError("a stage that sharpen does not have", path="stage", value=stage, remedy=_WORDS)
    kind = str(keys.take("finetuning_type"))
    if kind not in ("lora", "full"):
        keys.leave("finetuning_type", "is none of ours (lora, full); the recipe trains all weights")
    size = common.batch(keys, "per_device_train_batch_size")
    keys.only("max_steps", (-1, 0), "is a number of epochs here: set `epochs`")
    keys.only("train_on_prompt", False, "only the assistant's turns are ever trained here")
    keys.only("mask_history", False, "weight: 0 on a turn does this here")
    keys.only("adapter_name_or_path", (None,), "an adapter is merged into its base first, and `model` names the result")
    training, share = _data(keys, folder, "dataset"), keys.take("val_size")
    validation = _data(keys, folder, "eval_dataset") if keys.given("eval_dataset") else None
    if share and validation is None:
        if share < 1 and isinstance(training, dict):
            validation = {**training, "split": {"test": share, "part": "test"}}
            training = {**training, "split": {"test": share}}
        else:
            keys.leave("val_size", "is a share of one source's rows here: give each source a `split`")
    recipe = {
        "model": keys.take("model_name_or_path"),
        "seed": keys.take("seed"),
        "adapter": common.adapter(keys, kind == "lora"),
        "report_to": common.trackers(keys),
        "stages": [
            common.without_none(
                {
                    "type": TYPES[stage],
                    "loss": preferences.of_llama_factory(keys, stage) if TYPES[stage] == "dpo" else None,
                    "data": training,
                    "validation": validation,
                    "epochs": keys.take("num_train_epochs"),
                    "batch_size": size,
                    **common.cut(keys, "cutoff_len"),
                    **common.saving(keys),
                    "optim": common.optim(keys, None),
                }
            )
        ],
    }
    keys.taken.add("dataset_dir")
    common.quantised(keys)
    needless = keys.close(common.NEEDLESS)
    return Translated("LLaMA-Factory", common.without_none(recipe), tuple(keys.left), tuple(keys.check), needless)


TYPES = {"sft": "sft", "pt": "sft", "dpo": "dpo", "kto": "dpo", "rm": "reward_model"}
"""Our stages by theirs."""

_WORDS = "Its PPO has a value model, which the GRPO family of rft does without: begin with docs/algorithms.md"


def _data(keys: Keys, folder: Path, name: str) -> dict[str, Any] | list[dict[str, Any]]:
    """The sources that a comma-separated list of datasets names, looked up in dataset_info.json where it is found."""
    value = keys.take(name)
    if value is None:
        raise ConfigError("names no rows to train on", path=name, remedy="Name a dataset")
    names = [part.strip() for part in value.split(",")] if isinstance(value, str) else list(value)
    home = Path(keys.take("dataset_dir"))
    known = _catalogue(folder / home)
    limit = keys.take("max_samples")
    sources = []
    for entry in names:
        source = _source(keys, entry, known.get(entry), home)
        sources.append({**source, "limit": limit} if limit else source)
    return sources[0] if len(sources) == 1 else sources


def _catalogue(home: Path) -> dict[str, Any]:
    path = home / "dataset_info.json"
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ConfigError(f"not JSON: {error}", path=str(path), remedy="Mend it") from error
    return found if isinstance(found, dict) else {}


def _source(keys: Keys, name: str, entry: Any, home: Path) -> dict[str, Any]:
    if not isinstance(entry, dict):
        keys.check.append(f"the data set {name!r} is not in {home / 'dataset_info.json'}: set its path")
        return {"path": str(home / f"{name}.json")}
    if "hf_hub_url" in entry:
        subset, split = entry.get("subset"), entry.get("split")
        path = f"{entry['hf_hub_url']}{f':{subset}' if subset else ''}{f'/{split}' if split else ''}"
    else:
        path = str(home / str(entry.get("file_name") or f"{name}.json"))
    theirs = entry.get("columns") or {}
    columns = {COLUMNS[name]: column for name, column in theirs.items() if COLUMNS.get(name, column) != column}
    if theirs.get("query"):
        keys.check.append(f"the column {theirs['query']!r} of {name!r} is added to the prompt there")
    if entry.get("ranking") and entry.get("formatting") == "sharegpt":
        keys.check.append(f"{name!r} has ShareGPT's pairs: `sharpen data check --for dpo` says whether they are read")
    known = columns in ({}, {"messages": "conversations"}, {"prompt": "instruction", "completion": "output"})
    return {"path": path} if known else {"path": path, "columns": columns}
