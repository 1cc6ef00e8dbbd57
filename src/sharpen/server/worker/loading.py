"""The model of a worker: a folder or alias, or the adapter of a checkpoint, which is merged into its base."""

from __future__ import annotations

from pathlib import Path

import yaml

from sharpen.models import adapters
from sharpen.models.adapter_files import attach_saved, base_of
from sharpen.models.load import Loaded, compute_dtype, load


def loaded_of(name: str) -> Loaded:
    """Ready to answer. Raises ModelError."""
    folder = Path(name).expanduser()
    dtype = compute_dtype("auto")
    if not (folder / "adapter_config.json").is_file() or (folder / "config.json").is_file():
        return load(name, dtype)
    run = _run(folder)
    base = base_of(folder)
    if run and not Path(base).is_absolute() and (run / base / "config.json").is_file():
        base = str(run / base)
    found = load(base, dtype, _told(run))
    attach_saved(found.model, folder)
    adapters.merge(found.model)
    return found


def _run(folder: Path) -> Path | None:
    """The run that a checkpoint stands in."""
    return next((parent for parent in folder.resolve().parents if (parent / "recipe.yaml").is_file()), None)


def _told(run: Path | None) -> dict[str, object]:
    """What the run's recipe tells the chat template."""
    if run is None:
        return {}
    recipe = yaml.safe_load((run / "recipe.yaml").read_text("utf-8")) or {}
    return dict(recipe.get("chat_template_kwargs") or {})
