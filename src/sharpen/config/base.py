"""What all configs share: frozen, no unknown keys, docstrings as descriptions."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """A frozen pydantic model that refuses unknown keys."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
        serialize_by_alias=True,
    )


class Buildable(Config):
    """A config that names the code it configures; `runtime` is imported only when built."""

    runtime: ClassVar[str]

    def build(self) -> Any:
        """The object this config describes: `runtime`, called with the config."""
        from sharpen.plugins import load

        return load(self.runtime)(self)
