"""The figures of studies/tasks.json as Markdown tables. Pure: from JSON to text."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.tables import table

Document = dict[str, Any]
LABELS = {"base": "base", "sft": "SFT", "rft": "RFT"}
PARTIAL = ("customer_style", "function_synthesis", "invoice_json", "medical_coding", "tax_brackets")
"""Tasks whose graders give partial credit, so that the mean score says more than the share of right answers."""


def index(results: Document) -> str:
    """A row a recipe."""
    rows = []
    for name, pooled in results["pooled"].items():
        folder = name.partition("-")[0]
        kinds = ("accuracy", "score") if name in PARTIAL else ("accuracy",)
        for kind in kinds:
            levels = [_percent(pooled[kind][model]["mean"]) if model in pooled[kind] else "" for model in LABELS]
            gains = [
                _points(pooled["gained"][model][kind]) if model in pooled["gained"] else "" for model in ("sft", "rft")
            ]
            first = kind == "accuracy"
            link = f"[{name}](../examples/tasks/{folder}/README.md)" if first else ""
            told = [str(pooled["n"]), str(pooled["seeds"])] if first else ["", ""]
            rows.append(
                [
                    link,
                    "right" if first else "mean score",
                    *told,
                    *levels,
                    *gains,
                    _seconds(results, name) if first else "",
                ]
            )
    heads = ["task", "", "n", "seeds", "base", "SFT", "RFT", "SFT − base", "RFT − SFT", "seconds a run"]
    return table(heads, rows)


def one(name: str, results: Document) -> str:
    """A recipe's models, a row each, and under them what the figures rest on."""
    if name not in results["pooled"]:
        return "Not measured yet."
    pooled = results["pooled"][name]
    rows = []
    for model, right in pooled["accuracy"].items():
        gained = pooled["gained"].get(model)
        cells = [LABELS[model], _with_interval(right), _points(gained["accuracy"]) if gained else ""]
        if name in PARTIAL:
            cells += [_with_interval(pooled["score"][model]), _points(gained["score"]) if gained else ""]
        rows.append([*cells, _in_form(results["runs"][name], model)])
    heads = ["model", "right", "change", *(["mean score", "change"] if name in PARTIAL else []), "in form"]
    return f"{table(heads, rows)}\n\n{_rests_on(results, name)}"


def worked(results: Document) -> str:
    """Arithmetic with and without working: both tables and the difference between them."""
    parts = [f"**{said}**\n\n{one(name, results)}" for name, said in TWINS.items()]
    if gaps := results.get("worked_minus_alone"):
        said = "; ".join(f"{LABELS[model]} {_points(gaps[model])}" for model in LABELS if model in gaps)
        parts.append(f"Worked − alone on the same problems, in points: {said}.")
    return "\n\n".join(parts)


TWINS = {"arithmetic-alone": "The answer alone", "arithmetic-worked": "Steps, then the answer"}


def pages(names: list[str]) -> dict[str, dict[str, Any]]:
    """For docs/tables.py: the tables of each task's README and of the index."""
    source = "studies/tasks.json"
    readmes = {
        f"examples/tasks/{name}/README.md": {
            "results": (source, worked if name == "arithmetic" else partial(one, name))
        }
        for name in names
    }
    return {"docs/tasks.md": {"tasks": (source, index)}, **readmes}


def _rests_on(results: Document, name: str) -> str:
    runs, pooled = results["runs"][name], results["pooled"][name]
    seeds = ", ".join(runs)
    said = (
        f"seeds {seeds}; 95 % intervals over items and seeds"
        if len(runs) > 1
        else f"1 seed ({seeds}); intervals over items only"
    )
    threads = max(run["threads"] for run in runs.values())
    loads = [run["load_average"] for run in runs.values()]
    return (
        f"{pooled['n']} held-out problems, greedy; {said}. {_seconds(results, name)} seconds a run, threads {threads}, "
        f"on a machine in use by others (load average at the start {_range(loads)})."
    )


def _seconds(results: Document, name: str) -> str:
    return _range([run["seconds"] for run in results["runs"][name].values()], digits=0)


def _range(values: list[float], digits: int = 1) -> str:
    low, high = (f"{value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low}–{high}"


def _in_form(runs: Document, model: str) -> str:
    shares = [run["in_form"][model] for run in runs.values()]
    return "" if None in shares else _percent(sum(shares) / len(shares))


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _with_interval(level: Document) -> str:
    low, high = level["ci95"]
    return f"{_percent(level['mean'])} [{100 * low:.1f}, {100 * high:.1f}]"


def _points(difference: Document) -> str:
    low, high = difference["ci95"]
    return f"{100 * difference['delta']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"
