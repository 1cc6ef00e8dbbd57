"""What all configs share: frozen, no unknown keys, docstrings as descriptions."""

from __future__ import annotations

from collections.abc import Callable
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


def replaced(value: Any, change: Callable[[Config], Config]) -> Any:
    """The config in which `change` has been made to every config within; what it changes is not looked into."""
    match value:
        case Config():
            if (changed := change(value)) is not value:
                return changed
            inside = {name: found for name, inner in value if (found := replaced(inner, change)) != inner}
            return value.model_copy(update=inside)
        case tuple():
            return tuple(replaced(inner, change) for inner in value)
        case dict():
            return {name: replaced(inner, change) for name, inner in value.items()}
    return value


class Buildable(Config):
    """A config that names the code it configures; `runtime` is imported only when built."""

    runtime: ClassVar[str]

    def build(self) -> Any:
        """The object this config describes: `runtime`, called with the config."""
        from sharpen.plugins import load

        return load(self.runtime)(self)
