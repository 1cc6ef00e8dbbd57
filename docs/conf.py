"""The site, built by Sphinx from the Markdown pages: `make docs` writes it to build/docs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

project = "sharpen"
html_title = "sharpen"
html_theme = "furo"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["docs/**", "*.md", "bench/README.md", "examples/**/README.md"]
exclude_patterns = ["**/*.py", "**/*.ipynb", "tests", "build", ".venv*"]
myst_heading_anchors = 4  # links to headings work as they do on a forge
html_show_sourcelink = False
html_copy_source = False


def _door(app: Any, error: Exception | None) -> None:
    """The folder opens at its first page."""
    if error is None:
        page = '<!doctype html><meta http-equiv="refresh" content="0; url=docs/index.html"><title>sharpen</title>\n'
        (Path(app.outdir) / "index.html").write_text(page, "utf-8")


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("build-finished", _door)
