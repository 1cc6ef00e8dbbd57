"""Chat, prompt-completion, preference and KTO rows, with the keys that OpenAI and TRL use."""

from __future__ import annotations

from typing import Any

from sharpen.data.formats.messages import messages, tools, turns
from sharpen.data.formats.parts import Parts
from sharpen.data.read import Record, Where
from sharpen.types import Message, Tool

LABELS = {True: True, False: False, "true": True, "false": False, "True": True, "False": False}
"""What a KTO row's `label` may be; CSV files hold it as text."""


def chat(record: Record, where: Where, images: bool) -> Parts:
    """`{"messages": [...]}`."""
    talk = messages(record["messages"], "messages", where, images)
    return Parts(talk, tools=tools(record.get("tools"), where))


def prompt(record: Record, where: Where, images: bool) -> Parts:
    """`{"prompt": text or messages}`."""
    asked = turns(record["prompt"], "prompt", "user", where, images)
    return Parts(asked, first=len(asked), tools=tools(record.get("tools"), where), field="prompt")


def prompt_completion(record: Record, where: Where, images: bool) -> Parts:
    """`{"prompt": ..., "completion": ...}`, each text or messages."""
    asked = turns(record["prompt"], "prompt", "user", where, images)
    said = turns(record["completion"], "completion", "assistant", where, images)
    _begins_with_assistant(said, "completion", where)
    return Parts(asked + said, first=len(asked), tools=tools(record.get("tools"), where), field="completion")


def kto(record: Record, where: Where, images: bool) -> Parts:
    """TRL's `{"prompt": ..., "completion": ..., "label": true}`."""
    made = prompt_completion(record, where, images)
    return Parts(made.messages, made.first, made.tools, desirable=LABELS[record["label"]], field="completion")


def preference(record: Record, where: Where, images: bool) -> Parts:
    """TRL's `{"prompt": ..., "chosen": ..., "rejected": ...}`; the two may begin with the prompt."""
    asked = turns(record["prompt"], "prompt", "user", where, images)
    chosen, rejected = (_answer(record[key], key, asked, where, images) for key in ("chosen", "rejected"))
    return _pair(asked, chosen, rejected, where, tools=tools(record.get("tools"), where), field="prompt")


def implicit_preference(record: Record, where: Where, images: bool) -> Parts:
    """TRL's `{"chosen": [...], "rejected": [...]}`: the prompt is what both begin with."""
    for key in ("chosen", "rejected"):
        if isinstance(record[key], str):
            raise where.error(
                "text without a prompt: where the answer begins cannot be told",
                field=key,
                value=record[key],
                remedy='Add "prompt", or give lists of messages',
            )
    chosen, rejected = (messages(record[key], key, where, images) for key in ("chosen", "rejected"))
    same = 0
    while same < min(len(chosen), len(rejected)) and chosen[same] == rejected[same]:
        same += 1
    if not same and chosen[0]["role"] != "assistant":
        raise where.error(
            "chosen and rejected begin differently, so they have no common prompt",
            field="rejected.0",
            value=rejected[0],
            remedy="Begin both with the same messages",
        )
    rest = (chosen[same:], rejected[same:])
    return _pair(chosen[:same], *rest, where, tools=tools(record.get("tools"), where), field="chosen")


def openai_preference(record: Record, where: Where, images: bool) -> Parts:
    """OpenAI's `{"input": {"messages": ...}, "preferred_output": [...], "non_preferred_output": [...]}`."""
    given = record["input"]
    if not isinstance(given, dict) or "messages" not in given:
        raise where.error("not an input", field="input", value=given, remedy='Write {"messages": [...]}')
    asked = messages(given["messages"], "input.messages", where, images)
    chosen, rejected = (
        _answer(record[key], key, (), where, images) for key in ("preferred_output", "non_preferred_output")
    )
    listed = tools(given.get("tools"), where, "input.tools")
    return _pair(asked, chosen, rejected, where, tools=listed, field="input.messages")


def text(record: Record, where: Where, images: bool) -> Parts:
    """`{"text": ...}`: no conversation."""
    value = record["text"]
    if not isinstance(value, str) or not value.strip():
        raise where.error("not a text, or an empty one", field="text", value=value, remedy="Give it a text")
    return Parts(text=value, field="text")


def _answer(value: Any, key: str, asked: tuple[Message, ...], where: Where, images: bool) -> tuple[Message, ...]:
    said = turns(value, key, "assistant", where, images)
    if asked and said[: len(asked)] == asked:
        said = said[len(asked) :]
    _begins_with_assistant(said, key, where)
    return said


def _pair(
    asked: tuple[Message, ...],
    chosen: tuple[Message, ...],
    rejected: tuple[Message, ...],
    where: Where,
    *,
    tools: tuple[Tool, ...],
    field: str,
) -> Parts:
    if chosen == rejected:
        raise where.error("chosen and rejected are the same", value=chosen, remedy="Remove the row: it teaches nothing")
    return Parts(asked, len(asked), tools, chosen=chosen, rejected=rejected, field="chosen", asked=field)


def _begins_with_assistant(said: tuple[Message, ...], key: str, where: Where) -> None:
    if not said or said[0]["role"] != "assistant":
        raise where.error(
            f"a {key} must begin with an assistant turn",
            field=f"{key}.0.role",
            value=said[0]["role"] if said else None,
            remedy="Move what comes before it to the prompt",
        )
