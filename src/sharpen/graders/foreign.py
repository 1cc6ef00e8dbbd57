"""What other libraries' reward functions are handed, and the numbers they hand back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.types import Message, Sample


def said(sample: Sample) -> list[Message]:
    """The messages after the prompt: the completion, or in an environment all turns."""
    return [dict(message) for message in sample.messages] or [sample.message()]


def whole(sample: Sample) -> str:
    """The completion with its thoughts in `<think>` marks, as libraries have it that do not part the two."""
    if not sample.reasoning:
        return sample.text
    return f"<think>\n{sample.reasoning}" + (f"\n</think>\n\n{sample.text}" if sample.text else "")


def text_of(messages: Sequence[Message]) -> str:
    """The messages' texts, an empty line between them."""
    return "\n\n".join(text for text in map(_text, messages) if text)


def number(value: Any, what: str) -> float:
    """A Python, numpy or torch scalar as a float. Raises TypeError or OverflowError."""
    if getattr(value, "ndim", None) == 0 and hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, (bool, int, float)):
        raise TypeError(f"{what} is no number: {value!r:.200}")
    return float(value)


def _text(message: Message) -> str:
    content = message.get("content")
    if isinstance(content, Sequence) and not isinstance(content, str):
        return " ".join(str(part.get("text", "")) for part in content if isinstance(part, Mapping)).strip()
    return str(content or "")
