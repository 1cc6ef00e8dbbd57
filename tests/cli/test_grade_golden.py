"""`sharpen grade` on the golden cases of all graders: the command, from files to JSON, says what their sources say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from sharpen.cli.main import main
from tests.graders.test_golden import CASES, ROUNDED

BY_GRADER: dict[str, list[dict[str, Any]]] = {}
for one in CASES:
    BY_GRADER.setdefault(json.dumps(one["grader"], sort_keys=True), []).append(one)


def write(path: Path, lines: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def agrees(trial: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    fault = trial["fault"]["kind"] if trial["fault"] else ""
    same = trial["score"] == pytest.approx(expected["score"], abs=ROUNDED)
    metrics = {name: trial["metrics"].get(name) for name in expected.get("metrics", {})}
    return bool(same and fault == expected["fault"] and metrics == pytest.approx(expected.get("metrics", {})))


@pytest.mark.long
def test_every_golden_case_comes_out_of_the_command_as_its_source_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(CASES) >= 200
    for number, (grader, cases) in enumerate(BY_GRADER.items()):
        rows = [{"id": f"r{place}", "prompt": f"p{place}", **case["item"]} for place, case in enumerate(cases)]
        texts = [{"id": f"r{place}", "text": case["output"]} for place, case in enumerate(cases)]
        data = write(tmp_path / f"rows-{number}.jsonl", rows)
        samples = write(tmp_path / f"samples-{number}.jsonl", texts)
        assert main(["grade", "--json", "--grader", grader, "--data", data, "--samples", samples]) == 0, grader
        trials = json.loads(capsys.readouterr().out)["samples"]["trials"]
        assert len(trials) == len(cases)
        wrong = [
            (case["output"], case["expected"], trial)
            for case, trial in zip(cases, trials, strict=True)
            if not agrees(trial, case["expected"])
        ]
        assert not wrong, (grader, wrong[:3])
