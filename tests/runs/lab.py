"""A tiny world for whole runs: a random model, rows, a recipe, graders in this process, and children to kill."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self
from unittest import mock

import torch

from sharpen.config.load import parse
from sharpen.config.recipe import Recipe
from sharpen.envs.base import Step
from sharpen.envs.pool import Call, Host
from sharpen.errors import SharpenError
from sharpen.graders.template import seen
from sharpen.runs import statistics
from sharpen.runs.store import read_lines
from sharpen.stages import attempts, environment, evaluate
from sharpen.types import ENVIRONMENT_ERROR, Example, Fault, Grade, Sample
from tests.tiny import tiny_model

Row = dict[str, Any]


def write_rows(path: Path, rows: Sequence[Row]) -> str:
    """A JSONL file; returns its path as a recipe names it."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def prompts(word: str, count: int) -> list[Row]:
    """Rows for RFT and evaluation."""
    return [{"prompt": f"{word} {number}", "answer": chr(97 + number % 26)} for number in range(count)]


def labelled(word: str, count: int) -> list[Row]:
    """Rows for SFT."""
    return [{"prompt": f"{word} {number}", "completion": f"{number * 7 % 10}ab"} for number in range(count)]


class World:
    """A folder with a model of one layer, and rows that do not meet."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.model = str(tiny_model(folder / "model", num_hidden_layers=1))
        self.sft = {"path": write_rows(folder / "sft.jsonl", labelled("count", 12))}
        self.sft_validation = {"path": write_rows(folder / "sft-validation.jsonl", labelled("hold", 4))}
        self.rft = {"path": write_rows(folder / "rft.jsonl", prompts("say", 8))}
        self.rft_validation = {"path": write_rows(folder / "rft-validation.jsonl", prompts("look", 3))}
        self.eval = {"path": write_rows(folder / "eval.jsonl", prompts("ask", 5))}

    def sft_stage(self, **changes: Any) -> Row:
        """Six steps, checkpoints after 2 and 4."""
        return {
            "type": "sft",
            "data": self.sft,
            "epochs": 2,
            "batch_size": 4,
            "save_every": 2,
            "eval_every": 3,
            "optim": {"lr": 3e-3},
            **changes,
        }

    def rft_stage(self, **changes: Any) -> Row:
        """Five steps, checkpoints after 2 and 4; the grader stands in a module of its own."""
        return {
            "type": "rft",
            "data": self.rft,
            "grader": PLUGIN,
            "probe": None,
            "prompts_per_step": 2,
            "group_size": 3,
            "steps": 5,
            "save_every": 2,
            "eval_every": 3,
            "sampling": {"max_tokens": 8},
            "algorithm": {"overlong_buffer": 0.0},
            "optim": {"lr": 3e-3},
            **changes,
        }

    def eval_config(self, **changes: Any) -> Row:
        """Five items, one drawn answer each."""
        return {"name": "held", "data": self.eval, "grader": PLUGIN, "max_tokens": 8, "samples": 1, **changes}

    def recipe(self, *stages: Row, evals: Sequence[Row] = (), **settings: Any) -> Recipe:
        """A recipe that computes in float32 on one thread."""
        values = {"model": self.model, "dtype": "float32", "threads": 1, "seed": 3, **settings}
        return parse({**values, "stages": list(stages), "evals": list(evals)})

    def whole(self) -> Recipe:
        """SFT and RFT, each with validation, and an evaluation; a batch of RFT waits a step, its supports with it."""
        return self.recipe(
            self.sft_stage(validation=self.sft_validation),
            self.rft_stage(
                validation=self.rft_validation,
                algorithm={"overlong_buffer": 0.0, "max_lag": 1},
                sampling={"max_tokens": 8, "top_p": 0.95},
            ),
            evals=[self.eval_config()],
        )

    def turns(self) -> Recipe:
        """RFT, validation and an evaluation in an environment, whose answers go into the journal."""
        env = {"type": "plugin", "use": "tests.stages.episodes:Count"}
        stage = self.rft_stage(env=env, grader=None, steps=3, save_every=1, validation=self.rft_validation)
        return self.recipe(stage, evals=[self.eval_config(env=env, grader=None)])

    def adapted(self) -> Recipe:
        """SFT with an adapter and dropout, RFT that continues it, and the 8-bit optimiser, on a bfloat16 base."""
        adapter = {"type": "lora", "rank": 4, "dropout": 0.1, "dora": True}
        return self.recipe(
            self.sft_stage(validation=self.sft_validation, adapter=adapter),
            self.rft_stage(adapter="continue", optim={"lr": 3e-3, "type": "adamw_8bit"}),
            evals=[self.eval_config()],
            dtype="bfloat16",
        )

    def preferred(self) -> Recipe:
        """SFT with an adapter, DPO that continues it, KTO on all weights, and a reward model, each with validation."""
        adapter = {"type": "lora", "rank": 2, "dropout": 0.1}
        pairs = [{"prompt": f"like {n}", "chosen": f"{n * 7 % 10}ab", "rejected": f"{n * 3 % 10}XY"} for n in range(9)]
        data = {"path": write_rows(self.folder / "pairs.jsonl", pairs[:6])}
        validation = {"path": write_rows(self.folder / "pairs-validation.jsonl", pairs[6:])}
        shared = {
            "data": data,
            "validation": validation,
            "batch_size": 3,
            "epochs": 2,
            "eval_every": 2,
            "save_every": 2,
        }
        return self.recipe(
            self.sft_stage(epochs=1, adapter=adapter),
            {"type": "dpo", **shared, "adapter": "continue", "final": "best"},
            {"type": "reward_model", **shared},
            {"type": "dpo", "name": "kto", "loss": "kto", **shared},
            evals=[self.eval_config(samples=0)],
        )

    def branched(self) -> Recipe:
        """Base -> SFT; from it two stages, of which the second continues nothing of the first; and one on the base."""
        adapter = {"type": "lora", "rank": 2}
        return self.recipe(
            self.sft_stage(epochs=1, save_every=1),
            self.sft_stage(name="one", epochs=1, save_every=1, adapter=adapter),
            self.rft_stage(steps=2, save_every=1, **{"from": "sft"}),
            self.sft_stage(name="other", epochs=1, adapter="continue", **{"from": "one"}),
            self.sft_stage(name="aside", epochs=1, **{"from": "base"}),
            evals=[self.eval_config(samples=0)],
        )


PLUGIN = {"type": "plugin", "use": "tests.runs.lab:letters"}


def letters(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """The share of lower-case letters: nearly every completion of a random model has another one."""
    text: str = sample["output_text"]
    return sum(character.islower() for character in text) / max(1, len(text))


class Here:
    """In the place of GraderPool: grades in this process, without the second that workers take to start."""

    function: Callable[[dict[str, Any], dict[str, Any]], float | Grade] = staticmethod(letters)

    def __init__(self, config: Any, *, function: Any = None, workers: int | None = None, ledger: Any = None) -> None:
        self._function = function or self.function

    async def grade_many(self, pairs: Sequence[tuple[Example, Sample]]) -> list[Grade]:
        return [self._grade(example, sample) for example, sample in pairs]

    def _grade(self, example: Example, sample: Sample) -> Grade:
        returned = self._function(seen(sample), dict(example.item))
        return returned if isinstance(returned, Grade) else Grade(returned)

    async def start(self) -> None:
        """Nothing to start."""

    def repeatable(self, grade: Grade) -> bool:
        """As foreign code: every grade goes into the journal."""
        return False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


class EnvHere:
    """In the place of EnvPool: the environment in this process."""

    def __init__(self, config: Any, *, workers: int | None = None) -> None:
        self.config = config
        self.max_turns: int = config.max_turns
        self._host = Host(config.build())

    async def answer(self, calls: Sequence[Call]) -> list[Step | Fault]:
        return [await self._answer(call) for call in calls]

    async def _answer(self, call: Call) -> Step | Fault:
        try:
            return await self._host.answer(call)
        except Exception as error:
            return Fault(ENVIRONMENT_ERROR, f"{type(error).__name__}: {error}")

    async def start(self) -> None:
        """Nothing to start."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...


