"""What a stage's own metrics and rollouts show: overfitting, a broken grader, nothing left to learn, more to come.

Every rule looks at the last steps, at least four and a tenth of all, and holds only what was measured against it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT
from sharpen.runs.statistics import interval, unpaired_difference
from sharpen.runs.store import read_lines
from sharpen.stages.preference_symptoms import at_chance, both_unlikely, longer
from sharpen.stages.remarks import Remark, percent
from sharpen.stages.trained import Trained, gain_of, numbers

RIGHT = 1 - 1e-9
"""A score from here on is right: `stages.evaluate.CORRECT`."""

GAP = 0.05
"""Accuracy on training prompts that is surely more than this above that on held-out ones is called overfitting."""

REPEATED = 20
"""Prompts seen before that the last steps must have for that."""

RISE = 0.05
"""A validation loss that ends by this share above its lowest has turned up; one by less than that is noise."""

LEAST = 0.01
"""Nats a token by which a validation loss must move besides, for near 0 a twentieth of it moves no answer."""

PARITY = 0.02
"""Nats a token by which sampler and trainer may differ: `stages.rft.GAP_MEAN`."""

FAR = 5.0
"""KL to the stage's start, nats a token, that is called far: the quickstart's runs, which all learned, end below 2."""

SAME = 0.9
"""Share of groups with equal rewards from which on there is nothing left to learn."""

TRUNCATED = 0.25
"""Share of completions cut off in training from which on it is said, as in the trial before a stage."""

FAULTY = 0.01
"""Share of completions that a grader failed on from which on it is said; five times that belongs into the verdict."""

OWN_FAULTS = {"sample_parse_error"}
"""A kind of fault that is a completion's own in every grader."""


def symptoms(run: Path, recipe: Recipe, summary: Mapping[str, Any]) -> Iterator[Remark]:
    """What the rules find in the stages that are done."""
    metrics = read_lines(run / "metrics.jsonl")
    done = {part["name"] for part in summary["stages"]}
    for stage in recipe.stages:
        lines = [line for line in metrics if line["stage"] == stage.name]
        if stage.name in done and lines:
            trained = Trained(run, recipe, stage, lines, summary)
            for rule in RULES[stage.type]:
                yield from rule(trained)


def memorised(trained: Trained) -> Iterator[Remark]:
    """RFT: prompts that it has trained on before are answered better than held-out ones under the same grader.

    Training's answers are drawn at a temperature. Against them stand the eval's drawn answers where it has some at the
    same temperature; else its greedy ones, which are usually the better, so that a gap is rather understated.
    Claimed where the 95 % interval of the gap, over prompts, lies above `GAP`.
    """
    stage = trained.stage
    assert isinstance(stage, RFT)
    if stage.final == "best":  # the last steps were not those of the model that was evaluated
        return
    result = next(part for part in trained.summary["stages"] if part["name"] == stage.name)["evals"]
    for config in trained.recipe.evals:
        if config.name not in result or (config.grader, config.env) != (stage.grader, stage.env):
            continue
        drawn = result[config.name]["avg_at_k"] if config.temperature == stage.sampling.temperature else None
        held_out = drawn or result[config.name]
        shares = _on_repeated_prompts(trained, above=held_out["score"] + GAP)
        if len(shares) < REPEATED:
            continue
        mean, ci95 = float(np.mean(shares)), interval(shares)
        gap = unpaired_difference(held_out["score"], held_out["ci95"], mean, ci95)
        if gap.ci95.low <= GAP:
            continue
        how = (
            "both drawn at the same temperature"
            if drawn
            else f"training's answers drawn at temperature {stage.sampling.temperature:g}, the held-out ones greedy"
        )
        text = (
            f"{trained.name} overfits: in its last steps it gets {percent(mean)} {_span(ci95)} right on prompts that "
            f"it has trained on before, but {percent(held_out['score'])} on held-out ones ({how}): use more prompts, "
            "or fewer steps."
        )
        figures = {"training": mean, "held_out": held_out["score"], "gap": gap.delta, "ci95": list(gap.ci95)}
        yield Remark("overfitting", text, True, stage.name, config.name, figures)


