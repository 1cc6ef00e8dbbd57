"""lineage.json in a model's folder: what it was made from, with what, and what came of it, back to the first model."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sharpen.errors import RunError
from sharpen.runs import manifest

NAME = "lineage.json"

Lineage = dict[str, Any]
"""As the file has it; the keys are those of `SCHEMA`."""

_TEXT, _MAP, _MAYBE = {"type": "string"}, {"type": "object"}, {"type": ["string", "null"]}

SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "additionalProperties": False,
    "required": ["schema_version", "name", "type", "parents", "recipe", "adapter", "data", "graders", "metrics"],
    "properties": {
        "schema_version": {"const": 1},
        "name": {**_TEXT, "description": "The stage that made the model."},
        "type": {**_TEXT, "description": "The stage's type, such as sft."},
        "parents": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["name", "path", "sha256", "lineage"],
                "properties": {
                    "name": _TEXT,
                    "path": {**_MAYBE, "description": "Its folder: in the same run from there, else absolute."},
                    "sha256": {**_TEXT, "description": "Of its weights, as `weights` computes it."},
                    "lineage": {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
                },
            },
        },
        "recipe": {**_MAP, "description": "The model, seed, dtype and chat_template_kwargs of the recipe; the stage."},
        "adapter": {
            "type": "object",
            "required": ["words", "base", "settings"],
            "properties": {
                "words": {**_TEXT, "description": "What was trained."},
                "base": {**_MAYBE, "description": "The model under the adapter; null: all weights were trained."},
                "settings": {"type": ["object", "null"], "description": "With which the adapter was made."},
            },
        },
        "data": {"type": "object", "additionalProperties": _TEXT, "description": "Hashes of the stage's sources."},
        "graders": {"type": "object", "additionalProperties": _TEXT, "description": "Versions, by their place."},
        "metrics": {**_MAP, "description": "Of the step whose weights these are, and all tokens of the stage."},
        "versions": {"type": "object", "additionalProperties": _TEXT},
    },
}


def write(folder: Path, lineage: Mapping[str, Any]) -> None:
    """Put it into a model's folder."""
    text = json.dumps({"schema_version": 1, **lineage}, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / NAME).write_text(text + "\n", "utf-8", errors="replace")


def read(folder: Path) -> Lineage | None:
    """That of the model in a folder; None where it has none. Raises RunError where it cannot be read."""
    try:
        found = json.loads((folder / NAME).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RunError(
            f"the model's lineage cannot be read: {' '.join(str(error).split())}",
            value=str(folder / NAME),
            remedy="Restore the file",
        ) from error
    if not isinstance(found, dict) or not isinstance(found.get("parents"), list):
        raise RunError("this is no lineage of a model", value=str(folder / NAME), remedy="Restore the file")
    return found


def parent(name: str, folder: Path, path: str | None) -> dict[str, Any]:
    """The model in `folder` as its child's lineage has it, under a name and a path of the child's choosing."""
    return {"name": name, "path": path, "sha256": weights(folder), "lineage": read(folder)}


def chain(lineage: Lineage) -> Iterator[tuple[dict[str, Any], Lineage | None]]:
    """The models from the first to the one whose lineage this is: each as a parent (name, path, sha256), and its own.

    The last has no path and no sha256: nothing but its folder says them.
    """
    for before in lineage["parents"][:1]:
        if before["lineage"] is None:
            yield before, None
        else:
            *ancestors, (_, own) = chain(before["lineage"])
            yield from ancestors
            yield before, own
    yield {"name": lineage["name"], "path": None, "sha256": None}, lineage


def weights(folder: Path, *, checked: bool = True) -> str:
    """The digest of a model's weights: what `sha256sum model.safetensors` says, and where there are several files the
    SHA-256 of what `sha256sum *.safetensors` says.

    A manifest that has it is compared with the files, or believed where they are not to be `checked`; the hub's cache,
    which names files by it, is believed. Raises CheckpointError.
    """
    files = {path.name: path for path in sorted(folder.glob("*.safetensors"))}
    noted: Mapping[str, str] = {}
    if (folder / manifest.NAME).is_file():
        noted = manifest.verify(folder)["files"] if checked else manifest.noted(folder)
    digests = {name: noted.get(name) or _digest(path) for name, path in files.items()}
    if len(digests) == 1:
        return str(*digests.values())
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()


def contents(folder: Path) -> str:
    """The digest of all files of a model's folder. Raises CheckpointError where they do not match their manifest."""
    if (folder / manifest.NAME).is_file():
        files = manifest.verify(folder)["files"]
    else:
        files = {path.name: _digest(path) for path in sorted(folder.iterdir()) if path.is_file()}
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _digest(path: Path) -> str:
    blob = path.resolve()
    if blob.parent.name == "blobs" and re.fullmatch("[0-9a-f]{64}", blob.name):
        return blob.name
    state = blob.stat()
    return _hashed(blob, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=64)
def _hashed(path: Path, changed: int, size: int) -> str:
    return manifest.digest(path)
