"""The trial before an RFT stage: counted by hand, decided rightly, and without a trace in the training."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM

from sharpen.config.stages import RFT, Probe
from sharpen.errors import GraderError, ProbeError
from sharpen.graders.base import completion_fault, grader_fault
from sharpen.models.load import load
from sharpen.reports import probed
from sharpen.rollout.base import Request
from sharpen.rollout.fake import FakeSampler
from sharpen.runs.ledger import Ledger
from sharpen.runs.observer import Observer
from sharpen.runs.statistics import interval
from sharpen.stages import pipeline, preflight
from sharpen.stages.attempts import read
from sharpen.stages.heldout import HeldOut
from sharpen.stages.measure import without_run
from sharpen.stages.probe import advice, decide, mask_faults, outcome, probe
from sharpen.stages.routing import Router
from sharpen.stages.work import Work
from sharpen.types import Example, Grade, Group, Rollout, Sample, Segment
from tests.runs.lab import World, bits, events, prompts, quick, write_rows

ANSWER = "7ab"
"""What the scripted model says; it is cut off at two tokens by every third attempt."""


class Script:
    """In the place of a router: group g gets the scores of its row, completion after completion."""

    def __init__(self, scores: Sequence[Sequence[Grade | float]], second: dict[int, float] | None = None) -> None:
        self._scores = [grade for group in scores for grade in group]
        self._second = second or {}
        self.asked = 0

    def grades(self, example: Example) -> bool:
        return True

    async def grade_many(self, pairs: Sequence[tuple[Example, Sample]]) -> list[Grade]:
        first = self.asked == 0
        self.asked += 1
        chosen = self._scores if first else self._scores[:: max(1, len(self._scores) // 16)][:16]
        made = [grade if isinstance(grade, Grade) else Grade(grade) for grade in chosen]
        return made if first else [Grade(self._second.get(place, made[place].score)) for place in range(len(made))]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def tried(
    world: World, scores: Sequence[Sequence[Grade | float]], second: dict[int, float] | None = None, **changes: Any
) -> tuple[dict[str, Any], Work, FakeSampler]:
    """The figures of a trial of as many groups as there are rows of scores."""
    size = len(scores[0])
    stage = world.rft_stage(probe={"prompts": len(scores)}, group_size=size, max_fault_share=1.0, **changes)
    recipe = world.recipe(stage)
    loaded = load(world.model, torch.float32)
    held_out = HeldOut.read(recipe, world.folder, world.folder)
    work, _ = without_run(recipe, 0, world.folder, loaded, held_out, Observer())
    tokens = loaded.tokenizer(ANSWER, add_special_tokens=False)["input_ids"]

    def answer(request: Request) -> list[int]:
        return tokens[:2] if cast(int, request.key[-1]) % 3 == 2 else [*tokens, *loaded.stop]

    sampler = FakeSampler(answer)
    config = cast(RFT, work.stage)
    assert config.probe
    router = cast(Router, Script(scores, second))
    found = probe(config, config.probe, work, sampler, work.engine(1), router, None, read(config, work))
    return asyncio.run(found), work, sampler


MIXED, RIGHT, WRONG, ALIKE = [0.0, 1.0, 0.0], [1.0] * 3, [0.0] * 3, [0.5] * 3


def test_the_figures_are_those_counted_by_hand(world: World) -> None:
    scores = [MIXED, RIGHT, WRONG, ALIKE, MIXED, WRONG, WRONG, [0.2, 0.2, 0.3]]
    found, _, sampler = tried(world, scores)
    assert (found["prompts"], found["group_size"]) == (8, 3)
    assert found["learnable"] == {"share": 3 / 8, "ci95": list(interval([1, 0, 0, 0, 1, 0, 0, 1]))}
    shares = [found[name]["share"] for name in ("always_right", "always_wrong", "alike")]
    assert shares == [1 / 8, 3 / 8, 1 / 8]
    flat = [score for group in scores for score in group]
    mean = sum(flat) / 24
    assert found["reward"]["mean"] == pytest.approx(mean)
    assert found["reward"]["variance"] == pytest.approx(sum((score - mean) ** 2 for score in flat) / 24)
    assert found["truncated_share"] == pytest.approx(1 / 3)
    assert found["tokens"] == pytest.approx((4 + 4 + 2) / 3)  # three tokens and the end, twice; two
    assert found["faults"] == {"share": 0.0, "kinds": {}} and found["mask"] == []
    assert len(sampler.requests) == 24 and len({request.key for request in sampler.requests}) == 24
    assert all(str(request.key[2]).startswith("probe") for request in sampler.requests)  # no number of the training's


def test_faults_are_counted_by_whose_they_are(world: World) -> None:
    down, unread = grader_fault("model_grader_server_error", "503"), completion_fault("sample_parse_error", "no JSON")
    found, *_ = tried(world, [[down, 1.0, 0.0], [unread, 1.0, 1.0], [down, down, 1.0], RIGHT])
    assert found["faults"]["share"] == pytest.approx(3 / 12)
    assert found["faults"]["kinds"] == {"model_grader_server_error": 3, "sample_parse_error": 1}
    assert found["learnable"]["share"] == 2 / 4  # a group with one valid grade teaches nothing
    assert "failed on 25.0% of completions" in " ".join(advice(found))


def test_a_grader_that_changes_its_mind_is_found_out(world: World) -> None:
    steady, *_ = tried(world, [MIXED] * 4)
    fickle, *_ = tried(world, [MIXED] * 4, second={0: 0.9, 3: 0.2})
    assert steady["graded_again"] == {"n": 12, "changed": 0}
    assert fickle["graded_again"] == {"n": 12, "changed": 2}
    assert "another score the second time" in " ".join(advice(fickle)) and "second time" not in " ".join(advice(steady))


def test_the_gap_is_that_to_the_models_own_log_probabilities(world: World) -> None:
    """The scripted sampler claims −1 for each token; the model's own are computed plainly, in float64."""
    found, _, sampler = tried(world, [MIXED])
    model = AutoModelForCausalLM.from_pretrained(world.model, dtype=torch.float64)
    gaps = []
    for request in sampler.requests:
        made = list(sampler.answer(request))
        logits = model(torch.tensor([[*request.prompt, *made]])).logits[0].detach().log_softmax(-1)
        gaps += [abs(float(logits[len(request.prompt) - 1 + place, token]) + 1) for place, token in enumerate(made)]
    assert found["logprob_gap"]["mean"] == pytest.approx(sum(gaps) / len(gaps), rel=1e-4)
    assert found["logprob_gap"]["max"] == pytest.approx(max(gaps), rel=1e-4)


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        ([0.0, 0.0], "wrong"),
        ([1.0, 1.0], "right"),
        ([1.0, 2.0], "mixed"),
        ([0.4, 0.4], "alike"),
        ([-1.0, -1.0], "wrong"),
        ([0.0, None], "none"),
        ([0.0, 1.0, None], "mixed"),
        ([0.3, 0.3 + 1e-13], "alike"),
    ],
)
def test_a_groups_outcome(scores: list[float | None], kind: str) -> None:
    assert outcome([Grade(score) for score in scores]) == kind


