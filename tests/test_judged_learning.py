"""RFT graded by a rule, a Python program and a judge: it survives the judge's outage, and a kill, to the same bits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from sharpen.client import http
from sharpen.config.load import dump
from sharpen.config.recipe import Recipe
from sharpen.errors import GraderError
from sharpen.runs import statistics
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.client.fake import Behaviour, Fake, Request, by, content_score, judged_by_content, material, raw, reply
from tests.runs.lab import World, bits, differences, events

ROOT = Path(__file__).parent.parent
SOURCE = """
def grade(sample: dict, item: dict) -> float:
    text = sample["output_text"]
    return sum(character.islower() for character in text) / max(1, len(text))
"""
RESAMPLES = 40
FORMULA = "0.2 * vowel + 0.3 * letters + 0.5 * judge"
ASKED = [
    {"role": "system", "content": "You grade short answers."},
    {"role": "user", "content": "How good is {{ sample.output_text }}? It should be {{ item.answer }}."},
]
DOWN = reply("{}", "503 Service Unavailable")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Short waits, and few bootstrap samples."""
    monkeypatch.setattr(http, "FIRST_WAIT", 0.005)
    monkeypatch.setattr(statistics, "RESAMPLES", RESAMPLES)
    yield


def recipe(world: World, server: Fake, **stage: Any) -> Recipe:
    """RFT with all three graders, and an evaluation by the judge alone; the first fault of a grader pauses."""
    judge = {"type": "score_model", "input": ASKED, "model": "judge", "base_url": server.url, "max_concurrent": 2}
    graders = {
        "vowel": {"type": "regex", "pattern": "[aeiou]"},
        "letters": {"type": "python", "source": SOURCE},
        "judge": {**judge, "max_retries": 1},
    }
    multi = {"type": "multi", "graders": graders, "calculate_output": FORMULA}
    return world.recipe(
        world.rft_stage(grader=multi, max_fault_share=0.0, steps=4, **stage), evals=[world.eval_config(grader=judge)]
    )


class Judge(Fake):
    """Scores by content; after `count` answers it does what `then` says, until it is mended."""

    def __init__(self) -> None:
        super().__init__(otherwise=by(self._choose))
        self.answered: list[Request] = []
        self.count = 1_000_000
        self.then: Behaviour = DOWN
        self._answering = threading.Lock()

    def _choose(self, request: Request) -> Behaviour:
        with self._answering:
            if len(self.answered) >= self.count:
                return self.then
            self.answered.append(request)
            return judged_by_content()

    @property
    def questions(self) -> set[str]:
        """Those that were answered."""
        return {json.dumps(request.body) for request in self.answered}

    def breaks(self, count: int, then: Behaviour) -> None:
        """After so many more answers."""
        self.count, self.then = len(self.answered) + count, then

    def mended(self) -> None:
        """From now on it answers again."""
        self.count = 1_000_000
        self.stop()
        self.start()


@dataclass
class Undisturbed:
    """A run whose judge was always there, and without a trial: that changes no bits."""

    run: Path
    requests: list[Request]
    base: int
    """Questions about the base model's answers in the evaluation."""

    @property
    def asked(self) -> int:
        return len(self.requests)

    @cached_property
    def bits(self) -> dict[str, Any]:
        return bits(self.run)


@pytest.fixture(scope="module")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    run = tmp_path_factory.mktemp("judged") / "run"
    counts: list[int] = []

    class Count(Observer):
        def event(self, event: Mapping[str, Any]) -> None:
            if event["event"] == "evaluated":
                counts.append(len(server.requests))

    with Judge() as server, mock.patch.object(statistics, "RESAMPLES", RESAMPLES):
        pipeline.run(recipe(world, server), run, base=world.folder, observer=Count())
    return Undisturbed(run, server.requests, counts[0])


