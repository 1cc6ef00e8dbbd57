"""The model to export: its folder, what it is, where it came from, and what its adapter lies on."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.errors import ModelError
from sharpen.models import hub
from sharpen.models.adapter_files import ADAPTER
from sharpen.models.bases import BASES, Base
from sharpen.models.folder import resolve, trusted
from sharpen.models.quantized import FourBits
from sharpen.models.registry import ALIASES, cached
from sharpen.runs import lineage
from sharpen.runs.lineage import Lineage


@dataclass(frozen=True, slots=True)
class Source:
    """A model that is here."""

    folder: Path
    name: str
    """What its export is called: RUN-STAGE, or the model's own name."""

    base: str
    """The model that all began with, as a recipe names it; its own name where it was not trained here."""

    run: Path | None
    """The run it is a stage's model of."""

    lineage: Lineage | None
    system: str
    """The system message that all its run's held-out problems began with."""

    @property
    def config(self) -> dict[str, Any]:
        """Its config.json."""
        found: dict[str, Any] = json.loads((self.folder / "config.json").read_text("utf-8"))
        return found

    @property
    def scores(self) -> bool:
        """Whether it is a reward model, which writes no text."""
        return any(name.endswith("ForSequenceClassification") for name in self.config.get("architectures") or ())

    @property
    def known(self) -> Base | None:
        """The well-known model that all began with."""
        name = hub.parse(self.base)
        return next((base for base in BASES.values() if name and base.hub == name.repo), None)

    @property
    def began(self) -> str:
        """What all began with, as a stranger may know it: a folder on this machine is its last part."""
        if self.known:
            return self.known.hub
        return Path(self.base).name if Path(self.base).expanduser().is_dir() else self.base

    @property
    def trained(self) -> bool:
        """Whether it was trained here."""
        return self.run is not None or self.lineage is not None

    def weigh(self) -> int:
        """Bytes of its weights."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))


def find(name: str, report: Callable[[str], None], system: str = "") -> Source:
    """The model of that alias, folder or hub id. Raises ModelError where there is none that may be loaded."""
    folder = trusted(name, report)
    path = folder.resolve()
    whole = path.parent.parent
    run = whole if path.parent.name == "models" and (whole / "recipe.yaml").is_file() else None
    known = lineage.read(folder)
    given = str(known["recipe"]["model"]) if known and "model" in known.get("recipe", {}) else _model_of(run) or name
    called = f"{run.name}-{path.name}" if run else path.name if Path(name).expanduser().is_dir() else _short(name)
    source = Source(folder, called, given, run, known, system)
    if not source.scores:
        resolve(name, report)  # says why, where it is no language model
    return source


def base_of_adapter(source: Source, report: Callable[[str], None]) -> tuple[Path, str, str | None]:
    """What the adapter was trained on: its folder, and the name and the revision under which PEFT finds it again.

    Raises ModelError where the model has no adapter, and where the base cannot be found.
    """
    path = source.folder / ADAPTER / "adapter_config.json"
    if not path.is_file():
        raise ModelError(
            "the model has no adapter: all its weights were trained, or its folder was copied without",
            value=str(source.folder),
            remedy="Export with --to hf; for an adapter, train with `adapter: lora`",
        )
    noted = str(json.loads(path.read_text("utf-8"))["base_model_name_or_path"])
    inside = noted.startswith("models/")
    name = str(source.folder.resolve().parent.parent / noted) if inside else noted
    try:
        folder = resolve(name, report)
    except ModelError as error:
        raise ModelError(
            f"the base that the adapter was trained on cannot be found: {error.fact}",
            value=name,
            remedy="Put it back in that place; an export of the whole model (--to hf) does not need it",
        ) from error
    if name in ALIASES or Path(name).expanduser().is_dir():
        return folder, str(folder.resolve()), None
    found = hub.parse(name)
    assert found, name  # `resolve` has found it, and it is neither an alias of ours nor a folder
    return folder, found.repo, found.revision or folder.name


def four_bits(known: Lineage | None) -> FourBits | None:
    """How the base under the model's adapter was held in training, where that was in 4 bits (QLoRA)."""
    while known:
        settings = known.get("adapter", {}).get("settings") or {}
        if settings.get("type") == "qlora":
            return FourBits(settings["quant_type"], settings["double_quant"])
        if not settings.get("stack"):
            return None
        known = known["parents"][0]["lineage"] if known["parents"] else None
    return None


def kept_here(folder: Path) -> bool:
    """Whether the folder is one of ours for an alias: its weights are not the hub's, bit for bit."""
    return any(folder.resolve() == cached(alias).resolve() for alias in ALIASES)


def _model_of(run: Path | None) -> str:
    """The model of a run's recipe; empty where there is no run, or the recipe does not say."""
    import yaml

    if run is None:
        return ""
    found = yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))
    return str(found.get("model", "")) if isinstance(found, dict) else ""


def _short(name: str) -> str:
    return name.partition("@")[0].rpartition("/")[2]
