"""The README's lines run where people type them: as a script, piped, and pasted into the interpreter.

`tests/test_notebooks.py` runs functions of a notebook's cells in its running event loop.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sharpen.models.registry import DEFAULT, MARKER
from tests.tiny import tiny_model

README = Path(__file__).parent.parent.parent / "README.md"
ROWS = """rows = [{"prompt": f"count {n}", "completion": str(n)} for n in range(4)]
prompts = [{"prompt": f"say {n}", "answer": str(n)} for n in range(4)]
"""
SMALL = 'graded, probe=None, steps=1, prompts_per_step=2, group_size=2, sampling={"max_tokens": 8})'
SHOW = "print(sorted(run.summary), len(run.metrics))\n"


def lines() -> str:
    """The README's own lines, with rows, and a stage that is done in seconds."""
    (block,) = re.findall(r"```python\n(import sharpen.*?)```", README.read_text(), flags=re.DOTALL)
    assert block.count("graded)") == 1
    return f"{ROWS}{block.replace('graded)', SMALL)}{SHOW}"


@pytest.mark.parametrize(
    "how",
    [["-i"], pytest.param(["script.py"], marks=pytest.mark.long), pytest.param(["-"], marks=pytest.mark.long)],
    ids=lambda how: how[0],
)
def test_the_ten_lines_run_in_a_plain_interpreter(how: list[str], tmp_path: Path) -> None:
    model = tmp_path / "home/models" / DEFAULT
    model.parent.mkdir(parents=True)
    (tiny_model(model, num_hidden_layers=1) / MARKER).write_text("{}")
    (tmp_path / "script.py").write_text(lines())
    done = subprocess.run(
        [sys.executable, *how],
        input=None if how == ["script.py"] else lines(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "SHARPEN_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"},
        timeout=600,
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "['base', 'cost'" in done.stdout and done.stdout.rstrip().endswith(" 2"), done.stdout
    assert len(list(tmp_path.glob("runs/*/models/rft/model.safetensors"))) == 1
