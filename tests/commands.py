"""The commands that the documents show, and a small world in which they run as written."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from sharpen.cli.main import main
from sharpen.models.registry import MARKER, cached
from tests.export.worlds import byte_model
from tests.runs.lab import labelled, write_rows

BLOCK = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.DOTALL | re.MULTILINE)

RECIPE: dict[str, Any] = {
    "model": "smollm2-135m-instruct",
    "threads": 1,
    "stages": [
        {"type": "sft", "data": {"path": "labelled.jsonl"}, "epochs": 1, "batch_size": 8},
        {
            "type": "rft",
            "data": {"path": "problems.jsonl"},
            "grader": {"type": "regex", "pattern": "[a-m]"},
            "prompts_per_step": 2,
            "group_size": 4,
            "steps": 2,
            "save_every": 1,
            "sampling": {"max_tokens": 4},
        },
    ],
    "evals": [
        {
            "name": "held_out",
            "data": {"path": "test.jsonl"},
            "grader": {"type": "regex", "pattern": "[a-m]"},
            "max_tokens": 4,
        }
    ],
}
"""Small, and with a grader to which a random model gives something to learn from."""

RUNS = ("first", "second")
"""The runs that are there already."""


def blocks(page: Path) -> list[list[str]]:
    """The lines of each shell block of a page, those that go on joined, without remarks."""
    found = []
    for text in BLOCK.findall(page.read_text("utf-8")):
        lines = text.replace("\\\n", " ").splitlines()
        found.append([line for line in (re.sub(r"(^|\s)#.*", "", line).strip() for line in lines) if line])
    return found


def build(folder: Path) -> None:
    """The files that the documents name. Needs SHARPEN_HOME to be the folder's `home`."""
    model = byte_model(cached("smollm2-135m-instruct"), num_hidden_layers=1)
    (model / MARKER).write_text("{}")
    write_rows(folder / "labelled.jsonl", labelled("count", 24))
    write_rows(folder / "pairs.jsonl", [{"prompt": f"pairs {n}", "chosen": "yes", "rejected": "no"} for n in range(8)])
    for example in ("dpo", "qlora", "chain"):
        _shorter(Path(__file__).parent.parent / "examples" / example, folder / "examples" / example)
    for name, count in (("problems", 12), ("test", 8), ("rows", 12), ("prompts", 4)):
        rows = [{"prompt": f"{name} {number}", "answer": str(number)} for number in range(count)]
        write_rows(folder / f"{name}.jsonl", rows)
    colours = [("is it hot?", "warm"), ("is it icy?", "cold"), ("is it mild?", "fair")]
    lines = [f"day {number}: {colours[number % 3][0]},{colours[number % 3][1]}" for number in range(120)]
    (folder / "my.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))
    reward = {"type": "reward_model", "data": {"path": "pairs.jsonl"}, "batch_size": 4}
    (folder / "reward.yaml").write_text(json.dumps({**RECIPE, "stages": [reward], "evals": []}))
    (folder / "grader.yaml").write_text(json.dumps({"type": "string_check", "operation": "eq"}))
    samples = [{"output_text": str(number % 9), "human": int(number < 9)} for number in range(12)]
    write_rows(folder / "samples.jsonl", samples)
    for path in (Path(__file__).parent / "translate/configs").iterdir():
        shutil.copy(path, folder)
    for steps, name in enumerate(RUNS, start=2):
        with inside(folder):
            assert call(["run", "recipe.yaml", "--out", f"runs/{name}", "--set", f"stages.rft.steps={steps}"]) == 0


def _shorter(example: Path, folder: Path) -> None:
    """An example's folder, with the first eight rows of each of its files and generators, and a single step of RFT,
    whose grader a random model can please."""
    folder.mkdir(parents=True)
    for path in example.glob("*.*"):
        lines = path.read_text("utf-8").splitlines(keepends=True)
        (folder / path.name).write_text("".join(lines[:8] if path.suffix == ".jsonl" else lines))
    recipe = yaml.safe_load((example / "recipe.yaml").read_text("utf-8"))
    for part in (*recipe["stages"], *recipe["evals"]):
        if "count" in part["data"]:
            part["data"] = {**part["data"], "count": 8}
        if part.get("type") == "rft":
            part |= {"steps": 1, "prompts_per_step": 2, "group_size": 4}
            part["grader"] = {"type": "regex", "pattern": "[a-m]"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """With `folder` as the working directory."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(arguments: Sequence[str], said: str = "") -> int:
    """The exit code of `sharpen` with these arguments, in this process and with `said` on standard input."""
    typed = Path("said.txt")
    typed.write_text(said)
    with typed.open() as given:
        before, sys.stdin = sys.stdin, given
        try:
            return main(arguments)
        except SystemExit as end:
            return int(end.code or 0)
        finally:
            sys.stdin = before


def perform(command: str) -> int:
    """Run a line as a shell would, as far as documents need it: `>`, `|` and `cd` are known."""
    words = shlex.split(command)
    if words[0] == "cd":
        os.chdir(words[1])
        return 0
    if "|" in words:
        made, _, command = command.partition("|")
        echo, words = shlex.split(made), shlex.split(command)
        assert echo[0] == "echo", command
        return call(words[1:], f"{' '.join(echo[1:])}\n")
    assert words[0] == "sharpen", command
    target: Any = sys.stdout
    if ">" in words:
        place = words.index(">")
        target, words = Path(words[place + 1]).open("w"), words[:place]
    if "--out" in words:
        _clear(Path(words[words.index("--out") + 1]))
    with contextlib.redirect_stdout(target):
        return call(words[1:])


def _clear(out: Path) -> None:
    """What a page makes is not there before."""
    if out.is_dir():
        shutil.rmtree(out)
    else:
        out.unlink(missing_ok=True)
