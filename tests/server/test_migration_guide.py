"""Every difference that the migration guide names is one that a test has seen."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GUIDE = (ROOT / "docs/migrate-from-openai.md").read_text("utf-8")
ROWS = GUIDE.partition("<!-- differences -->")[2].partition("<!-- end differences -->")[0].strip().splitlines()[2:]


def test_each_row_names_tests_that_exist() -> None:
    assert len(ROWS) > 30
    for row in ROWS:
        named = re.findall(r"`(test_\w+)::(test_\w+)`", row)
        assert named, f"no test holds this to its word: {row}"
        for file, name in named:
            text = (Path(__file__).parent / f"{file}.py").read_text("utf-8")
            assert re.search(rf"^def {name}\(", text, re.MULTILINE), f"{file} has no {name}"


def test_the_line_that_changes_is_one() -> None:
    (line,) = [line for line in GUIDE.splitlines() if "base_url=" in line]
    assert line.startswith("client = OpenAI(")