def test_what_would_be_trained_is_the_completion_and_nothing_else(world: World) -> None:
    _, work, sampler = tried(world, [MIXED])
    renderer, example = work.renderer, Example("e", ({"role": "user", "content": "say 1"},))
    prompt = tuple(renderer.example(example))
    made = tuple(sampler.answer(Request(prompt, (0,))))

    def group(tokens: tuple[int, ...], trained: int, text: str = ANSWER) -> list[Group]:
        mask = (False,) * (len(tokens) - trained) + (True,) * trained
        return [Group(example, (Rollout((Segment(tokens, mask, (0.0,) * len(tokens), 0),), Sample(text)),))]

    whole = prompt + made
    assert mask_faults(renderer, group(whole, len(made))) == []
    assert "prompt of e" in mask_faults(renderer, group(whole, len(made) + 1))[0]
    assert "prompt of e" in mask_faults(renderer, group(whole, len(made) - 1))[0]
    assert "not the completion" in mask_faults(renderer, group(whole, len(made), "8ab"))[0]


def figures(**changes: Any) -> dict[str, Any]:
    nothing = {"share": 0.0, "ci95": [0.0, 0.1]}
    return {
        "prompts": 16,
        "group_size": 8,
        "learnable": {"share": 0.5, "ci95": [0.3, 0.7]},
        "always_right": nothing,
        "always_wrong": nothing,
        "alike": nothing,
        "in_form": None,
        "truncated_share": 0.0,
        "max_tokens": 128,
        "graded_again": {"n": 16, "changed": 0},
        "faults": {"share": 0.0, "kinds": {}},
        "mask": [],
        **changes,
    }


MANY = {"share": 0.94, "ci95": [0.8, 1.0]}


@pytest.mark.parametrize(
    ("changes", "words", "silent"),
    [
        ({}, "50% [30%, 70%] of groups have different rewards", "help"),
        ({"always_wrong": MANY}, "94% of groups are all wrong: an SFT stage, an easier set or partial credit", "form"),
        ({"always_wrong": MANY, "in_form": 0.1}, "(10% of completions have the form that", "easier prompts"),
        ({"always_wrong": MANY, "in_form": 0.9}, "an SFT stage, an easier set", "on format"),
        ({"always_right": MANY}, "all right already: harder prompts", "easier"),
        ({"alike": MANY}, "a grader that tells answers apart", "harder"),
        ({"truncated_share": 0.4}, "40% of completions are cut off at 128 tokens: raise sampling.max_tokens", "wrong"),
        ({"mask": ["the prompt of e is odd"]}, "the prompt of e is odd", "wrong"),
    ],
)
def test_the_figures_are_put_into_words(changes: dict[str, Any], words: str, silent: str) -> None:
    said = ". ".join(advice(figures(**changes)))
    assert words in said and silent not in said


