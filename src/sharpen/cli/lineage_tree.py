"""What a model was made from, as a tree: each model with its training, its data and graders, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from sharpen.cli.table import console
from sharpen.reports.numbers import at, count, finite, plain, points, show, span
from sharpen.runs import lineage
from sharpen.runs.lineage import Lineage

Record = Mapping[str, Any]

SHORT = 8
"""Characters of a hash: enough to tell a few apart."""

MEASURED = (
    ("loss", "loss"),
    ("token accuracy", "token_accuracy"),
    ("reward", "reward.mean"),
    ("preference accuracy", "rewards.accuracies"),
    ("margin", "rewards.margins"),
    ("kl", "kl"),
    ("validation loss", "validation.loss"),
    ("validation reward", "validation.reward"),
    ("validation accuracy", "validation.rewards.accuracies"),
)
"""What is told of a step's metrics, and where it stands in them."""

SHARES = ("token_accuracy", "rewards.accuracies", "validation.rewards.accuracies")


def of(name: str) -> list[dict[str, Any]]:
    """The models from which those of a run, or the one in a folder, were made, as nodes with `children`.

    Empty for names and folders without a lineage. Raises RunError for a lineage that cannot be read.
    """
    path = Path(name).expanduser()
    if not path.is_dir():
        return []
    shown = path.resolve()
    models = [shown] if (shown / "config.json").is_file() else [shown / "models" / stage for stage in _stages(shown)]
    roots: list[dict[str, Any]] = []
    for folder in models:
        if own := lineage.read(folder):
            _grow(roots, [*_nodes(own, folder)])
    return roots


def draw(roots: Sequence[Record], shown: Path | None) -> None:
    """Print the tree; the model in the folder `shown` is marked."""
    screen = console()
    for root in roots:
        tree = Tree(_told(root, shown), guide_style="dim")
        _branch(tree, root["children"], shown)
        screen.print(Padding(tree, (1, 0, 0, 2)))
    screen.print()


def _stages(run: Path) -> list[str]:
    """The names of a run's stages; none where it is no run that can be read."""
    try:
        return [str(stage["name"]) for stage in yaml.safe_load((run / "recipe.yaml").read_text("utf-8"))["stages"]]
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return []


def _grow(roots: list[dict[str, Any]], nodes: Sequence[dict[str, Any]]) -> None:
    """Put a chain of models, the first one first, into the tree; those that stand there already are the same."""
    here = roots
    for node in nodes:
        same = next((other for other in here if all(other[key] == node[key] for key in ("name", "folder"))), None)
        if same is None:
            here.append(same := node)
        here = same["children"]


def _nodes(own: Lineage, folder: Path) -> Iterator[dict[str, Any]]:
    """The models of a lineage, the first one first, each where it is and with what evals said of it."""
    chain = [*lineage.chain(own)]
    places: list[tuple[Path | None, str]] = []
    place: Path | None = folder
    digest: str = lineage.weights(folder, checked=False)
    for known, _ in reversed(chain):
        if known["sha256"] is not None:
            run = place.parent.parent if place else None
            path = known["path"]
            place = run / path if path and run else Path(path) if path and Path(path).is_absolute() else None
            digest = known["sha256"]
        places.insert(0, (place, digest))
    for index, ((known, lived), (where, sha256)) in enumerate(zip(chain, places, strict=True)):
        after = places[index + 1][0] if index + 1 < len(chain) else None
        yield {
            "name": known["name"],
            "folder": where and str(where),
            "sha256": sha256,
            **{key: lived[key] for key in ("type", "recipe", "adapter", "data", "graders", "metrics") if lived},
            "evals": _own_evals(where, known["name"], sha256) if lived else _base_evals(after, known["name"], where),
            "children": [],
        }


def _own_evals(folder: Path | None, name: str, sha256: str) -> dict[str, Any]:
    """What the run in which a model lies says of it, if it is still the same model."""
    if folder is None or folder.parent.name != "models" or not folder.is_dir():
        return {}
    if lineage.weights(folder, checked=False) != sha256:
        return {}
    stages = at(_summary(folder.parent.parent), "stages") or ()
    return next((stage["evals"] for stage in stages if stage.get("name") == name), {})


