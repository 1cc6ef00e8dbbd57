"""The model card: README.md, with the metadata that the hub reads, and what a stranger should know of the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sharpen.errors import RunError
from sharpen.export.modelfile import called
from sharpen.export.proof import Check
from sharpen.export.source import Source
from sharpen.reports.numbers import at, finite, show, span
from sharpen.runs.lineage import chain

Record = Mapping[str, Any]

_NAMED = {"Apache-2.0": "apache-2.0", "Llama 3.2 Community": "llama3.2", "Llama 3.1 Community": "llama3.1"}
_NAMED |= {"Gemma Terms": "gemma", "MIT": "mit"}
"""The hub's names of licences."""

_LIBRARY = {"peft": "peft", "gguf": "gguf", "ollama": "gguf"}


def card(source: Source, target: str, checks: Sequence[Check], how: str, file: str, repo: str) -> str:
    """The text of README.md, with what was proven and how.

    `file` is the GGUF's name, `repo` where the export is to stand on the hub; either may be empty.
    """
    parts = [_metadata(source, target), f"# {source.name}\n", *_about(source, target)]
    parts += ["## Results\n", *_results(source)] if source.run else []
    parts += ["## How it was made\n", *_lineage(source)] if source.trained else []
    parts += ["## How to use it\n", *_usage(source, target, file, repo), "## Proof\n", *_proof(checks, how)]
    return "\n".join(parts)


def _metadata(source: Source, target: str) -> str:
    known = source.known
    kinds = [stage["type"] for stage in _stages(source)]
    content: dict[str, Any] = {"library_name": _LIBRARY.get(target, "transformers")}
    if known:
        content["base_model"] = known.hub
        if source.trained:
            content["base_model_relation"] = {"peft": "adapter", "gguf": "quantized", "ollama": "quantized"}.get(
                target, "finetune"
            )
        content |= {"license": _NAMED.get(known.licence, "other")}
        if content["license"] == "other":
            content["license_name"] = known.licence
    content["pipeline_tag"] = "text-classification" if source.scores else "text-generation"
    content["tags"] = ["sharpen", *dict.fromkeys(kinds)]
    return f"---\n{yaml.safe_dump(content, sort_keys=False)}---\n"


def _about(source: Source, target: str) -> Iterator[str]:
    kind = {"peft": "the adapter alone, for PEFT", "gguf": "as GGUF", "ollama": "as GGUF, for Ollama"}.get(target, "")
    what = "A reward model" if source.scores else "A language model"
    made = f"trained from {source.began} with sharpen" if source.trained else f"{source.began}, exported with sharpen"
    yield f"{what}, {made}{f'; {kind}' if kind else ''}.\n"
    if verdict := at(_summary(source), "verdict"):
        yield f"> {verdict}\n"


def _results(source: Source) -> Iterator[str]:
    """A row a model and eval, down to this one."""
    summary = _summary(source)
    rows: list[tuple[str, Any]] = [("base", at(summary, "base"))]
    for stage in at(summary, "stages") or ():
        rows.append((str(stage["name"]), stage))
        if source.folder.resolve().name == stage["name"]:
            break
    evals = list(at(summary, "base", "evals") or {})
    if not evals:
        yield "The run had no evaluation on held-out problems.\n"
        return
    for name in evals:
        yield f"`{name}`, {finite(rows[0][1], 'evals', name, 'n') or 0:.0f} held-out problems, greedy answers:\n"
        yield "| model | right | 95 % interval | change in points | 95 %, paired |\n|---|---|---|---|---|"
        for model, found in rows:
            result = at(found, "evals", name)
            change, paired = finite(result, "vs_previous", "delta"), span(result, "vs_previous", "ci95")
            cells = [model, show(finite(result, "score"), "share"), _interval(span(result, "ci95"))]
            cells += ["" if change is None else f"{100 * change:+.1f}", _interval(paired, signed=True)]
            yield f"| {' | '.join(cells)} |"
        yield ""


