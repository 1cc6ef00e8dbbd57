"""Write the tables of README.md, bench/README.md, docs/metrics.md and docs/models.md, so that none is typed by hand.

Figures come from committed JSON, the meanings of numbers from `sharpen.reports.meanings`, models from their registry.

python -m docs.tables            # rewrite them
python -m docs.tables --check    # exit 1 when a table does not match what it is made of
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from bench import tables
from bench.tables import table
from docs import errors
from sharpen.models.bases import BASES, Base
from sharpen.models.fits import METHODS, needs
from sharpen.reports.meaning import Meaning
from sharpen.reports.meanings import GROUPS
from sharpen.server.settings import Limits, Settings
from studies import tasks_report

ROOT = Path(__file__).resolve().parent.parent


def quickstart_seeds(results: dict[str, Any]) -> str:
    """A row a seed: accuracies and paired differences."""
    rows = []
    for seed, run in results["seeds"].items():
        sft, rft = (stage["evals"]["held_out"] for stage in run["stages"])
        scores = [f"{100 * result['score']:.1f} %" for result in (run["base"]["evals"]["held_out"], sft, rft)]
        rows.append([seed, *scores, _points(sft["vs_previous"]), _points(rft["vs_previous"])])
    pooled = results["pooled"]
    rows.append(["all", "", "", "", _points(pooled["sft_minus_base"]), _points(pooled["rft_minus_sft"])])
    return table(["seed", "base", "SFT", "RFT", "SFT − base", "RFT − SFT"], rows)


def meanings(group: str) -> str:
    """A row a number: what it is, its healthy range, and what to do outside of it."""
    return table(["number", "meaning", "healthy", "else"], [_meaning(meaning) for meaning in GROUPS[group].values()])


def _meaning(meaning: Meaning) -> list[str]:
    keys = ", ".join(f"`{key}`" for key in meaning.metrics)
    name = f"{meaning.name}<br>{keys}" if keys else meaning.name
    healthy = f"{meaning.healthy}. Source: {meaning.source}" if meaning.source else meaning.healthy
    return [name, meaning.text, healthy, meaning.remedy]


def models() -> str:
    """A row a model of the registry, with the memory that training takes in bfloat16."""
    columns = ["name", "on the hub", "licence", "parameters", "context", "tools", "thinks"]
    methods = [f"{method.title}, GB" for method in METHODS]
    return table([*columns, *methods], [_model(base) for base in BASES.values()])


def _model(base: Base) -> list[str]:
    gate = {True: ", gated", None: ", perhaps gated", False: ""}[base.gated]
    parameters, context = f"{base.parameters / 1e9:.2f} B", f"{base.context // 1024}k"
    facts = [f"`{base.alias}`", base.hub, base.licence + gate, parameters, context]
    needed = [needs(base.shape, method, narrow=True).total / 1e9 for method in METHODS]
    words = ["yes" if has else "" for has in (base.tools, base.reasons)]
    return [*facts, *words, *(f"{size:.0f}" if size >= 9.95 else f"{size:.1f}" for size in needed)]


def settings() -> str:
    """A row a setting of the server."""
    rows = [_setting(name, field) for name, field in Settings.model_fields.items() if name != "limits"]
    rows += [_setting(f"limits.{name}", field) for name, field in Limits.model_fields.items()]
    return table(["setting", "meaning", "default"], rows)


def _setting(name: str, field: FieldInfo) -> list[str]:
    default = field.get_default(call_default_factory=True)
    shown = "the machine's" if name == "cores" else "none" if default in ((), {}) else json.dumps(default, default=str)
    return [f"`{name}`", field.description or "", shown.strip('"')]


Make = Callable[[Any], str]
PAGES: dict[str, dict[str, tuple[str, Make]]] = {
    "README.md": {
        "quickstart_seeds": ("studies/quickstart_seeds.json", quickstart_seeds),
        "grpo_step": ("bench/grpo_step.json", tables.grpo_short),
    },
    "bench/README.md": {
        "grpo_step": ("bench/grpo_step.json", tables.steps),
        "grpo_step_no_matrix_units": ("bench/grpo_step_no_matrix_units.json", tables.steps),
        "sampler": ("bench/sampler.json", tables.sampler),
        "vllm": ("bench/peer_vllm.json", tables.other_sampler),
        "ctranslate2": ("bench/peer_ctranslate2.json", tables.other_sampler),
        "sft": ("bench/sft.json", tables.steps),
        "dpo": ("bench/dpo.json", tables.steps),
        "long_context": ("bench/long_context.json", tables.steps),
        "cost_ratio": ("bench/cost_ratio.json", tables.cost_ratio),
        "profile": ("bench/profile.json", tables.profile),
        "gains": ("bench/gains.json", tables.gains),
        "learning": ("bench/learning.json", tables.learning),
        "sandbox": ("bench/sandbox.json", tables.sandbox),
        "constrained": ("bench/constrained.json", tables.constrained),
        "server": ("bench/server.json", tables.server),
    },
    "docs/errors.md": {"errors": ("", lambda _: errors.index())},
    "docs/models.md": {"models": ("", lambda _: models())},
    "docs/server.md": {"settings": ("", lambda _: settings())},
    "docs/metrics.md": {
        "training": ("", lambda _: meanings("Training")),
        "results": ("", lambda _: meanings("Results")),
        "trial": ("", lambda _: meanings("The trial before a stage")),
        "cost": ("", lambda _: meanings("Cost")),
    },
    **tasks_report.pages([path.parent.name for path in sorted(ROOT.glob("examples/tasks/*/data.py"))]),
}
"""The tables of each page: the file of figures (none: it needs no file), and what makes a table of it."""


def filled(page: str, root: Path = ROOT) -> str:
    """The page with every `<!-- table: NAME -->` block made anew; what has no file yet says so."""
    text = (root / page).read_text()
    for name, (path, make) in PAGES[page].items():
        source = root / path
        figures = json.loads(source.read_text()) if source.is_file() else None
        made = make(figures) if figures is not None or not path else "Not measured yet."
        block = f"<!-- table: {name} -->\n{made}\n<!-- end -->"
        around = re.split(rf"<!-- table: {name} -->\n.*?<!-- end -->", text, flags=re.DOTALL)
        if len(around) != 2:
            raise SystemExit(f"{page} has {len(around) - 1} blocks for the table {name}; there must be one")
        text = block.join(around)
    return text


def _points(difference: dict[str, Any]) -> str:
    low, high = difference["ci95"]
    return f"{100 * difference['delta']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    stale = [page for page in PAGES if filled(page) != (ROOT / page).read_text()]
    if "--check" in sys.argv:
        sys.exit(f"{', '.join(stale)} differ from what they are made of: run python -m docs.tables" if stale else 0)
    for page in stale:
        (ROOT / page).write_text(filled(page))
