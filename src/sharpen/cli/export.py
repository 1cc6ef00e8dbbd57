"""`sharpen export`: a trained model in the forms that others read, with the proof that it is the same."""

from __future__ import annotations

import shlex
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.export.export import Done
    from sharpen.export.order import Order
    from sharpen.export.source import Source


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen export` is told."""
    parser.add_argument(
        "model", metavar="MODEL", help="a run, a folder such as runs/X/models/rft, an alias, or a hub id"
    )
    parser.add_argument(
        "--to",
        required=True,
        choices=("hf", "peft", "merged", "gguf", "ollama"),
        help="hf: a transformers folder, with the adapter beside; merged: the same without; peft: the adapter alone; "
        "gguf: one file for llama.cpp; ollama: that and a Modelfile",
    )
    parser.add_argument(
        "--quantize", choices=("f16", "q8_0"), help="how a GGUF's matrices are held (default: f16, 2 bytes a number)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the export's folder (default: exports/NAME-TARGET), new or empty"
    )
    parser.add_argument(
        "--push", default="", metavar="ORG/NAME", help="send it to the hub too, into a private repository"
    )
    parser.add_argument("--public", action="store_true", help="with --push: a new repository is public")


def export(options: Namespace) -> int:
    """Export a model, and say what was proven."""
    if options.public and not options.push:
        raise ConfigError("is said of no repository", path="--public", remedy="Add --push org/name")
    from sharpen.answer.named import named, system_of
    from sharpen.export import export as work  # imports torch
    from sharpen.export.order import Order, check_kind
    from sharpen.export.source import find

    kind = check_kind(options.to, options.quantize)
    source = find(named(options.model), _say, system_of(options.model))
    out = options.out or _folder(source, options.to, kind)
    order = Order(options.to, out, kind, options.push, options.public)
    _conclude(work.export(source, order, _say), source, order)
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _folder(source: Source, target: str, kind: str) -> Path:
    packed = f"-{kind}" if target in ("gguf", "ollama") else ""
    return Path("exports") / f"{source.name}-{target}{packed}"


def _conclude(done: Done, source: Source, order: Order) -> None:
    from sharpen.reports.numbers import memory

    size = sum(path.stat().st_size for path in done.folder.rglob("*") if path.is_file())
    print(f"\nExport   {done.folder} ({memory(size)})")
    print(f"Proof    {_proven(done)}")
    for note in done.notes:
        print(f"Note     {note}.")
    if done.address:
        print(f"Hub      {done.address}")
    print("\nNext")
    for line in _next(done, source, order):
        print(f"  {line}")


def _proven(done: Done) -> str:
    """The checks in a sentence or two."""
    found = {check.name: check for check in done.checks}
    said = []
    if steps := found.get("greedy steps that differ"):
        close = next(check for check in done.checks if check.rule == "noted")
        but = f", but for {close.value} between two tokens as good as equal" if close.value else ""
        said.append(f"All {steps.of} greedy steps on built-in prompts are the original's{but}")
    if share := found.get("share with the same likeliest token"):
        kl = found["mean KL in nats"]
        said.append(
            f"At {float(share.value):.1%} of {share.of} positions the likeliest token is the original's "
            f"({share.wanted} wanted), mean KL {float(kl.value):.2g} nats ({kl.wanted})"
        )
    if scores := found.get("largest difference of scores"):
        said.append(f"Scores differ by {scores.found} at most ({scores.wanted} wanted)")
    said.append("Chat template and tokens are the same")
    if template := found.get("conversations that the TEMPLATE makes other tokens of"):
        said.append(f"The TEMPLATE makes the same tokens of {template.of} conversations as the chat template")
    return ". ".join(said) + "."


def _next(done: Done, source: Source, order: Order) -> Iterator[str]:
    from sharpen.export.modelfile import called

    folder = shlex.quote(str(done.folder))
    if order.target == "ollama":
        name = shlex.quote(called(source.name))
        yield f"cd {folder} && ollama create {name} -f Modelfile && ollama run {name}"
    elif order.target == "gguf":
        yield f"llama-server -m {shlex.quote(str(done.gguf))} --jinja"
    elif order.target == "peft":
        yield f"less {folder}/README.md    # how to load it"
    elif not source.scores:
        yield f"sharpen chat {folder}"
    if done.gguf and order.kind == "f16" and shutil.which("llama-quantize"):
        smaller = done.gguf.with_name(done.gguf.name.replace("-F16.gguf", "-Q4_K_M.gguf"))
        yield f"llama-quantize {shlex.quote(str(done.gguf))} {shlex.quote(str(smaller))} Q4_K_M    # 4 bits, unproven"