def test_the_table_has_every_figure(world: World) -> None:
    form = {"format": 0.0}
    found, *_ = tried(world, [[Grade(0.0, form), Grade(1.0, {"format": 1.0})], [Grade(0.0, form), Grade(0.0, form)]])
    said = dict(probed.rows(found))
    assert said["tried"] == "2 prompts × 2 completions" and said["in form"] == "25.0% of completions"
    assert said["learnable"].startswith("50.0% [0.0, 100.0]") and said["always wrong"].startswith("50.0%")
    assert "nothing of the prompts" in said["loss mask"] and "0 of 4 graded otherwise" in said["grader"]
    assert found["forecast"]["seconds"] == pytest.approx(5 * found["forecast"]["step_seconds"])


def runs(world: World, out: Path, score: Callable[[dict[str, Any], dict[str, Any]], float], **stage: Any) -> None:
    with quick(score):
        pipeline.run(world.recipe(world.rft_stage(**stage)), out, base=world.folder)


def test_where_nothing_can_be_learned_the_run_is_refused_once_that_is_sure(world: World, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(ProbeError, match="nothing to learn from: of 192 groups of 2") as caught:
        runs(world, run, lambda sample, item: 0.0, probe={"prompts": 16}, group_size=2)
    assert "100% of groups are all wrong" in str(caught.value) and "probe.force=true" in str(caught.value)
    (event,) = events(run, "probed")
    assert event["figures"]["learnable"]["ci95"][1] == pytest.approx(1 - 0.025 ** (1 / 192))
    assert not (run / "metrics.jsonl").exists()
    assert json.loads((run / "summary.json").read_text())["status"] == "paused"
    with quick(lambda sample, item: 0.0):
        pipeline.resume(run, ["stages.0.probe.force=true", "stages.0.steps=1"])
    assert json.loads((run / "summary.json").read_text())["status"] == "finished"


def test_a_single_mixed_group_is_enough_to_go_on(world: World, tmp_path: Path) -> None:
    """16 groups cannot show that fewer than 2 % could teach; a recipe may ask for more than that."""
    few = figures(learnable={"share": 0.0, "ci95": [0.0, 1 - 0.025 ** (1 / 16)]})
    recipe = world.recipe(world.rft_stage())
    stage = cast(RFT, recipe.stages[0])
    decide(stage, Probe(), few)
    with pytest.raises(ProbeError):
        decide(stage, Probe(min_learnable=0.5), few)
    decide(stage, Probe(min_learnable=0.5, force=True), few)


def test_the_trial_leaves_no_trace_in_the_training(world: World, tmp_path: Path) -> None:
    from tests.runs.lab import letters

    runs(world, tmp_path / "without", letters)
    runs(world, tmp_path / "with", letters, probe={"prompts": 3})
    assert bits(tmp_path / "with") == bits(tmp_path / "without")
    assert not events(tmp_path / "without", "probed")
    (event,) = events(tmp_path / "with", "probed")
    assert event["figures"]["prompts"] == 3 and "of groups have different rewards" in event["message"]


def test_a_failing_grader_stops_the_run_before_training(world: World, tmp_path: Path) -> None:
    def down(sample: dict[str, Any], item: dict[str, Any]) -> Any:
        return grader_fault("other_error", "no power")

    with pytest.raises(GraderError, match=r"in the trial before rft, the grader failed on 6 of 6 .*no power"):
        runs(world, tmp_path / "run", down, probe={"prompts": 2})
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_preflight_finds_what_the_run_finds_and_writes_nothing(world: World, tmp_path: Path) -> None:
    from tests.runs.lab import letters

    recipe = world.recipe(world.sft_stage(), world.rft_stage(probe={"prompts": 3}))
    alone = world.recipe(world.rft_stage(probe={"prompts": 3}))
    before = sorted(world.folder.rglob("*"))
    with quick(letters):
        pipeline.run(alone, tmp_path / "run", base=world.folder)
        first, second = preflight.preflight(recipe, world.folder, [world.model, world.model], Observer())
    assert sorted(world.folder.rglob("*")) == before
    (event,) = events(tmp_path / "run", "probed")
    for name in ("reward", "learnable", "tokens", "logprob_gap", "graded_again", "mask"):
        assert first[name] == second[name] == event["figures"][name]
    assert (first["stage"], first["model"]) == ("rft", world.model)


def test_a_judges_questions_are_asked_anew_the_second_time() -> None:
    ledger = Ledger()
    ledger.note("q", "g", {"result": 1}, 5, 0.0)
    with ledger.forgetful():
        assert ledger.get("q") is None
        ledger.note("q", "g", {"result": 0}, 5, 0.0)
        ledger.note("new", "g", {"result": 0}, 5, 0.0)
    assert ledger.get("q") == {"result": 1} and ledger.get("new") == {"result": 0}
    assert ledger.spent["g"].requests == 3


def test_more_prompts_than_there_are_come_round_again(world: World, tmp_path: Path) -> None:
    world.rft = {"path": write_rows(world.folder / "few.jsonl", prompts("few", 2))}
    from tests.runs.lab import letters

    runs(world, tmp_path / "run", letters, probe={"prompts": 5})
    (event,) = events(tmp_path / "run", "probed")
    assert event["figures"]["prompts"] == 5
