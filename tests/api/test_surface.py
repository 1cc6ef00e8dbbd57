"""The public surface: a change of a name, a parameter or a default is a change of this file too."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import sharpen as sh

ROOT = Path(__file__).parent.parent.parent

SURFACE = """
DPO(data, **settings)
RFT(data, *, grader=None, **settings)
SFT(data, **settings)
Curves(metrics)
Curves.save(path)
Eval(data, *, name='held_out', grader=None, **settings)
Observer()
Observer.event(event)
Observer.metrics(line)
Observer.progress(what, done, total)
Observer.rollout(line)
Recipe(*, model, stages=(), evals=(), **settings)
Run(path)
Run.curves(stage=None)
Run.evals(name=None, model=None, *, as_frame=True)
Run.generate(prompts, *, max_tokens=128, temperature=0.0, seed=0)
Run.metrics
Run.report()
Run.rollouts(stage=None, step=None, *, as_frame=True)
Run.summary
Run.verdict
evaluate(model, held_out, *, out=None, seed=0, observer=None)
grade(grader, data, *, samples=None, model='', k=8, temperature=1.0, max_tokens=128, gold='', red_team=False, \
threshold=None, labels='', passing=None, seed=0, observer=None)
open_run(path)
resume(path, *, set=(), graders=None, observer=None)
run(recipe, *, out=None, observer=None)
"""

SCRIPT = """
from typing import Any

import sharpen as sh


def graded(sample: dict[str, Any], item: dict[str, Any]) -> float:
    return float(item["answer"] in sample["output_text"])


class Watch(sh.Observer):
    def metrics(self, line: Any) -> None:
        print(line["step"])


rows = [{"prompt": "1 + 1", "completion": "2"}]
held_out = sh.Eval([{"prompt": "2 + 2", "answer": "4"}], grader=graded)
pairs = [{"prompt": "1 + 1", "chosen": "2", "rejected": "3"}]
stages = [sh.SFT(rows), sh.DPO(pairs, loss="ipo"), sh.RFT("rows.csv", grader=graded)]
recipe = sh.Recipe(model="m", stages=stages, evals=[held_out], seed=1)
run = sh.run(recipe, out="runs/x", observer=Watch())
run = sh.resume("runs/x", set=["stages.rft.steps=2"], graders={"rft": graded})
verdict: str = sh.open_run("runs/x").verdict
answers: list[str] = run.generate(["3 + 3", [{"role": "user", "content": "4 + 4"}]])
tries: list[dict[str, Any]] = run.rollouts("rft", as_frame=False)
right: dict[str, Any] = sh.evaluate(run, held_out)
tried: dict[str, Any] = sh.grade(graded, rows, samples=["2", {"text": "3"}])
run.curves().save("curves.svg")
"""
WRONG = [
    ("sh.RFT(rows, grader=3)", "arg-type"),
    ("sh.Recipe(stages=[])", "call-arg"),
    ("sh.run(recipe, folder='x')", "call-arg"),
    ("sh.open_run('x').verdicts", "attr-defined"),
]
"""What a type checker says of mistakes: the types are there, and are not Any."""


def signature(name: str, member: object) -> str:
    """A function as it is called."""
    if not callable(member):
        return name
    own = [p for p in inspect.signature(member).parameters.values() if p.name != "self"]
    plain = [p.replace(annotation=inspect.Parameter.empty) for p in own]
    return name + str(inspect.Signature(plain))


def public() -> list[str]:
    found = []
    for name in sh.__all__:
        member = getattr(sh, name)
        found.append(signature(name, member))
        if isinstance(member, type):
            inner = {key: value for key, value in vars(member).items() if not key.startswith("_")}
            found += [signature(f"{name}.{key}", inner[key]) for key in sorted(inner)]
    return found


def test_the_public_surface_is_as_it_was() -> None:
    assert "\n".join(public()) == SURFACE.strip()


def test_every_public_name_says_what_it_does_and_stands_in_the_docs() -> None:
    page = (ROOT / "docs/python.md").read_text()
    for line in public():
        name = re.match(r"[\w.]+", line)[0]  # type: ignore[index]
        owner, _, attribute = name.partition(".")
        member = getattr(sh, owner)
        assert inspect.getdoc(getattr(member, attribute) if attribute else member), name
        assert re.search(rf"[`.]{attribute or owner}\b", page), name


def test_the_code_on_the_page_is_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes are made for real; what would train or grade is only called as it may be."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.csv").write_text("question,reply,prompt,completion,answer\n1+1,2,1+1,2,2\n")
    called: list[str] = []

    def only_bound(name: str) -> Any:
        own = inspect.signature(getattr(sh, name))

        def call(*values: Any, **named: Any) -> dict[str, Any]:
            own.bind(*values, **named)
            called.append(name)
            return {"gold": {"share": 1.0}, "samples": {"trials": []}, "red_team": []}

        return call

    for name in ("run", "resume", "grade"):
        monkeypatch.setattr(sh, name, only_bound(name), raising=False)
    code: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), flags=re.DOTALL):
        exec(block, code)
    assert called == ["run", "resume", "grade"] and isinstance(code["recipe"], sh.Recipe)


def test_a_script_of_a_user_passes_a_strict_type_checker_and_mistakes_do_not(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "".join(f"{line}\n" for line, _ in WRONG))
    done = subprocess.run([sys.executable, "-m", "mypy", str(script)], capture_output=True, text=True, cwd=ROOT)
    told = re.findall(r"script\.py:(\d+): error: .*\[([\w-]+)\]", done.stdout)
    first = SCRIPT.count("\n") + 1
    assert told == [(str(first + place), code) for place, (_, code) in enumerate(WRONG)], done.stdout + done.stderr
