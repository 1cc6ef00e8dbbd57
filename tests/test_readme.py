"""What the documents say is so: tables come from their JSON, links lead somewhere, commands exist."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from docs import tables
from sharpen.cli.main import COMMANDS

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    page for place in ("*.md", "docs/**/*.md", "bench/*.md", "examples/**/*.md") for page in ROOT.glob(place)
)


@pytest.mark.parametrize("page", tables.PAGES)
def test_the_tables_of_a_page_are_those_of_the_committed_results(page: str) -> None:
    assert tables.filled(page) == (ROOT / page).read_text(), "run python -m docs.tables"


def test_a_changed_figure_changes_the_page_and_a_missing_one_says_so(tmp_path: Path) -> None:
    page = "bench/README.md"
    shutil.copytree(ROOT / "bench", tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    figures = tmp_path / "bench/grpo_step.json"
    document = json.loads(figures.read_text())
    document["ours"]["full"]["median"] = 98.7654
    figures.write_text(json.dumps(document))
    assert "98.77" in tables.filled(page, tmp_path)
    figures.unlink()
    block = tables.filled(page, tmp_path).partition("<!-- table: grpo_step -->\n")[2]
    assert block.startswith("Not measured yet.")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()) if "://" not in target]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_the_commands_that_the_readme_shows_exist() -> None:
    shown = set(re.findall(r"^\s*sharpen (\w+)", (ROOT / "README.md").read_text(), flags=re.MULTILINE))
    assert shown and shown <= {command.name for command in COMMANDS}
