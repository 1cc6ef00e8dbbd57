"""The site can be built: every link leads somewhere, and every page can be reached."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.rl import advantages

ROOT = Path(__file__).parent.parent
FORMULAS = {
    "normalized": advantages.group_normalized,
    "centered": advantages.group_centered,
    "leave_one_out": advantages.leave_one_out,
}


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-d", str(tmp_path / "trees")]
    built = subprocess.run([*command, ".", str(tmp_path / "site")], cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    first = (tmp_path / "site/index.html").read_text()
    assert (tmp_path / "site" / re.findall(r"url=([^\"]+)", first)[0]).is_file()


@pytest.mark.parametrize("kind", FORMULAS)
def test_the_advantages_that_the_concept_page_shows_are_those_of_the_code(kind: str) -> None:
    page = (ROOT / "docs/concepts/advantages.md").read_text()
    row = next(line for line in page.splitlines() if line.startswith(f"| `{kind}`"))
    for rewards, cell in zip(([1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]), row.split("|")[3:5], strict=True):
        shown = [float(number.replace("−", "-")) for number in cell.split(", ")]
        found = FORMULAS[kind](rewards)
        assert found and all(math.isclose(a, b, abs_tol=0.006) for a, b in zip(shown, found, strict=True)), (
            shown,
            found,
        )
