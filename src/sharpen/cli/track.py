"""What a run has told so far, and how to say it: what both views of the progress draw from."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.reports import probed
from sharpen.reports.numbers import at, count, duration, finite, plain, show
from sharpen.reports.read import text_of

Record = Mapping[str, Any]
SPARKS = "▁▂▃▄▅▆▇█"
RECENT = 30


class Plan(NamedTuple):
    """What is known of a run before it starts."""

    folder: Path | None
    model: str
    stages: tuple[str, ...]


class Work(NamedTuple):
    """A longer piece of work inside a step or between stages."""

    what: str
    done: int
    total: int


@dataclass(slots=True)
class StageTrack:
    """A stage's last metrics line, its curve, and its pace."""

    name: str
    line: Record = field(default_factory=dict)
    curve: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))
    paces: deque[float] = field(default_factory=lambda: deque(maxlen=10))
    seconds: float = 0.0
    done: bool = False

    def add(self, line: Record) -> None:
        """A step is done."""
        self.line = line
        value = headline(line)[1]
        if value is not None:
            self.curve.append(value)
        pace = finite(line, "time", "step") or 0.0
        self.paces.append(pace)
        self.seconds += pace

    @property
    def step(self) -> int:
        """Steps done."""
        return int(finite(self.line, "step") or 0)

    @property
    def steps(self) -> int:
        """Steps in all; 0 until the first is done."""
        return int(finite(self.line, "steps") or 0)

    def seconds_left(self) -> float:
        """At the pace of the last steps."""
        paces = tuple(self.paces)
        return sum(paces) / len(paces) * (self.steps - self.step) if paces else 0.0


class Track:
    """The state of a run, as far as its observer was told."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.stages = {name: StageTrack(name) for name in plan.stages}
        self.current = ""
        self.work: Work | None = None

    def event(self, event: Record) -> None:
        """Follow the stages' beginnings and ends; a stage begins when those before it are done."""
        name = str(event.get("stage") or "")
        if event.get("event") == "stage_started":
            self.current = name
            self.stages.setdefault(name, StageTrack(name))
            for stage in takewhile(lambda stage: stage.name != name, self.stages.values()):
                stage.done = True
        elif event.get("event") == "stage_finished" and name in self.stages:
            self.stages[name].done = True
        elif event.get("event") == "finished":
            for stage in self.stages.values():
                stage.done = True
        self.work = None

    def metrics(self, line: Record) -> StageTrack:
        """Follow a step; returns its stage."""
        self.current = str(line.get("stage"))
        stage = self.stages.setdefault(self.current, StageTrack(self.current))
        stage.add(line)
        self.work = None
        return stage

    def progress(self, what: str, done: int, total: int) -> None:
        """Follow a piece of work."""
        self.work = Work(what, done, total) if done < total else None

    def rollout(self, line: Record) -> int:
        """The step (from 1) in which an example of the answers was sampled; it is told before the step's metrics."""
        self.work = None
        version, stage = finite(line, "version"), self.stages.get(self.current)
        return 1 + (int(version) if version is not None else stage.step if stage else 0)


def headline(line: Record) -> tuple[str, float | None]:
    """The number a stage is about: the reward in RFT, else the loss."""
    reward = finite(line, "reward", "mean")
    return ("reward", reward) if reward is not None else ("loss", finite(line, "loss"))


def preferred(line: Record) -> dict[str, float]:
    """What a stage that learns from preferences is about besides its loss: `margin` and `accuracy`, as far as there."""
    found = {"margin": finite(line, "rewards", "margins"), "accuracy": finite(line, "rewards", "accuracies")}
    return {name: value for name, value in found.items() if value is not None}


def tokens_per_second(line: Record) -> float | None:
    """Tokens sampled (in SFT: trained on) a second, over the whole step."""
    seconds = finite(line, "time", "step")
    tokens = finite(line, "tokens", "sampled") or finite(line, "tokens", "trained")
    return tokens / seconds if seconds and tokens else None