def test_it_trains_by_what_each_of_the_three_says(world: World, undisturbed: Undisturbed) -> None:
    run, requests = undisturbed.run, undisturbed.requests
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "finished"
    (judge,) = (found for name, found in summary["cost"]["judges"].items() if name.startswith("judge@"))
    assert judge == {"requests": len(requests), "tokens": 100 * len(requests), "usd": 0.0}
    sent = {(material(request), request.messages[1]["content"].rsplit(maxsplit=1)[1]) for request in requests}
    trained = 0
    for step in range(1, 5):
        for made in read_lines(run / "rollouts" / "rft" / f"step-{step:05d}.jsonl"):
            text = made["text"]
            scores = {
                "vowel": float(any(letter in "aeiou" for letter in text)),
                "letters": sum(map(str.islower, text)) / max(1, len(text)),
                "judge": content_score(text),
            }
            score = 0.2 * scores["vowel"] + 0.3 * scores["letters"] + 0.5 * scores["judge"]
            answer = chr(97 + int(made["prompt"][-1]["content"].split()[1]))
            assert (text, f"{answer}.") in sent
            assert made["scores"] == pytest.approx({"score": score, **scores})
            trained += made["advantage"] != 0
    assert trained > 12
    before, after = (Path(folder, "model.safetensors").read_bytes() for folder in (world.model, run / "models" / "rft"))
    assert before != after


def refuse(server: Judge) -> Behaviour:
    """No more connections are taken."""
    return lambda connection, request: server.stop()


PROBE = {"prompts": 2}
PLACES = {
    "an evaluation": (None, False, "the grader failed on the held-out item"),
    "training": (None, True, "the grader failed on"),
    "the trial": (PROBE, True, "in the trial before rft, the grader failed on"),
    "training after the trial": (PROBE, False, "the grader failed on"),
}


@pytest.mark.parametrize("where", PLACES)
def test_an_outage_of_the_judge_pauses_the_run_and_it_goes_on_to_the_same_bits(
    world: World, tmp_path: Path, undisturbed: Undisturbed, where: str
) -> None:
    probe, refused, said = PLACES[where]
    base, run = undisturbed.base, tmp_path / "run"
    count = {"an evaluation": 2, "training": base + 9, "the trial": base + 3}.get(where, base + 12 + 9)
    with Judge() as server:
        server.breaks(count, refuse(server) if refused else DOWN)
        with pytest.raises(GraderError, match=f"{said}.*model_grader_server_error"):
            pipeline.run(recipe(world, server, probe=probe), run, base=world.folder)
        paused = events(run)[-1]
        assert paused["event"] == "paused" and ("ConnectError" if refused else "status 503") in paused["cause"]
        assert json.loads((run / "summary.json").read_text())["status"] == "paused"
        with pytest.raises(GraderError):
            pipeline.resume(run)  # it is still away
        assert len(server.answered) == count
        server.mended()
        assert pipeline.resume(run)["status"] == "finished"
    assert not differences(bits(run), undisturbed.bits)
    if not probe:  # which asks some questions twice
        assert len(server.answered) == len(server.questions) == undisturbed.asked


def test_a_run_killed_while_the_judge_answers_asks_nothing_twice_and_ends_with_the_same_bits(
    world: World, tmp_path: Path, undisturbed: Undisturbed
) -> None:
    run = tmp_path / "run"
    children: list[subprocess.Popen[bytes]] = []

    def kill(connection: Any, request: Request) -> None:
        """Once all that was answered stands in the ledger, the run dies while it waits for another answer."""
        ends = time.monotonic() + 10
        while len(read_lines(run / "judges.jsonl")) < server.count and time.monotonic() < ends:
            time.sleep(0.01)
        os.kill(children[0].pid, signal.SIGKILL)
        raw()(connection, request)

    with Judge() as server:
        server.breaks(undisturbed.base + 9, kill)
        (tmp_path / "recipe.yaml").write_text(dump(recipe(world, server)))
        command = [sys.executable, "-m", "sharpen.cli.main", "run", str(tmp_path / "recipe.yaml"), "--out", str(run)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        with (tmp_path / "log").open("wb") as log:
            children.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
            assert children[0].wait(120) == -signal.SIGKILL, (tmp_path / "log").read_text()
        answered = len(read_lines(run / "judges.jsonl"))
        assert answered == server.count == len(server.answered)
        assert 0 < len(read_lines(run / "metrics.jsonl")) < 4
        used = {made["text"] for path in run.glob("rollouts/rft/*") for made in read_lines(path)}
        used |= {line["text"] for line in read_lines(run / "evals" / "held" / "base.jsonl")}
        used |= {drawn["text"] for line in read_lines(run / "evals/held/base.jsonl") for drawn in line["samples"]}
        assert set(map(material, server.answered)) - used, "in the middle of a step"
        server.mended()
        pipeline.resume(run)
    assert not differences(bits(run), undisturbed.bits)
    assert len(server.answered) == len(server.questions) == undisturbed.asked
