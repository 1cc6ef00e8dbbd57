"""The notebooks run from their first cell to their last, and what they show is fit to be read by anybody.

Here they run in short form: the cell tagged `parameters` is followed by one that asks for a step or two, and the model
under the default's name is a tiny random one. What is saved in them comes from the real model.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import pytest
from nbclient import NotebookClient

from sharpen.models.registry import DEFAULT, MARKER
from tests.tiny import tiny_model

FOLDER = Path(__file__).parent.parent / "notebooks"
SHORT: dict[str, dict[str, Any]] = {
    "01_quickstart": {
        "rows": {"labelled": 4, "prompts": 8, "held_out": 3},
        "rft": {"steps": 2, "prompts_per_step": 2, "group_size": 2, "probe": None},
    },
    "02_own_data_own_grader": {
        "labelled": 8,
        "unlabelled": 8,
        "held_out": 4,
        "rft": {"steps": 2, "prompts_per_step": 2, "group_size": 2, "probe": None},
    },
    "03_reading_a_result": {"small": {"labelled": 4, "prompts": 40, "held_out": 3, "steps": 1}},
    "04_custom_rft_loop": {"steps": 2, "group": 2, "topics": ["rain", "bread"]},
}
NAMES = list(SHORT)
PRIVATE = re.compile(r"/(?:root|home|work|tmp|Users)/|localhost|\.venv|File \"|python3\.\d+/")


def notebook(name: str) -> Any:
    return nbformat.reads((FOLDER / f"{name}.ipynb").read_text("utf-8"), as_version=4)  # type: ignore[no-untyped-call]


def outputs(book: Any) -> list[Any]:
    return [output for cell in book.cells if cell.cell_type == "code" for output in cell.outputs]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the default model is a tiny one."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "models" / DEFAULT
    folder.parent.mkdir()
    (tiny_model(folder) / MARKER).write_text("{}")
    return home


def test_every_notebook_is_tested() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == NAMES


LATER = [pytest.param(name, marks=pytest.mark.long) if name[:2] in ("02", "03") else name for name in NAMES]


@pytest.mark.parametrize("name", LATER)
def test_a_notebook_runs_in_short_form(name: str, home: Path, tmp_path: Path) -> None:
    book = notebook(name)
    (place,) = [index for index, cell in enumerate(book.cells) if "parameters" in cell.metadata.get("tags", ())]
    short = "\n".join(f"{key} = {value!r}" for key, value in SHORT[name].items())
    book.cells.insert(place + 1, nbformat.v4.new_code_cell(short))  # type: ignore[no-untyped-call]
    with mock.patch.dict(os.environ, {"SHARPEN_HOME": str(home), "OMP_NUM_THREADS": "1"}):
        NotebookClient(book, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    pictures = [output for output in outputs(book) if "image/svg+xml" in output.get("data", {})]
    assert pictures, "a picture is drawn"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_saved_is_whole_and_names_no_machine(name: str) -> None:
    path, book = FOLDER / f"{name}.ipynb", notebook(name)
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), "run from top to bottom, once"
    assert not [output for output in outputs(book) if output.output_type == "error" or output.get("name") == "stderr"]
    assert [output for output in outputs(book) if "image/svg+xml" in output.get("data", {})], "pictures inside"
    assert path.stat().st_size < 300_000
    shown = json.dumps([dict(output) for output in outputs(book)])
    assert not PRIVATE.search(shown), PRIVATE.findall(shown)
