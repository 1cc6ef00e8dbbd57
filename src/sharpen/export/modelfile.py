"""Ollama's Modelfile: written, and read as Ollama reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sharpen.errors import ModelError

_LINE = re.compile(r'^(?:#[^\n]*|(\w+) (?:"""(.*?)"""|([^\n]*)))$', re.DOTALL | re.MULTILINE)


def called(name: str) -> str:
    """A name that Ollama takes for a model."""
    return re.sub(r"[^a-z0-9._-]", "-", name.lower())


def write(gguf: str, template: str, stops: Sequence[str], system: str) -> str:
    """The Modelfile of a GGUF in the same folder. Raises ModelError for a text that it cannot hold."""
    for text in (template, system, *stops):
        if '"""' in text or text.startswith('"') or text.endswith('"'):
            raise _impossible('a text with """, or with " at an end', text)
        if not all(sign.isprintable() or sign in "\n\t" for sign in text):
            raise _impossible("signs that cannot be printed: Ollama leaves them out", text)
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{template}"""']
    if system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f'PARAMETER stop "{stop}"' for stop in stops]
    lines += [
        "# Greedy answers without penalties, as the model was evaluated; raise the temperature for varied ones.",
        "PARAMETER temperature 0",
        "PARAMETER repeat_penalty 1",
    ]
    return "\n".join(lines) + "\n"


def read(text: str) -> dict[str, Any]:
    """`{"from", "template", "system", "parameters": [(name, value)]}` of what `write` wrote."""
    found: dict[str, Any] = {"system": "", "parameters": []}
    for match in filter(lambda line: line[1], _LINE.finditer(text)):  # no remarks
        word, value = match[1].lower(), match[2] if match[2] is not None else match[3]
        if word == "parameter":
            name, _, setting = value.partition(" ")
            found["parameters"].append((name, setting.strip('"')))
        else:
            found[word] = value
    return found


def _impossible(what: str, text: str) -> ModelError:
    return ModelError(f"a Modelfile cannot hold {what}", value=text, remedy="Export with --to gguf instead")
