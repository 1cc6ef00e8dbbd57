"""What to type next: three commands that fit what came out of a run, and work as they stand."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sharpen.reports.numbers import at, finite
from sharpen.reports.read import Record, text_of
from sharpen.runs.store import resume_command

SHOWN = 3


class Command(NamedTuple):
    """A line for the shell, and what it is for."""

    line: str
    why: str


def next_commands(path: Path, recipe: Record, summary: Record, state: str) -> list[Command]:
    """The commands for the run in `path`, the most fitting first; `state` as `read.Run.state` has it."""
    found = _Offers(path, recipe, summary)
    offers = found.after() if state == "finished" else found.before()
    return list(dict.fromkeys(offers))[:SHOWN]


class _Offers:
    """Commands about one run, in the order of their use; those that could not work are left out."""

    def __init__(self, path: Path, recipe: Record, summary: Record) -> None:
        self.path = path if path.name not in ("", "..") else path.resolve()
        self.recipe, self.summary = recipe, summary
        self.run = shlex.quote(str(self.path))
        self.stages = [stage for stage in _list(recipe, "stages") if isinstance(stage, Mapping)]
        remarks = [remark for remark in _list(summary, "remarks") if isinstance(remark, Mapping)]
        self.remarks = {text_of(remark.get("kind")): remark for remark in reversed(remarks)}
        done = {text_of(at(part, "name")): at(part, "type") for part in _list(summary, "stages")}
        self.scorers = [name for name, kind in done.items() if kind == "reward_model"]
        self.done = [name for name in done if name not in self.scorers]

    def before(self) -> Iterator[Command]:
        """For a run that is not finished."""
        if not self._is_of_a_session():
            yield Command(resume_command(self.path), "go on from the last checkpoint")
        if self._samples() and not self._is_of_a_session():
            yield Command(f"sharpen preflight {self._file('recipe.yaml')}", "what its model gets before any training")
        yield from self._with_the_model()
        yield Command(f"sharpen report {self.run}", "the page of the run as it stands")

    def after(self) -> Iterator[Command]:
        """For a finished run."""
        if not self._is_of_a_session():
            yield from self._mending()
        yield from self._with_the_model()
        if self.done and not self._is_of_a_session():
            yield self._other_seed()
        yield Command(f"sharpen report {self.run}", "the page of the run, written anew")

    def _mending(self) -> Iterator[Command]:
        """What the remarks ask for, as far as a command can do it."""
        last = self.stages[-1] if self.stages else {}
        name, kind = text_of(last.get("name")), text_of(last.get("type"))
        length = "steps" if kind == "rft" else "epochs"
        amount = finite(last, length)
        if "still_improving" in self.remarks and "overfitting" not in self.remarks and amount and self._can_go_on(name):
            more = f"{resume_command(self.path)} --set stages.{name}.{length}={_plain(2 * amount)}"
            yield Command(more, "train on: it was still improving")
        spoilt = self.remarks.get("overfitting")
        if spoilt and spoilt.get("stage") == name and amount and amount >= 2:
            yield self._again(f"stages.{name}.{length}={_plain(amount // 2)}", "shorter", "stop before it overfits")
        rate = finite(last, "optim", "lr")
        for kind, why in (("worse", "it has done harm"), ("both_unlikely", "better answers became unlikely too")):
            if text_of(at(self.remarks.get(kind), "stage")) == name and rate:
                yield self._again(f"stages.{name}.optim.lr={rate / 4:g}", "slower", f"a lower rate: {why}")
        cut = self.remarks.get("cut_off")
        if cut and cut.get("main") and (limit := finite(cut, "figures", "max_tokens")):
            setting = f"evals.{text_of(cut.get('eval'))}.max_tokens={_plain(2 * limit)}"
            yield self._again(setting, "longer", "let answers end: many were cut off")
        if self._samples() and {"nothing_right", "nothing_left"} & set(self.remarks):
            yield Command(f"sharpen preflight {self._file('recipe.yaml')}", "what the model gets before any training")
        if text_of(at(self.remarks.get("no_difference"), "stage")) == name != "":
            yield self._other_seed()

    def _with_the_model(self) -> Iterator[Command]:
        """Talk to it, and have it answer rows; before a stage is done there is only the base model."""
        if self.scorers and not self.done:
            grader = f"{{type: reward_model, model: {self.path / 'models' / self.scorers[-1]}}}"
            line = f"sharpen grade --grader {shlex.quote(grader)} --data rows.jsonl --samples samples.jsonl"
            yield Command(line, "its scores of answers of yours")
        if not self.done:
            if not self.stages and (model := text_of(self.summary.get("model"))):
                yield Command(f"sharpen chat {shlex.quote(model)}", "talk to it")
            return
        harmed = text_of(at(self.remarks.get("worse"), "stage"))
        place = self.done.index(harmed) if harmed in self.done else 0
        best = self._file(f"models/{self.done[place - 1]}") if place else self.run
        yield Command(f"sharpen chat {best} --compare base", "talk to it, beside the model that it was made from")
        yield Command(f"sharpen predict {best} --in rows.jsonl --out answers.jsonl", "its answers to rows of yours")

    def _other_seed(self) -> Command:
        seed = int(finite(self.summary, "seed") or 0) + 1
        made = self._free(f"seed-{seed}")
        command = self._again(f"seed={seed}", f"seed-{seed}", "how much of it is luck")
        return Command(f"{command.line} && sharpen compare {self.run} {shlex.quote(str(made))}", command.why)

    def _again(self, setting: str, suffix: str, why: str) -> Command:
        """The run anew with another setting, in a folder beside it."""
        out = shlex.quote(str(self._free(suffix)))
        return Command(f"sharpen run {self._file('recipe.yaml')} --set {shlex.quote(setting)} --out {out}", why)

    def _free(self, suffix: str) -> Path:
        """A folder beside the run that is not there yet."""
        first = self.path.with_name(f"{self.path.resolve().name}-{suffix}")
        others = (first.with_name(f"{first.name}-{number}") for number in range(2, 1000))
        return next(folder for folder in (first, *others) if not folder.exists())

    def _file(self, name: str) -> str:
        return shlex.quote(str(self.path / name))

    def _samples(self) -> bool:
        return any(stage.get("type") == "rft" for stage in self.stages)

    def _can_go_on(self, stage: str) -> bool:
        """Whether the stage has left a checkpoint to train on from."""
        return any(self.path.glob(f"stages/*-{stage}/checkpoints/step-*"))

    def _is_of_a_session(self) -> bool:
        """Whether a grader was a function of a Python session, which no command can find again."""
        uses = [text_of(at(part, "grader", "use")) for part in (*self.stages, *_list(self.recipe, "evals"))]
        return any(use.startswith("__main__:") or "<" in use for use in uses)


def _list(record: Record, key: str) -> list[Any]:
    value = record.get(key)
    return value if isinstance(value, list) else []


def _plain(number: float) -> str:
    return f"{number:g}"
