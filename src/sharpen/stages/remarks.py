"""What the evals of a run say beyond their scores: each rule is a function of the recipe and the summary's numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from sharpen.config.recipe import Eval

MASTERED = 0.95
"""Where even the lower end of the base model's interval is above this, there is little to gain."""

MOSTLY_FORM = 2 / 3
"""Share of a gain from which on it is called mostly form."""

CUT_OFF = 0.1
"""Share of answers cut off at the limit from which on it is said."""


@dataclass(frozen=True, slots=True)
class Remark:
    """Something a reader of the verdict should know, with its remedy in words."""

    kind: str
    text: str
    """A whole sentence."""
    main: bool = False
    """Whether it changes what the scores mean, so that it belongs into the verdict."""
    stage: str | None = None
    eval: str | None = None
    figures: Mapping[str, Any] = field(default_factory=dict)
    """The numbers it was found by; shares, not percentages."""

    def line(self) -> dict[str, Any]:
        """As summary.json has it."""
        return asdict(self)


class Seen(NamedTuple):
    """What one eval measured: `results[0]` is the base model's, the others are stages' with their `vs_previous`."""

    config: Eval
    models: tuple[str, ...]
    results: tuple[dict[str, Any], ...]
    alone: bool
    """Whether the recipe has no other eval."""

    @property
    def place(self) -> str:
        """Where, unless there is only one eval."""
        return "" if self.alone else f" on {self.config.name}"


def seen(evals: tuple[Eval, ...], summary: Mapping[str, Any]) -> Iterator[Seen]:
    """Every eval that the base model has answered, with the stages that have."""
    for config in evals:
        models, results = [], []
        for name, part in (("base", summary["base"]), *((stage["name"], stage) for stage in summary["stages"])):
            if found := part["evals"].get(config.name):
                models.append(name)
                results.append(found)
        if results and models[0] == "base":
            yield Seen(config, tuple(models), tuple(results), len(evals) == 1)


def nothing_right(found: Seen) -> Iterator[Remark]:
    """No model gets a single problem right."""
    if any(result["score"] for result in found.results):
        return
    last = found.results[-1]
    n = last["n"]
    if last["found"] and last["found"]["score"]:
        text = (
            f"The model gets none of the {n} problems{found.place} right, though the right answer stands somewhere in "
            f"{percent(last['found']['score'])} of its answers: what is missing is the form. Ask for it in the prompt, "
            "loosen the grader's pattern, or begin with an SFT stage."
        )
    else:
        text = (
            f"The model gets none of the {n} problems{found.place} right: begin with an SFT stage on labelled answers, "
            "easier problems or a larger model, and let `sharpen grade` show that the grader passes its own answers."
        )
    yield Remark("nothing_right", text, True, eval=found.config.name, figures={"n": n})


def nothing_to_gain(found: Seen) -> Iterator[Remark]:
    """The base model is nearly always right already."""
    low = found.results[0]["ci95"][0]
    if low >= MASTERED:
        text = (
            f"The base model is right{found.place} nearly always already ({percent(found.results[0]['score'])}), "
            "so there is little to gain: take harder problems."
        )
        yield Remark("nothing_to_gain", text, True, eval=found.config.name, figures={"low": low})


def worse(found: Seen) -> Iterator[Remark]:
    """A stage has lowered the score by more than chance."""
    for before, name, result in zip(found.models, found.models[1:], found.results[1:], strict=False):
        if result["vs_previous"]["ci95"][1] < 0:
            kept = "the base model" if before == "base" else f"models/{before}"
            text = f"{name.upper()} has done harm{found.place}: keep {kept}, or train with a lower optim.lr."
            yield Remark("worse", text, True, name, found.config.name, {"delta": result["vs_previous"]["delta"]})


def no_difference(found: Seen) -> Iterator[Remark]:
    """A difference whose interval touches zero; what a test of this size could have shown."""
    for name, result in zip(found.models[1:], found.results[1:], strict=True):
        low, high = result["vs_previous"]["ci95"]
        if low > 0 or high < 0 or not any(one["score"] for one in found.results):
            continue
        least = result["vs_previous"]["detectable"]
        text = (
            f"What {name.upper()} changed{found.place} cannot be told from chance: a true difference of less than "
            f"about {points(least)} would mostly go unseen in {result['n']} problems; four times as many would show "
            "half that."
        )
        if least >= 1:
            text = f"{result['n']} problems{found.place} are too few to show what {name.upper()} changed: use more."
        yield Remark("no_difference", text, False, name, found.config.name, {"detectable": least})


def mostly_form(found: Seen) -> Iterator[Remark]:
    """A gain that comes from giving answers in the form asked for."""
    for name, result in zip(found.models[1:], found.results[1:], strict=True):
        change = result["vs_previous"]
        form = change["format_gain"]
        if form is None or change["ci95"][0] <= 0 or form < MOSTLY_FORM * change["delta"]:
            continue
        text = (
            f"{name.upper()}'s gain{found.place} is mostly form: {100 * form:.1f} of {points(change['delta'])} come "
            "from giving answers in the form asked for, not from finding them more often. More varied rows, or a "
            "reward, raise the rest."
        )
        figures = {"format_gain": form, "delta": change["delta"]}
        yield Remark("mostly_form", text, False, name, found.config.name, figures)


def cut_off(found: Seen) -> Iterator[Remark]:
    """Answers that ran into the eval's limit, which mostly counts as wrong."""
    for name, result in zip(found.models, found.results, strict=True):
        share = result["truncated_share"]
        if share < CUT_OFF:
            continue
        limit, setting = found.config.max_tokens, f"evals.{found.config.name}.max_tokens"
        who = "the base model's" if name == "base" else f"{name.upper()}'s"
        text = (
            f"{percent(share)} of {who} answers{found.place} were cut off at {limit} tokens, so it may know more than "
            f"its score says: raise {setting}, or ask for shorter answers."
        )
        figures = {"share": share, "max_tokens": limit}
        stage = None if name == "base" else name
        yield Remark("cut_off", text, name == found.models[-1], stage, found.config.name, figures)


RULES: tuple[Callable[[Seen], Iterator[Remark]], ...] = (
    nothing_right,
    worse,
    nothing_to_gain,
    no_difference,
    cut_off,
    mostly_form,
)
"""In the order of their weight."""


def percent(share: float) -> str:
    """`43.2 %`"""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """`6.1 points`, without a sign."""
    return f"{100 * abs(difference):.1f} points"
