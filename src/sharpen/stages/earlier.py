"""Models of earlier runs that stages start from: found, compared with the recipe's own, and their adapters."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from sharpen.config.adapters import Lora, QLora
from sharpen.errors import ConfigError, ModelError, RunError, SharpenError
from sharpen.models.adapter_files import ADAPTER
from sharpen.models.load import load_tokenizer
from sharpen.models.load import resolve as resolve_model
from sharpen.runs import lineage
from sharpen.runs.store import resume_command

TOP = "top"
"""The folder beside it of the adapter that the stage trained, where that lies on another."""

_PROBE = "It's 3.14 × 10^-5 kg — naïve façade, 数学 и прочее;\n\n\tdef f(x):  return x**2  # ok 🙂"
"""Text on which tokenizers of one vocabulary may still differ."""


def found(path: Path, where: str) -> Path:
    """The folder of a model: `path` itself, or of an earlier run its last model that writes text.

    `where` is the place in the recipe. Raises ConfigError where there is none, RunError for a run that is not finished
    and ModelError for a model that may not be loaded.
    """
    if not path.is_dir():
        raise ConfigError(
            "there is no such run or model to start from",
            path=where,
            value=str(path),
            remedy="Check the path, relative to the recipe's file; a stage of this recipe is named without `/`",
        )
    if (path / "config.json").is_file():
        resolve_model(str(path))
        return path
    if (path / "recipe.yaml").is_file():
        return _last_model(path, where)
    if (path / "adapter_config.json").is_file():
        fact, remedy = "this is an adapter alone", "Name the model's folder that it lies in: RUN/models/STAGE"
    else:
        fact, remedy = "this is neither a run nor a model", "Name a run's directory, or RUN/models/STAGE"
    raise ConfigError(fact, path=where, value=str(path), remedy=remedy)


def _last_model(run: Path, where: str) -> Path:
    try:
        written = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
        names = [str(stage["name"]) for stage in written["stages"]]
        summary = run / "summary.json"
        status = json.loads(summary.read_text("utf-8"))["status"] if summary.is_file() else "under way"
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError) as error:
        raise RunError(
            f"{where}: what the run was cannot be read: {' '.join(str(error).split())}",
            value=str(run),
            remedy="Name a model's folder: RUN/models/STAGE",
        ) from error
    made = [run / "models" / name for name in names if (run / "models" / name / "config.json").is_file()]
    lacking = [name for name in names if run / "models" / name not in made]
    if status != "finished" or lacking:
        why = f"it has no model of {lacking[0]}" if lacking else status
        ready = f", or start from a model it has: {made[-1]}" if made else ""
        raise RunError(
            f"{where}: the run is not finished: {why}",
            value=str(run),
            remedy=f"Finish it: {resume_command(run)}{ready}",
        )
    for folder in reversed(made):
        if _writes_text(folder):
            return folder
    raise ConfigError("the run made no model that writes text", path=where, value=str(run), remedy="Name another")


def _writes_text(folder: Path) -> bool:
    architectures = json.loads((folder / "config.json").read_text("utf-8")).get("architectures") or []
    return any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)


def check_tokenizer(folder: Path, model: str, told: dict[str, Any], where: str) -> None:
    """Raise ModelError unless the model in `folder` reads and writes as the recipe's: evals compare the two.

    `told` is what the recipe tells the chat template.
    """
    other, _ = load_tokenizer(str(folder))
    other.chat_template_kwargs = {**other.chat_template_kwargs, **told}
    if difference := _difference(load_tokenizer(model, chat_template_kwargs=told)[0], other):
        raise ModelError(
            f"{where}: this model's tokenizer is not that of the recipe's model, {model}: {difference}",
            value=str(folder),
            remedy=f"Start from a model made from {model}, or write `model: {folder}`",
        )


def _difference(own: Any, other: Any) -> str:
    """What sets two tokenizers apart, in words; empty where nothing does."""
    ours, theirs = own.get_vocab(), other.get_vocab()
    if len(ours) != len(theirs):
        return f"{len(theirs):,} tokens, not {len(ours):,}"
    if apart := sorted((place, token) for token, place in ours.items() if theirs.get(token) != place):
        place, token = apart[0]
        return f"its token {place} is {other.convert_ids_to_tokens(place)!r}, not {token!r}"
    if own(_PROBE)["input_ids"] != other(_PROBE)["input_ids"]:
        return "it has the same tokens, and cuts text into others of them"
    if own.chat_template != other.chat_template:
        return "its chat template is another"
    if own.chat_template_kwargs != other.chat_template_kwargs:
        said, wanted = (json.dumps(each.chat_template_kwargs, sort_keys=True) for each in (other, own))
        return f"its chat template is told {said}, not {wanted}; chat_template_kwargs of the recipe hold for both"
    return ""


@dataclass(frozen=True)
class Adapter:
    """The adapter of a model of an earlier run."""

    folder: Path
    settings: Lora | QLora
    """With which it was made."""

    base: str
    """What `models.load` takes for the model that it lies on."""


def adapter(model: Path, where: str) -> Adapter:
    """That of the model in a folder, to be continued. Raises ModelError where it has none, or its base is not found."""
    folder = model / ADAPTER
    if not (folder / "adapter_config.json").is_file():
        raise ModelError(
            f"{where}: there is no adapter to continue: all weights of this model were trained",
            value=str(model),
            remedy="Write `adapter: lora` for a new one",
        )
    if (model / TOP).is_dir():
        raise ModelError(
            f"{where}: this adapter was stacked on another, and such a one goes on in its own run only",
            value=str(model / TOP),
            remedy="Write `adapter: lora` for a new one on the merged weights",
        )
    written = json.loads((folder / "adapter_config.json").read_text("utf-8"))
    return Adapter(folder, _settings(model, written), _base(model, str(written["base_model_name_or_path"]), where))


def _base(model: Path, noted: str, where: str) -> str:
    """The model that an adapter notes as its base: in its own run, a folder, or one with a name."""
    run = model.parent.parent
    inside = run / noted
    if noted.startswith("models/"):
        if inside.is_dir():
            return str(inside)
        looked = f"looked for the folder {inside}"
    else:
        try:
            resolve_model(noted)
        except SharpenError as error:
            looked = f"looked for a model of that name: {error.describe()}"
        else:
            return noted
    raise ModelError(
        f"{where}: the base that the adapter was trained on is not found: {looked}",
        value=noted,
        remedy="Put it back, or write `adapter: lora` for a new adapter on the merged weights",
    )


def _settings(model: Path, written: dict[str, Any]) -> Lora | QLora:
    """From the model's lineage; that of a model without one from what PEFT notes."""
    noted = (lineage.read(model) or {}).get("adapter", {}).get("settings")
    if noted:
        return TypeAdapter[Lora | QLora](Lora | QLora).validate_python(noted)
    return Lora(
        rank=written["r"],
        alpha=written["lora_alpha"],
        dropout=written["lora_dropout"],
        dora=written["use_dora"],
        rslora=written["use_rslora"],
        targets=tuple(written["target_modules"]),
    )