@contextmanager
def quick(function: Callable[[dict[str, Any], dict[str, Any]], float | Grade] = letters) -> Iterator[None]:
    """Grade in this process with `function`, environments here too, and draw few bootstrap samples."""
    pool = type("Pool", (Here,), {"function": staticmethod(function)})
    with (
        mock.patch.object(attempts, "GraderPool", pool),
        mock.patch.object(evaluate, "GraderPool", pool),
        mock.patch.object(environment, "EnvPool", EnvHere),
        mock.patch.object(statistics, "RESAMPLES", 40),
    ):
        yield


def events(run: Path, *kinds: str) -> list[Row]:
    """The events of a run, of some kinds or all."""
    lines = read_lines(run / "events.jsonl")
    return [line for line in lines if not kinds or line["event"] in kinds]


def lineages(run: Path) -> dict[str, bytes]:
    """What each model of a run says of where it comes from."""
    return {str(path.relative_to(run)): path.read_bytes() for path in run.glob("models/*/lineage.json")}


def bits(run: Path) -> dict[str, Any]:
    """All that must not depend on how often a run was killed: what is in it, less the times and the models' lineages,
    which tell every setting and so differ where nothing else does."""
    found: dict[str, Any] = {}
    for pattern in ("models/**/*", "evals/**/*.jsonl", "rollouts/**/*.jsonl", "stages/*/best/model.safetensors"):
        for path in run.glob(pattern):
            if path.is_file() and path.name not in ("manifest.json", "lineage.json"):
                found[str(path.relative_to(run))] = path.read_bytes()
    lines = read_lines(run / "metrics.jsonl")
    found["metrics.jsonl"] = [{key: value for key, value in line.items() if key != "time"} for line in lines]
    summary = json.loads((run / "summary.json").read_text())
    for stage in summary["stages"]:
        stage.pop("seconds")
    found["summary.json"] = {**summary, "cost": summary["cost"]["tokens"], "peak_memory_bytes": None}
    journal = run / "journal"
    found["journal"] = {
        path.name: {json.dumps(json.loads(line)) for line in path.read_text().splitlines()}
        for path in (journal.iterdir() if journal.exists() else ())
    }
    found["unfinished"] = sorted(
        str(path.relative_to(run)) for path in run.rglob(".*") if path.name.endswith((".writing", ".old"))
    )
    return found


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """What of two runs' bits is not the same."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def forked(work: Callable[[], Any], log: Path) -> tuple[int, str]:
    """Do the work in a forked child. Returns its exit status (-9 when killed) and what it raised."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            status = _in_child(work, log, writing)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading, "rb") as said:
        text = said.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def _in_child(work: Callable[[], Any], log: Path, writing: int) -> int:
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    status, said = 0, ""
    try:
        work()
    except SharpenError as error:
        status, said = error.exit_code, f"{type(error).__name__}: {error}"
    except BaseException:
        status, said = 1, traceback.format_exc()
    os.write(writing, said.encode()[:60_000])
    return status


def one_thread() -> None:
    """Before any fork: a child inherits no threads, so there may be none."""
    torch.set_num_threads(1)