def _on_repeated_prompts(trained: Trained, above: float) -> list[float]:
    """The share right of each prompt of the last steps that an earlier step had; none where it is not `above` at all.

    A step's prompts are looked for in all steps before it, from the nearest back, until every one is found.
    """
    groups: list[tuple[float, str, float]] = []
    for line in trained.late:
        by_prompt: dict[str, list[bool]] = {}
        for rollout in trained.rollouts(line["step"]):
            score = rollout["scores"]["score"]
            if score is not None:
                by_prompt.setdefault(_key(rollout), []).append(score >= RIGHT)
        groups += [(line["step"], key, float(np.mean(right))) for key, right in by_prompt.items()]
    if not groups or np.mean([share for *_, share in groups]) <= above:
        return []
    first: dict[str, float] = {}
    wanted = {key for _, key, _ in groups}
    for line in reversed(trained.lines):
        for rollout in trained.rollouts(line["step"]):
            if (key := _key(rollout)) in wanted:
                first[key] = line["step"]
        if all(first.get(key, step) < step for step, key, _ in groups):
            break
    return [share for step, key, share in groups if first.get(key, step) < step]


def turned_up(trained: Trained) -> Iterator[Remark]:
    """SFT, preferences: validation loss ends over its lowest by more than `RISE` and `LEAST`, while training's fell."""
    stage = trained.stage
    looks = [(place, line["validation"]["loss"]) for place, line in enumerate(trained.lines) if line.get("validation")]
    if stage.final == "best" or len(looks) < 2:
        return
    place, lowest = min(looks, key=lambda look: look[1])
    last = looks[-1][1]
    window = len(trained.late)
    then = numbers(trained.lines[max(0, place + 1 - window) : place + 1], "loss")
    now = trained.recent("loss")
    if last < max(lowest * (1 + RISE), lowest + LEAST) or not then or not now or np.mean(now) >= np.mean(then):
        return
    text = (
        f"{trained.name} overfits: its validation loss was lowest at step {place + 1} ({lowest:.3f}) and ends at "
        f"{last:.3f}, while the training loss fell from {np.mean(then):.3f} to {np.mean(now):.3f}: use more rows, "
        "fewer epochs, or `final: best`."
    )
    figures = {"lowest": lowest, "last": last, "step": place + 1}
    yield Remark("overfitting", text, True, stage.name, figures=figures)


def disagreement(trained: Trained) -> Iterator[Remark]:
    """Sampler and trainer do not compute the same probabilities: at the first step, or in the last ones."""
    gaps = [line["logprob_gap"]["mean"] for line in trained.late if not line["policy_lag"]]
    found = [gap for gap in gaps if gap is not None]
    mean = float(np.mean(found)) if found else 0.0
    alert = ("alert", "logprob_gap", trained.stage.name)
    alerts = [
        line["message"]
        for line in read_lines(trained.run / "events.jsonl")
        if (line["event"], line.get("kind"), line.get("stage")) == alert
    ]
    if mean > PARITY or alerts:
        what = (
            f"{trained.name}'s sampler and trainer disagree by {mean:.3f} nats a token in the last steps"
            if mean > PARITY
            else f"At {trained.name}'s first step {alerts[-1]}"
        )
        text = f"{what}, so its updates may be off: try dtype: float32, and tell us of it."
        yield Remark("logprob_gap", text, True, trained.stage.name, figures={"mean": mean})


def faulty_grader(trained: Trained) -> Iterator[Remark]:
    """The grader itself failed on completions, which were left out."""
    stage = trained.stage
    assert isinstance(stage, RFT)
    suspects = [line["step"] for line in trained.lines if set(line["faults"]) - OWN_FAULTS]
    failed = [rollout for step in suspects for rollout in trained.rollouts(step) if rollout["scores"]["score"] is None]
    share = len(failed) / (len(trained.lines) * stage.prompts_per_step * stage.group_size)
    if share >= FAULTY:
        kinds = ", ".join(sorted({rollout["fault"] or "no cause given" for rollout in failed}))
        text = (
            f"The grader failed on {percent(share)} of {trained.name}'s completions ({kinds}), which were left out: "
            "mend it, and try it with `sharpen grade`."
        )
        yield Remark("faulty_grader", text, share >= 5 * FAULTY, stage.name, figures={"share": share})


