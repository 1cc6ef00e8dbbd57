"""What a row says, whatever its shape."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from sharpen.data.read import Record, Where
from sharpen.types import Message, Tool

Purpose = Literal["sft", "dpo", "rft"]
"""What rows are read for: to imitate, to prefer, or to be graded."""


@dataclass(frozen=True, slots=True)
class Parts:
    """A conversation, and what to make of it; every shape is converted to this."""

    messages: tuple[Message, ...] = ()
    first: int = 0
    """Index of the first message that may be trained."""
    tools: tuple[Tool, ...] = ()
    text: str = ""
    """Plain text to imitate instead of a conversation."""
    chosen: tuple[Message, ...] = ()
    rejected: tuple[Message, ...] = ()
    desirable: bool | None = None
    field: str = "messages"
    """Where the last message came from, for errors."""
    asked: str = "prompt"
    """Where the messages before `first` came from, or those before `chosen`."""


Converter = Callable[[Record, Where, bool], Parts]
"""Makes a row's parts; the last argument says whether content in parts (images) may stay as it is."""
