"""Write the tables of figures in README.md and bench/README.md from committed JSON, so that none is typed by hand.

python -m docs.tables            # rewrite both
python -m docs.tables --check    # exit 1 when a table does not match its JSON
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench import tables
from bench.tables import table

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
        "long_context": ("bench/long_context.json", tables.steps),
        "cost_ratio": ("bench/cost_ratio.json", tables.cost_ratio),
        "profile": ("bench/profile.json", tables.profile),
        "gains": ("bench/gains.json", tables.gains),
        "learning": ("bench/learning.json", tables.learning),
        "sandbox": ("bench/sandbox.json", tables.sandbox),
        "constrained": ("bench/constrained.json", tables.constrained),
    },
}
"""The tables of each page: the file of figures, and what makes a table of it."""


def filled(page: str, root: Path = ROOT) -> str:
    """The page with every `<!-- table: NAME -->` block made anew; what has no file yet says so."""
    text = (root / page).read_text()
    for name, (path, make) in PAGES[page].items():
        source = root / path
        made = make(json.loads(source.read_text())) if source.exists() else "Not measured yet."
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
        sys.exit(f"{', '.join(stale)} differ from their JSON: run python -m docs.tables" if stale else 0)
    for page in stale:
        (ROOT / page).write_text(filled(page))
