"""What a chat template is told besides the messages: `chat_template_kwargs`, on the tokenizer and among its files."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.errors import ConfigError, ModelError

FILE = "chat_template_kwargs.json"
"""Stands among the files of a model that was trained with some; transformers does not read it."""

_OURS = ("messages", "tools", "add_generation_prompt")
_GENERATION = re.compile(r"\{%-?\s*(?:end)?generation\s*-?%\}")  # transformers' own tag, which jinja2 does not know


def tell(tokenizer: Any, folder: Path, given: Mapping[str, Any]) -> None:
    """Set `tokenizer.chat_template_kwargs`: those that the model in `folder` was trained with, and over them `given`.

    Raises ConfigError for one that the chat template does not read, and ModelError for a file that is not readable.
    """
    read = variables(tokenizer.chat_template)
    for name in given:
        if name in _OURS or name not in read:
            raise _unread(name, read)
    tokenizer.chat_template_kwargs = {**_kept(folder), **given}


def keep(tokenizer: Any, folder: Path) -> None:
    """Write what the template is told beside the tokenizer's files; nothing where it is told nothing."""
    told = getattr(tokenizer, "chat_template_kwargs", {})
    if told:
        (folder / FILE).write_text(json.dumps(told, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def variables(template: str | Mapping[str, str]) -> frozenset[str]:
    """The names that a chat template, or one of several, looks up."""
    from jinja2 import Environment, meta  # only where there is a template

    texts = [template] if isinstance(template, str) else list(template.values())
    syntax = Environment(extensions=["jinja2.ext.loopcontrols"])  # parses alone, renders nothing
    found = [meta.find_undeclared_variables(syntax.parse(_GENERATION.sub("", text))) for text in texts]
    return frozenset().union(*found)


def _kept(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ModelError(f"not valid JSON: {error}", value=str(path), remedy="Mend or delete the file") from error
    if not isinstance(found, dict):
        raise ModelError("not a JSON object", value=str(path), remedy="Mend or delete the file")
    return found


def _unread(name: str, read: frozenset[str]) -> ConfigError:
    path = f"chat_template_kwargs.{name}"
    if name in _OURS:
        return ConfigError("sharpen gives the chat template this itself", path=path, remedy="Leave it out")
    near = difflib.get_close_matches(name, read, 1)
    remedy = f"Did you mean {near[0]!r}?" if near else "Leave it out, or use a model whose template reads it"
    return ConfigError(
        "the model's chat template does not read this, so it would change nothing", path=path, remedy=remedy
    )