def _base_evals(child: Path | None, name: str, folder: Path | None) -> dict[str, Any]:
    """What the run of a model's child says of the model, if that is the recipe's."""
    summary = _summary(child.parent.parent) if child else {}
    return (at(summary, "base", "evals") or {}) if summary.get("model") in (name, str(folder)) else {}


def _summary(run: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((run / "summary.json").read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


# Drawing


def _branch(tree: Tree, children: Sequence[Record], shown: Path | None) -> None:
    for child in children:
        _branch(tree.add(_told(child, shown)), child["children"], shown)


def _told(node: Record, shown: Path | None) -> Group:
    """A model's name, and under it what is known of it."""
    kind = node.get("type", "where it began")
    told = (node["sha256"][:SHORT],) if kind == node["name"] else (kind, node["sha256"][:SHORT])
    head = Text.assemble((node["name"], "bold"), ("".join(f"  {word}" for word in told), "dim"))
    if shown and node["folder"] == str(shown):
        head.append("  ◀ this model", "bold green")
    facts = Table.grid(padding=(0, 2))
    facts.add_column(no_wrap=True, style="dim")
    facts.add_column(overflow="fold")
    for name, text in _facts(node):
        facts.add_row(name, text)
    return Group(head, facts) if facts.row_count else Group(head)


def _facts(node: Record) -> Iterator[tuple[str, Text]]:
    if "type" in node:
        yield "trained", Text(node["adapter"]["words"])
        yield from _material(node)
        yield "steps", Text(_steps(node["metrics"]))
        if measured := "  ".join(_measured(node["metrics"], node["type"])):
            yield "came to", Text(measured)
    for name, result in node["evals"].items():
        yield name, _score(result)


def _material(node: Record) -> Iterator[tuple[str, Text]]:
    """Rows and graders, each with the beginning of its hash."""
    stage = node["recipe"]["stage"]
    for place, digest in node["data"].items():
        field = place.removeprefix(f"stages.{node['name']}.")
        found = at(stage, *field.split("."))
        names = [_called(source) for source in (found if isinstance(found, list) else [found])]
        yield field.partition(".")[0], Text.assemble(", ".join(names), (f"  {digest[:SHORT]}", "dim"))
    for place, version in node["graders"].items():
        field = place.removeprefix(f"stages.{node['name']}").lstrip(".")
        kind = at(stage, "grader", "type") if not field else None
        yield "grader", Text.assemble(str(kind or f"of {field}"), (f"  {version[:SHORT]}", "dim"))
    if env := at(stage, "env", "type"):
        yield "environment", Text(str(env))


def _called(source: Any) -> str:
    """A file's or data set's name, short."""
    path = at(source, "path")
    if path:
        return Path(str(path)).name if Path(str(path)).suffix else str(path)
    return str(at(source, "generator") or at(source, "type") or "rows")


def _steps(metrics: Record) -> str:
    """`40 of 60, 12.4 k tokens trained`."""
    step, steps = metrics.get("step"), metrics.get("steps")
    done = f"{step}" if step == steps else f"{step} of {steps}"
    made = [f"{count(number)} tokens {kind}" for kind, number in (metrics.get("tokens") or {}).items() if number]
    return ", ".join([done, *made])


def _measured(metrics: Record, kind: str) -> Iterator[str]:
    for name, place in MEASURED[kind == "rft" :]:  # the loss of rft says nothing of progress
        value = finite(metrics, *place.split("."))
        if value is not None:
            yield f"{name} {show(value, 'share') if place in SHARES else plain(value)}"


def _score(result: Record) -> Text:
    """`45.1% [40.2, 50.0]  +12.3 points [8.1, 16.5]`; bold where the interval of the change is clear of 0."""
    text = Text(show(finite(result, "score"), "share"), "bold")
    if own := span(result, "ci95"):
        text.append(f" [{own.low * 100:.1f}, {own.high * 100:.1f}]", "not bold")
    change, delta = span(result, "vs_previous", "ci95"), finite(result, "vs_previous", "delta")
    if change and delta is not None:
        clear = "green" if change.low > 0 else "red" if change.high < 0 else "not bold"
        text.append(f"  {points(delta)} points [{points(change.low)}, {points(change.high)}]", clear)
    return text
