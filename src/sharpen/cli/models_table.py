"""The models of `sharpen models`, to read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sharpen.cli.table import console, simple
from sharpen.reports.numbers import MISSING, memory

Record = Mapping[str, Any]

WIDE = 100
"""Columns of a terminal from which on the whole table is shown."""

ROOMY = 112
"""Columns from which on its columns stand apart."""

FACTS = ("size", "context", "tools", "thinks", "here", "licence")
GATES = {True: " †", None: " ?", False: ""}
WORDS = {True: "; gated: to be accepted at that page first", None: "; perhaps gated", False: ""}
MARKS = {"yes": ("", "green"), "tight": ("!", "yellow"), "no": ("✗", "red"), None: ("?", "")}


def listing(result: Record) -> None:
    """Print a row a model, and what the marks mean."""
    screen = console()
    wide = screen.width >= WIDE
    methods = list(result["models"][0]["methods"].values())
    facts = FACTS if wide else ("size",)
    table = _table([("name", "left"), *((fact, "left" if fact == "licence" else "right") for fact in facts)], screen)
    for method in methods:
        table.add_column(method["title"].replace(", ", "\n"), justify="right", no_wrap=True)
    for model in result["models"]:
        told = [_facts(model)[fact] for fact in facts]
        table.add_row(Text(model["alias"], "bold"), *told, *map(_cell, model["methods"].values()))
    screen.print(table)
    for line in _legend(result):
        screen.print(Text(line, "dim"))


def one(result: Record) -> None:
    """Print everything about a model."""
    screen, model = console(), result["model"]
    screen.print(Text(f"\n{model['alias'] or model['name']}", "bold"))
    grid = Table.grid(padding=(0, 2))
    for name, fact in _about(model):
        grid.add_row(Text(name, "dim"), Text(fact))
    screen.print(Padding(grid, (0, 0, 0, 2)))
    parts = list(next(iter(model["methods"].values()))["parts"])
    columns = [("GB for", "left"), ("trains", "right"), *((part, "right") for part in parts), ("fits here?", "left")]
    table = _table(columns, screen)
    for method in model["methods"].values():
        figures = [_gigabytes(value) if value else MISSING for value in method["parts"].values()]
        share = f"{100 * method['trained_share']:.2g} %" if method["trained_share"] < 1 else "all"
        table.add_row(
            Text(method["title"], "bold"), share, *figures, _answer(method, result["machine"]["memory_bytes"])
        )
    screen.print(table)
    for line in _legend(result)[1:]:
        screen.print(Text(line, "dim"))


def _table(columns: Sequence[tuple[str, str]], screen: Console) -> Table:
    """As close as a narrow terminal makes it."""
    table = simple(columns)
    table.padding = (0, 1 if screen.width >= ROOMY else 0, 0, 0)
    table.pad_edge = False
    return table


def _facts(model: Record) -> dict[str, str]:
    """Of a model with a name of its own, as short as they go."""
    return {
        "size": size(model["parameters"]),
        "context": f"{model['context'] // 1024}k",
        "tools": "yes" if model["tools"] else MISSING,
        "thinks": "yes" if model["reasons"] else MISSING,
        "here": "yes" if model["folder"] else MISSING,
        "licence": re.sub(" (Community|Terms)$", "", model["licence"]) + GATES[model["gated"]],
    }


def _about(model: Record) -> Iterator[tuple[str, str]]:
    shape = model["shape"]
    if model["hub"]:
        yield "hub", f"https://huggingface.co/{model['hub']}"
        yield "licence", model["licence"] + WORDS[model["gated"]]
        yield "context", f"{model['context']:,} tokens"
        yield "tools", "its chat template renders them" if model["tools"] else "its chat template does not render them"
        yield "thinking", "can think before it answers" if model["reasons"] else "answers at once"
    yield "parameters", f"{size(model['parameters'])} ({memory(2 * model['parameters'])} in bfloat16)"
    experts = f", {shape['experts']} experts of which {shape['active']} compute" if shape["experts"] > 1 else ""
    yield (
        "shape",
        f"{shape['kind']}: {shape['layers']} layers, width {shape['width']}, inner {shape['inner']}{experts}, "
        f"{shape['heads']} heads of {shape['head_size']} ({shape['shared_heads']} for keys and values), "
        f"vocabulary {shape['vocabulary']:,}",
    )
    if model["note"]:
        yield "note", model["note"]
    yield "here", model["folder"] or f"no: sharpen models pull {model['alias'] or model['name']}"


def _cell(method: Record) -> Text:
    mark, style = MARKS[method["fits"]]
    return Text(f"{mark}{_gigabytes(method['bytes'])}", style)


def _answer(method: Record, here: float | None) -> Text:
    """`yes (needs 4.1 GB)`, `no (needs 36 GB, here 25 GB)`; `needs 36 GB` where the memory here is not known."""
    needs = f"needs {_gigabytes(method['bytes'])} GB"
    words = f", here {_gigabytes(here)} GB" if here and method["fits"] != "yes" else ""
    return Text(f"{method['fits']} ({needs}{words})" if here else needs, MARKS[method["fits"]][1])


def _legend(result: Record) -> list[str]:
    here = result["machine"]
    total, free = here["memory_bytes"], here["free_bytes"]
    has = f"{memory(total)}, of which {memory(free)} free" if total else "not known"
    kind = "bfloat16" if here["bfloat16"] else "float32, as it has no units for bfloat16"
    return [
        "GB of memory that training takes: ! tight, ✗ more than there is here. "
        "† gated: accept the licence at the model's page. ? perhaps gated.",
        f"Memory here: {has}. Training computes on the processor, in {kind}. "
        "Figures are for a recipe's defaults and adapters of rank 16, and within about a quarter.",
        "What fits may still be slow: `sharpen bench RECIPE` measures the time. "
        "Folders and hub ids (org/name[@revision]) can be named wherever these names can.",
    ]


def size(parameters: int) -> str:
    """`135 M`, `1.7 B`, `33 B`."""
    if parameters < 9.995e8:
        return f"{parameters / 1e6:.0f} M"
    return f"{parameters / 1e9:.1f} B" if parameters < 9.95e9 else f"{parameters / 1e9:.0f} B"


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f}" if count < 9.95e9 else f"{count / 1e9:,.0f}"
