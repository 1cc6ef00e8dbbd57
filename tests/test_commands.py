"""Every command in README, docs and `--help` is run, or is known not to be and why."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from sharpen.cli.main import COMMANDS, parser
from tests import commands

ROOT = Path(__file__).parent.parent
PAGES = [
    page
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/README.md")])
    if commands.blocks(page)
]

ELSEWHERE = {
    "sharpen quickstart": "minutes on the real model; tests/test_real_model.py runs it in short",
    "sharpen run examples/tasks/": "minutes; tests/test_tasks.py runs them in short",
    "sharpen grade --grader examples/tasks/": "needs the task's rows; tests/test_tasks.py grades them",
    "sharpen report runs/classification": "after the run before it",
    "sharpen compare runs/alone": "after the runs before it",
    "sharpen models pull": "needs the network; tests/models/test_pull.py",
    "sharpen run --resume runs/first --set stages.rft.grader.graders": "needs a judge; tests/test_judged_learning.py",
    "sharpen serve": "a server, which goes on; tests/server",
    "sharpen keys revoke": "needs the id of a key; tests/cli/test_keys.py",
}
"""Commands that begin so are only read here."""

OTHERS = ("make", "python", "python3", "pip", "pytest", "jupyter", "export", "apt-get", "OMP_NUM_THREADS=2")
"""Programs that are not ours."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("world")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHARPEN_HOME", str(folder / "home"))
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("COLUMNS", "120")
        commands.build(folder)
        yield folder


@pytest.fixture
def world(home: Path, tmp_path: Path) -> Iterator[Path]:
    """Files and runs, this test's own."""
    folder = tmp_path / "world"
    shutil.copytree(home, folder, ignore=shutil.ignore_patterns("home"))
    with commands.inside(folder):
        yield folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_run_one_after_the_other(
    page: Path, world: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for line in (line for block in commands.blocks(page) for line in block):
        _run(line, capsys)


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_the_examples_of_a_command_run(name: str, world: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = next(command.examples for command in COMMANDS if command.name == name)
    for line in shown:
        _run(line.replace("\\\n", " "), capsys)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_command_within_a_sentence_is_one_that_the_parser_takes(page: Path) -> None:
    whole = re.sub(commands.BLOCK, "", page.read_text("utf-8"))
    for line in re.findall(r"`sharpen ([a-z][^`]*)`", whole):
        words = shlex.split(line)
        if len(words) > 1 and "..." not in line and "…" not in line:
            parser().parse_args(words)


def _run(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = shlex.split(line)[0]
    if first.rpartition("/")[2] in OTHERS:
        return
    if any(line.startswith(start) for start in ELSEWHERE):
        parser().parse_args(shlex.split(line)[1:])
        return
    capsys.readouterr()
    code = commands.perform(line)
    told = capsys.readouterr()
    assert code == 0, f"{line}\n{told.out}\n{told.err}"
