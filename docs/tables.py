"""Write the README's tables of figures from committed JSON, so that none is typed by hand.

python docs/tables.py            # rewrite README.md
python docs/tables.py --check    # exit 1 when a table does not match its JSON
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"


def quickstart_seeds(results: dict[str, Any]) -> str:
    """A row a seed: accuracies and paired differences."""
    lines = ["| seed | base | SFT | RFT | SFT − base | RFT − SFT |", "|---|---|---|---|---|---|"]
    for seed, run in results["seeds"].items():
        sft, rft = (stage["evals"]["held_out"] for stage in run["stages"])
        scores = [f"{100 * result['score']:.1f} %" for result in (run["base"]["evals"]["held_out"], sft, rft)]
        lines.append(_row(seed, *scores, _points(sft["vs_previous"]), _points(rft["vs_previous"])))
    pooled = results["pooled"]
    lines.append(_row("all", "", "", "", _points(pooled["sft_minus_base"]), _points(pooled["rft_minus_sft"])))
    return "\n".join(lines)


def grpo_step(result: dict[str, Any]) -> str:
    """Ours beside the peer: seconds, tokens, memory."""
    lines = ["| | seconds a step (median) | completion tokens a step | peak memory |", "|---|---|---|---|"]
    for name, side in (("sharpen", result["ours"]), ("TRL 1.16, its best setting", result["peer"])):
        tokens = side["tokens_generated_per_step"]
        memory = side["peak_memory_bytes"]["proportional_tree"] / 1e9
        lines.append(_row(name, f"{side['median']:.1f}", f"{sum(tokens) / len(tokens):.0f}", f"{memory:.1f} GB"))
    lines.append(_row("ratio", f"**{result['ratio']:.1f}×**", "", ""))
    return "\n".join(lines)


TABLES: dict[str, tuple[Path, Callable[[dict[str, Any]], str]]] = {
    "quickstart_seeds": (ROOT / "studies" / "quickstart_seeds.json", quickstart_seeds),
    "grpo_step": (ROOT / "bench" / "grpo_step.json", grpo_step),
}


def filled(text: str) -> str:
    """The text with every `<!-- table: NAME -->` block made anew."""
    for name, (path, make) in TABLES.items():
        block = f"<!-- table: {name} -->\n{make(json.loads(path.read_text()))}\n<!-- end -->"
        text, found = re.subn(rf"<!-- table: {name} -->\n.*?<!-- end -->", lambda _, b=block: b, text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"README.md has {found} blocks for the table {name}; there must be one")
    return text


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _points(difference: dict[str, Any]) -> str:
    low, high = difference["ci95"]
    return f"{100 * difference['delta']:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


if __name__ == "__main__":
    present = README.read_text()
    if "--check" in sys.argv:
        sys.exit("README.md differs from its JSON: run python docs/tables.py" if filled(present) != present else 0)
    README.write_text(filled(present))