def nothing_left(trained: Trained) -> Iterator[Remark]:
    """Nearly all groups have equal rewards, and such a group teaches nothing."""
    same, reward = (float(np.mean(trained.recent(*keys) or [0])) for keys in (("no_spread_share",), ("reward", "mean")))
    if same < SAME:
        return
    if reward >= 1 - 0.5 * (1 - SAME):
        cause, remedy = ", nearly all right", "harder prompts would teach more"
    elif reward <= 0.5 * (1 - SAME):
        cause, remedy = ", nearly all wrong", "an SFT stage first, easier prompts or partial credit would help"
    else:
        cause, remedy = "", "a grader that tells answers apart, or other prompts, would help"
    text = (
        f"{trained.name} had nothing left to learn from: in its last steps {percent(same)} of the groups had equal "
        f"rewards{cause}; {remedy}."
    )
    figures = {"no_spread_share": same, "reward": reward}
    yield Remark("nothing_left", text, True, trained.stage.name, figures=figures)


def cut_off(trained: Trained) -> Iterator[Remark]:
    """Completions of the last steps that ran into the stage's limit."""
    stage = trained.stage
    assert isinstance(stage, RFT)
    share = float(np.mean(trained.recent("length", "truncated_share") or [0]))
    if share > TRUNCATED:
        text = (
            f"{percent(share)} of the completions of {trained.name}'s last steps were cut off at "
            f"{stage.sampling.max_tokens} tokens: raise stages.{stage.name}.sampling.max_tokens, or ask for shorter "
            "answers."
        )
        yield Remark("cut_off_in_training", text, True, stage.name, figures={"share": share})


def far_away(trained: Trained) -> Iterator[Remark]:
    """The policy has moved far; the median, for the estimate of a single step may be far off."""
    found = trained.recent("kl")
    middle = float(np.median(found)) if found else 0.0
    if middle > FAR:
        text = (
            f"{trained.name} has moved the model far from where it began (KL {middle:.1f} nats a token), and may have "
            "spoilt what is not tested here: lower optim.lr, take fewer steps, or set algorithm.kl."
        )
        yield Remark("far_away", text, False, trained.stage.name, figures={"kl": middle})


def still_rising(trained: Trained) -> Iterator[Remark]:
    """The reward of the last quarter of the steps is above that of the quarter before, interval over steps and all."""
    stage, quarter = trained.stage, len(trained.lines) // 4
    if stage.name != trained.recipe.stages[-1].name or quarter < 4:
        return
    before = numbers(trained.lines[-2 * quarter : -quarter], "reward", "mean")
    after = numbers(trained.lines[-quarter:], "reward", "mean")
    gain = gain_of(before, after)
    if gain and gain.ci95.low > 0 and np.mean(trained.recent("no_spread_share") or [1]) < SAME:
        text = (
            f"{trained.name} was still improving when it ended (reward {gain.delta:+.3f} from the third quarter of its "
            "steps to the last): more steps may bring more."
        )
        yield Remark("still_improving", text, False, stage.name, figures={"gain": gain.delta})


def still_falling(trained: Trained) -> Iterator[Remark]:
    """The last look at the validation rows is the best, by more than `RISE` of the best before it and `LEAST`."""
    stage = trained.stage
    looks = numbers(trained.lines, "validation", "loss")
    if stage.name != trained.recipe.stages[-1].name or len(looks) < 2:
        return
    best = min(looks[:-1])
    if looks[-1] > min(best * (1 - RISE), best - LEAST):
        return
    text = (
        f"{trained.name} was still improving when it ended (validation loss {looks[-2]:.3f}, then {looks[-1]:.3f}): "
        "more epochs may bring more."
    )
    yield Remark("still_improving", text, False, stage.name, figures={"gain": looks[-2] - looks[-1]})


Rule = Callable[[Trained], Iterator[Remark]]
RULES: dict[str, tuple[Rule, ...]] = {
    "sft": (turned_up, still_falling),
    "dpo": (turned_up, at_chance, both_unlikely, longer, still_falling),
    "reward_model": (turned_up, at_chance, longer, still_falling),
    "rft": (memorised, disagreement, faulty_grader, nothing_left, cut_off, still_rising, far_away),
}
"""By the stage's type."""


def _key(rollout: Mapping[str, Any]) -> str:
    """What a prompt is known by: its text, for two rows may have the same."""
    return json.dumps(rollout["prompt"], sort_keys=True)


def _span(ci95: tuple[float, float]) -> str:
    return f"[{100 * ci95[0]:.1f}, {100 * ci95[1]:.1f}]"