def _interval(found: Any, signed: bool = False) -> str:
    if found is None:
        return ""
    form = "+.1f" if signed else ".1f"
    return f"[{100 * found.low:{form}}, {100 * found.high:{form}}]"


def _lineage(source: Source) -> Iterator[str]:
    """The models from the first to this one, each with how it was trained."""
    if source.lineage is None:
        yield f"Begun from {source.began}; nothing more is recorded in its folder.\n"
        return
    yield "```"
    for depth, (parent, own) in enumerate(chain(source.lineage)):
        indent = "   " * (depth - 1) + "└─ " if depth else ""
        digest = f"  (sha256 {parent['sha256'][:12]})" if parent["sha256"] else ""
        kind = f", {own['type']}" if own else ""
        yield f"{indent}{parent['name']}{kind}{digest}"
    yield "```\n"
    for stage in _stages(source):
        yield f"**{stage['name']}** ({stage['type']}): {at(stage, 'adapter', 'words') or 'trained'}.\n"
        for title, facts in (("Data", stage.get("data")), ("Graders", stage.get("graders"))):
            if facts:
                yield f"- {title}: {', '.join(f'`{place}` {str(value)[:12]}' for place, value in facts.items())}"
        settings = json.dumps(_public(at(stage, "recipe", "stage") or {}), ensure_ascii=False)
        yield f"- Settings: `{settings}`\n"


def _usage(source: Source, target: str, file: str, repo: str) -> Iterator[str]:
    place = repo or "."
    if target == "ollama":
        name = called(source.name)
        yield f"```sh\nollama create {name} -f Modelfile\nollama run {name}\n```\n"
    elif target == "gguf":
        yield f"```sh\nllama-server -m {file} --jinja\n```\n"
    elif target == "peft":
        yield (
            "```python\nfrom peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
            f'model = AutoPeftModelForCausalLM.from_pretrained("{place}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{place}")\n```\n'
        )
    elif source.scores:
        yield (
            "```python\nfrom transformers import AutoModelForSequenceClassification, AutoTokenizer\n\n"
            f'model = AutoModelForSequenceClassification.from_pretrained("{place}")\n'
            f'tokenizer = AutoTokenizer.from_pretrained("{place}")\n```\n'
        )
    else:
        yield (
            "```python\nfrom transformers import pipeline\n\n"
            f'chat = pipeline("text-generation", "{place}")\n'
            'chat([{"role": "user", "content": "Hello"}], max_new_tokens=64)\n```\n'
        )
    told = source.folder / "chat_template_kwargs.json"
    if told.is_file():
        settings = " ".join(told.read_text("utf-8").split())
        yield f"Its chat template was told `{settings}` in training: tell it the same.\n"
    if source.system:
        yield f"It was trained under this system message; begin conversations with it:\n\n> {source.system}\n"


def _proof(checks: Sequence[Check], how: str) -> Iterator[str]:
    yield f"This export was loaded again and compared with its original: {how}. `proof.json` has all of it.\n"
    yield "| compared | found | must be |\n|---|---|---|"
    for check in checks:
        yield f"| {check.name} | {check.found} | {check.wanted} |"
    yield ""


def _public(value: Any) -> Any:
    """Plain values, in which a path on this machine is its last part."""
    match value:
        case dict():
            return {key: _public(inner) for key, inner in value.items()}
        case list():
            return [_public(inner) for inner in value]
        case str() if value.startswith("/"):
            return value.rpartition("/")[2]
    return value


def _stages(source: Source) -> Sequence[Record]:
    return [own for _, own in chain(source.lineage) if own] if source.lineage else []


def _summary(source: Source) -> Record:
    """The run's summary.json; empty where there is none yet."""
    path = (source.run or Path()) / "summary.json"
    if source.run is None or not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise RunError(
            f"the run's summary cannot be read: {error}", value=str(path), remedy="Restore the file"
        ) from error
    return found
