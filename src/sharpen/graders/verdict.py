"""What a chat completion says: the JSON object that a judge answered with, and what it took."""

from __future__ import annotations

import json
import math
from typing import Any

from sharpen.client.http import Answer, parse
from sharpen.completion import FENCED

BYTES_A_TOKEN = 3
"""Where a server does not tell what an answer took, so many bytes count as a token."""
MOST_TOKENS = 10**9
"""More than this no answer took, whatever the server says."""


class Refused(Exception):
    """The judge will not judge this."""


def content(answer: Answer) -> dict[str, Any]:
    """The JSON object in a chat completion. Raises Refused, or ValueError where there is none."""
    try:
        choice = answer["choices"][0]
        message = choice["message"]
        text, refusal, finish = message.get("content"), message.get("refusal"), choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ValueError(f"no chat completion: {json.dumps(answer)[:200]}") from None
    if refusal or finish == "content_filter":
        raise Refused(f"the judge refused: {refusal or 'its content filter stopped it'}"[:300])
    if not isinstance(text, str):
        raise ValueError(f"the judge's message has no text: {text!r:.100}")
    if finish == "length":
        raise ValueError(f"the judge's answer was cut off at its limit of tokens: {text[-100:]!r}")
    said = _json(text)
    if not isinstance(said, dict):
        raise ValueError(f"the judge's answer is no object: {text[:200]!r}")
    return said


def used(question: Answer, answer: Answer) -> tuple[int, int]:
    """The tokens of question and answer, as the completion tells; by their length where it tells nothing sensible."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    told = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")] if isinstance(usage, dict) else []
    counts = [count for count in told if type(count) is int and 0 <= count <= MOST_TOKENS]
    if len(counts) == 2 and counts[0]:
        return counts[0], counts[1]
    return _estimate(question), _estimate(answer)


def number(value: float) -> float:
    """A JSON number as a float. Raises ValueError for an infinite one, or one too large to be a float."""
    try:
        found = float(value)
    except OverflowError:
        found = math.inf
    if not math.isfinite(found):
        raise ValueError("the judge's result is not a finite number")
    return found


def _json(text: str) -> Answer:
    """The value of a text that is JSON, or that has one ```json block. Raises ValueError."""
    try:
        return parse(text.strip())
    except ValueError as error:
        blocks = FENCED.findall(text)
        if len(blocks) != 1:
            raise ValueError(f"the judge's answer is not JSON ({error}): {text[:200]!r}") from None
        return parse(blocks[0].strip())


def _estimate(part: Answer) -> int:
    return len(json.dumps(part).encode()) // BYTES_A_TOKEN