def step_line(stage: StageTrack) -> str:
    """One line on a step: `rft 23/60  reward 0.471  kl 0.012  …  ETA 2 min 6 s`."""
    line = stage.line
    name, value = headline(line)
    validation = at(line, "validation")
    parts = [
        f"{stage.name} {stage.step}/{stage.steps}",
        _part(name, value),
        _part("accuracy", finite(line, "token_accuracy")),
        *(_part(name, value) for name, value in preferred(line).items()),
        _part("kl", finite(line, "kl")),
        _part("length", finite(line, "length", "mean")),
        _part("tokens/s", tokens_per_second(line)),
        _part("s/step", finite(line, "time", "step")),
        f"validation {looked(validation)}" if validation else "",
        f"ETA {duration(stage.seconds_left())}" if stage.step < stage.steps else "",
    ]
    return "  ".join(part for part in parts if part)


def event_line(event: Record) -> str:
    """What an event says, in a line; of a trial, in a table."""
    stage, step = text_of(event.get("stage")), finite(event, "step")
    place = f"{stage}{f', step {plain(step)}' if step is not None else ''}"
    match kind := str(event.get("event")):
        case "started":
            return f"{event.get('model')}: {', '.join(map(str, event.get('stages') or ())) or 'no stages'}"
        case "stage_started":
            return f"stage {stage}"
        case "stage_finished":
            return f"stage {stage} is done"
        case "checkpoint":
            return f"checkpoint of {place}"
        case "evaluated":
            return f"{event.get('eval')} on {event.get('model')}: {show(finite(event, 'score'), 'share')} right"
        case "parity":
            gap, peak = finite(event, "logprob_gap_mean") or 0.0, finite(event, "logprob_gap_max") or 0.0
            return f"sampler against trainer: log-probabilities differ by {gap:.4f} on average, {peak:.4f} at most"
        case "probed":
            table = [f"  {name:<17} {clean(value)}" for name, value in probed.rows(at(event, "figures") or {})]
            lines = [
                f"before {stage} is trained, its model on its prompts:",
                *table,
                f"  {clean(text_of(event.get('message')))}.",
            ]
            return "\n".join(lines)
        case "held_out_checked":
            dropped = [f"{number} of {name}" for name, number in (at(event, "dropped") or {}).items() if number]
            return f"held-out problems left out, as training has them: {', '.join(dropped) or 'none'}"
    rest = {key: value for key, value in event.items() if key not in ("time", "event", "stage", "step", "kind")}
    said = text_of(rest.get("message") or rest.get("cause")) or named(rest)
    return clean(": ".join(part for part in (f"{kind.replace('_', ' ')} {place}".strip(), said) if part))


def sample_lines(line: Record, limit: int = 200) -> tuple[str, str, str]:
    """A prompt, its answer, and what the answer got."""
    messages = line.get("prompt")
    last = messages[-1] if isinstance(messages, list) and messages else line.get("prompt")
    prompt = text_of(at(last, "content") or last)
    reward = finite(line, "reward")
    fault = text_of(line.get("fault"))
    got = "none" if reward is None else f"{reward:.2f}"
    return shorten(prompt, limit), shorten(text_of(line.get("text")), limit), got + (f" ({fault})" if fault else "")


def sparkline(values: tuple[float, ...]) -> str:
    """The values as a row of little columns."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    scale = (len(SPARKS) - 1) / (high - low) if high > low else 0.0
    return "".join(SPARKS[round((value - low) * scale)] for value in values)


def looked(validation: Record) -> str:
    """A look at the validation rows: `reward 0.512, n 64`; of preferences their loss, margin and accuracy."""
    told = preferred(validation)
    return named({"loss": validation.get("loss"), **told} if told else validation)


def named(values: Record) -> str:
    """Names and values: `reward 0.512, n 64`."""
    return ", ".join(
        f"{name.replace('_', ' ')} {text_of(value) if (number := finite(values, name)) is None else plain(number)}"
        for name, value in values.items()
    )


def clean(text: str) -> str:
    """One line without anything that could steer a terminal: models write what they like."""
    return "".join(sign if sign.isprintable() else " " for sign in " ".join(text.split()))


def shorten(text: str, limit: int) -> str:
    """Clean text of at most `limit` signs, its middle left out: questions often stand at the end."""
    text = clean(text)
    if len(text) <= limit:
        return text
    head = (limit - 3) // 3
    return f"{text[:head].rstrip()} … {text[len(text) - (limit - 3 - head) :].lstrip()}"


def _part(name: str, value: float | None) -> str:
    if value is None:
        return ""
    if name in ("tokens/s", "s/step"):
        return f"{count(value) if name == 'tokens/s' else plain(value)} {name}"
    return f"{name} {plain(value)}"
