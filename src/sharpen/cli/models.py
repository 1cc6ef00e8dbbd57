"""`sharpen models`: what can be trained by name, whether it fits here, and fetching it."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.cli import machine

if TYPE_CHECKING:
    from sharpen.models.bases import Base, Shape
    from sharpen.models.fits import Method


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen models` is told."""
    actions = parser.add_subparsers(dest="what", required=True, title="actions", metavar="list|show|pull")
    listed = actions.add_parser("list", help="the models with a name of their own: licence, size, what fits here")
    shown = actions.add_parser("show", help="all about one model: what it was made from, what to train it takes")
    shown.add_argument(
        "name", metavar="NAME", help="a name of the list, a run, a model's folder, or a hub id org/name[@revision]"
    )
    for action in (listed, shown):
        action.add_argument("--json", action="store_true", help="print one JSON object")
    pull = actions.add_parser("pull", help="fetch a model, check it, and keep it in the cache")
    pull.add_argument("name", metavar="NAME", help="a name of the list, or a hub id org/name[@revision]")


def models(options: Namespace) -> int:
    """List the models, show or fetch one."""
    if options.what == "pull":
        _pull(options.name)
    elif options.what == "list":
        _list(as_json=options.json)
    else:
        _show(options.name, as_json=options.json)
    return 0


def _pull(name: str) -> None:
    from sharpen.models.folder import pinned, resolve

    folder = resolve(name, print)
    commit = pinned(name).partition("@")[2]
    print(f"Here{f', at commit {commit[:12]}' if commit else ''}: {folder}")


def _list(*, as_json: bool) -> None:
    from sharpen.models import registry

    rows = [entry(listed.base.shape, listed.base, listed.folder) for listed in registry.listing()]
    result = {"schema_version": 1, "machine": this_machine(), "models": rows}
    if as_json:
        print(json.dumps(result, indent=2))
        return
    from sharpen.cli.models_table import listing  # imports rich

    listing(result)


def _show(name: str, *, as_json: bool) -> None:
    from sharpen.answer.named import named
    from sharpen.cli import lineage_tree  # imports rich
    from sharpen.models.folder import described

    meant = named(name)
    found = described(meant)
    tree = lineage_tree.of(name)
    result = {
        "schema_version": 1,
        "machine": this_machine(),
        "model": {"name": name, **entry(found.shape, found.base, found.folder)},
        "lineage": tree,
    }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    from sharpen.cli.models_table import one  # imports rich

    one(result)
    if tree:
        lineage_tree.draw(tree, Path(meant).expanduser().resolve())


def this_machine() -> dict[str, Any]:
    """What decides what fits: memory in bytes (null where the system does not say), and whether bfloat16 is used."""
    found = machine.memory()
    return {
        "memory_bytes": found and found.total,
        "free_bytes": found and found.free,
        "bfloat16": any(unit in machine.BF16_UNITS for unit in machine.matrix_units()),
    }


def entry(shape: Shape, base: Base | None, folder: Path | None) -> dict[str, Any]:
    """A model for JSON; what is not known of it is null."""
    from sharpen.models.fits import METHODS

    facts = {
        "alias": base and base.alias,
        "hub": base and base.hub,
        "licence": base and base.licence,
        "gated": base and base.gated,
        "context": base and base.context,
        "tools": base and base.tools,
        "reasons": base and base.reasons,
        "note": base and base.note,
    }
    return {
        **facts,
        "parameters": base.parameters if base else shape.parameters,
        "folder": folder and str(folder),
        "shape": {name: getattr(shape, name) for name in shape.__slots__},
        "methods": {method.name: _method(shape, method) for method in METHODS},
    }


def _method(shape: Shape, method: Method) -> dict[str, Any]:
    """What a way to train takes, and whether it fits; null where the memory is not known."""
    from sharpen.models import fits

    here = this_machine()
    needed = fits.needs(shape, method, narrow=here["bfloat16"])
    memory = here["memory_bytes"]
    return {
        "title": method.title,
        "trained_share": fits.trained_share(shape, method),
        "bytes": needed.total,
        "fits": fits.verdict(needed.total, memory) if memory else None,
        "parts": {name: round(value) for name, value in needed._asdict().items()},
    }
