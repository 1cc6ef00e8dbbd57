"""Axolotl's YAML, as `axolotl train` reads it."""

from __future__ import annotations

from typing import Any

from sharpen.errors import ConfigError
from sharpen.translate import common, preferences
from sharpen.translate.keys import Keys, Translated

DEFAULTS: dict[str, Any] = {
    **common.HF_DEFAULTS,
    "lr_scheduler": "cosine",
    "num_epochs": 1.0,
    "micro_batch_size": 1,
    "sequence_len": 512,
    "lora_dropout": 0.0,
}
for _name in ("lr_scheduler_type", "optim"):
    DEFAULTS.pop(_name)

MARKS = {
    "type",
    "conversation",
    "split",
    "shards",
    "chat_template",
    "ds_type",
    "data_files",
    "revision",
    "name",
    "path",
}
"""Keys of a data set that say how its rows are read: here they are recognised, or say where they lie."""


def translate(values: dict[str, Any]) -> Translated:
    """The recipe of an Axolotl configuration. Raises ConfigError for training that has no counterpart."""
    keys = Keys(values, DEFAULTS)
    method = keys.take("rl")
    loss = preferences.of_axolotl(keys, str(method)) if method is not None else None
    rewards = loss is None and bool(keys.take("reward_model"))
    kind = keys.take("adapter")
    if kind not in (None, "lora", "qlora"):
        keys.leave("adapter", "is none of ours (lora); the recipe trains all weights")
    if kind == "qlora" and not keys.given("load_in_4bit"):
        keys.check.append("Axolotl refuses `adapter: qlora` without `load_in_4bit`; the recipe has LoRA")
    size = common.batch(keys, "micro_batch_size")
    keys.only("max_steps", (-1, 0), "is a number of epochs here: set `epochs`")
    keys.only("train_on_inputs", False, "only the assistant's turns are ever trained here")
    for name in ("evals_per_epoch", "saves_per_epoch"):
        keys.leave(name, "is a number of steps here (eval_every, save_every)")
    training, share = _data(keys), keys.take("val_set_size")
    validation = None
    if share and 0 < share < 1 and isinstance(training, dict):
        validation = {**training, "split": {"test": share, "part": "test"}}
        training = {**training, "split": {"test": share}}
    elif share:
        keys.leave("val_set_size", "is a share of one source's rows here: give each source a `split`")
    if keys.given("wandb_project"):
        keys.check.append("WANDB_PROJECT names the project; the recipe has `report_to: [wandb]`")
    patience = keys.take("early_stopping_patience")
    recipe = {
        "model": keys.take("base_model"),
        "seed": keys.take("seed"),
        "adapter": preferences.without_dropout(common.adapter(keys, kind in ("lora", "qlora")), bool(loss or rewards)),
        "report_to": ["wandb"] if keys.given("wandb_project") else [],
        "stages": [
            common.without_none(
                {
                    "type": "dpo" if loss else "reward_model" if rewards else "sft",
                    "loss": loss,
                    "data": training,
                    "validation": validation,
                    "epochs": keys.take("num_epochs"),
                    "batch_size": size,
                    **common.cut(keys, "sequence_len"),
                    **common.saving(keys),
                    "early_stopping": {"patience": patience} if patience and validation else None,
                    "optim": common.optim(keys, None),
                }
            )
        ],
    }
    keys.taken.add("gradient_accumulation_steps")
    common.quantised(keys)
    needless = keys.close(common.NEEDLESS)
    return Translated("Axolotl", common.without_none(recipe), tuple(keys.left), tuple(keys.check), needless)


def _data(keys: Keys) -> dict[str, Any] | list[dict[str, Any]]:
    entries = keys.take("datasets")
    if not isinstance(entries, list) or not entries:
        raise ConfigError("names no rows to train on", path="datasets", value=entries, remedy="Name a data set")
    sources = [_source(keys, entry, f"datasets.{number}.") for number, entry in enumerate(entries)]
    return sources[0] if len(sources) == 1 else sources


def _source(keys: Keys, entry: Any, place: str) -> dict[str, Any]:
    if not isinstance(entry, dict) or "path" not in entry:
        raise ConfigError("names no path", path=place.rstrip("."), value=entry, remedy="Give it one")
    files = entry.get("data_files")
    if isinstance(files, list) and len(files) == 1:
        files = files[0]
    path = files if isinstance(files, str) else str(entry["path"])
    if entry.get("revision"):
        path += f"@{entry['revision']}"
    if entry.get("name"):
        path += f":{entry['name']}"
    if entry.get("split") not in (None, "train"):
        path += f"/{entry['split']}"
    inner = Keys(entry, prefix=place, taken=set(MARKS), left=keys.left)
    messages = inner.take("field_messages")
    for name in ("message_property_mappings", "roles", "roles_to_train", "train_on_eos", "message_field_role"):
        inner.leave(name, "rows are recognised by their keys: `sharpen data check` says whether they are")
    inner.close(frozenset())
    known = messages in (None, "messages", "conversations")
    return {"path": path} if known else {"path": path, "columns": {"messages": messages}}
