"""Trackers: a run that is stopped and resumed stands in each real one, whole and once; one that fails harms nothing."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar
from unittest import mock

import pytest

from sharpen.config.load import parse
from sharpen.errors import ConfigError, Interrupted
from sharpen.runs import reporting, trackers
from sharpen.runs.store import read_lines
from sharpen.runs.trackers import flat, numbers
from sharpen.stages import pipeline
from tests.runs.lab import World, bits, differences, events, quick
from tests.runs.test_stopped import Sender

ALL = ["tensorboard", "wandb", "mlflow", "trackio"]

Curves = dict[str, list[tuple[int, float]]]


@pytest.fixture(scope="module")
def run(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run that told all four, and was stopped in the middle of its second stage and resumed."""
    folder = tmp_path_factory.mktemp("tracked")
    settings = {
        "WANDB_MODE": "offline",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "TRACKIO_DIR": str(folder / "trackio"),
    }
    recipe = world.recipe(
        world.sft_stage(validation=world.sft_validation),
        world.rft_stage(save_every=1000),
        evals=[world.eval_config()],
        report_to=ALL,
    )
    path = folder / "run"
    with mock.patch.dict(os.environ, settings), mock.patch.object(reporting, "DRAIN_STOPPED", 60.0), quick():
        with pytest.raises(Interrupted):
            pipeline.run(recipe, path, base=world.folder, observer=Sender(15, lambda what: what == "rft 3"))
        pipeline.resume(path)
        yield path


def expected(run: Path) -> Curves:
    """The curves that metrics.jsonl and the evals say there should be."""
    curves: Curves = {}
    for line in read_lines(run / "metrics.jsonl"):
        for name, value in numbers(line).items():
            if name not in ("step", "steps"):
                curves.setdefault(f"{line['stage']}/{name}", []).append((line["step"], value))
    for step, model in enumerate(("base", "sft", "rft")):
        lines = read_lines(run / "evals" / "held" / f"{model}.jsonl")
        share = sum(line["correct"] for line in lines) / len(lines)
        curves.setdefault("eval/held", []).append((step, share))
    return curves


def same(found: Curves, wanted: Curves) -> None:
    """Equal curves; TensorBoard keeps them in single precision."""
    assert {"sft/loss", "sft/validation/loss", "rft/reward/mean", "rft/length/max", "eval/held"} <= set(wanted)
    assert set(found) == set(wanted)
    for name, points in wanted.items():
        assert [step for step, _ in found[name]] == [step for step, _ in points], name
        assert [value for _, value in found[name]] == pytest.approx([value for _, value in points], rel=1e-6), name


def identity(run: Path, tracker: str) -> str:
    return str(json.loads((run / "trackers" / f"{tracker}.json").read_text())["identity"])


def test_no_tracker_was_in_trouble(run: Path) -> None:
    assert events(run, "alert") == []


def test_tensorboard_reads_the_curves_from_its_event_files(run: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    reader.Reload()
    names = reader.Tags()["scalars"]
    same({name: [(point.step, point.value) for point in reader.Scalars(name)] for name in names}, expected(run))
    (recipe,) = reader.Tensors("recipe/text_summary")
    assert b"stages/1/group_size: 3" in recipe.tensor_proto.string_val[0]
    assert len(list((run / "tensorboard").iterdir())) == 2  # one of each process


def wandb_records(run: Path) -> Iterator[Any]:
    """The protobuf records of W&B's offline files: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        data, place, whole = path.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if 32768 - place % 32768 < 7:
                place += 32768 - place % 32768
                continue
            length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
            whole += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # a full record, or the last part of one
                record = Record()
                record.ParseFromString(whole)
                yield record
                whole = b""


@pytest.mark.parametrize(("named", "shown"), [("theirs", "theirs"), ("", "mine")])
def test_wandb_calls_a_run_as_its_variable_says_else_by_its_folder(
    named: str, shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = mock.MagicMock()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setenv("WANDB_NAME", named)
    trackers.WandB().start(tmp_path / "mine", {}, "")
    assert wandb.init.call_args.kwargs["name"] == shown


def test_wandb_keeps_the_curves_in_one_offline_run(run: Path) -> None:
    curves: Curves = {}
    runs, steps, config, status = set(), set(), "", []
    for record in wandb_records(run):
        if record.WhichOneof("record_type") == "run":
            runs.add(record.run.run_id)
            config += str(record.run.config)
        if record.WhichOneof("record_type") == "metric":
            steps.add(record.metric.step_metric)
        if record.WhichOneof("record_type") == "summary":
            status += [item.value_json for item in record.summary.update if "status" in (item.key, *item.nested_key)]
        items = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        series = {name.partition("/")[0] for name in items if not name.startswith("_")}
        for name, value in items.items():
            if not name.startswith("_") and not name.endswith("/step"):
                curves.setdefault(name, []).append((items[f"{next(iter(series))}/step"], value))
    wanted = {name: points for name, points in expected(run).items() if not name.endswith("/step")}
    same(curves, wanted)
    assert runs == {identity(run, "wandb")}
    assert {"sft/step", "rft/step", "eval/step"} <= steps
    assert "group_size" in config and '"finished"' in status


def test_mlflow_keeps_the_curves_in_one_run(run: Path) -> None:
    from mlflow import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("sharpen")
    assert experiment
    (found,) = client.search_runs([experiment.experiment_id])
    assert found.info.run_id == identity(run, "mlflow")
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["stages/1/group_size"] == "3"
    names = [name for name in found.data.metrics if not name.startswith("summary/")]
    history = {name: client.get_metric_history(found.info.run_id, name) for name in names}
    same({name: [(point.step, point.value) for point in points] for name, points in history.items()}, expected(run))
    score = json.loads((run / "summary.json").read_text())["stages"][1]["evals"]["held"]["score"]
    assert found.data.metrics["summary/stages/1/evals/held/score"] == score


def test_trackio_keeps_the_curves_in_one_run(run: Path) -> None:
    import sqlite3

    name = identity(run, "trackio")
    database = sqlite3.connect(run.parent / "trackio" / "sharpen.db")
    rows = database.execute("select run_name, step, metrics from metrics order by id").fetchall()
    assert {row[0] for row in rows} == {name}
    curves: Curves = {}
    for _, step, values in rows:
        for metric, value in json.loads(values).items():
            if not metric.startswith("summary/"):
                curves.setdefault(metric, []).append((step, value))
    same(curves, expected(run))
    assert "group_size" in str(database.execute("select config from configs").fetchall())


class Fake:
    """A tracker that takes everything, unless told to fail or to hang at a call."""

    fails: str = ""
    hangs: str = ""
    release: ClassVar[threading.Event]
    calls: ClassVar[list[tuple[Any, ...]]]

    def _act(self, name: str, *what: Any) -> None:
        self.calls.append((name, *what))
        if self.hangs == name:
            self.release.wait(60)
        if self.fails == name:
            raise SystemExit("gone") if name == "finish" else RuntimeError(f"{name} is down")

    def start(self, run: Path, config: Mapping[str, Any], identity: str) -> str:
        self._act("start", identity)
        return "seven"

    def log(self, series: str, step: int, values: Mapping[str, float]) -> None:
        self._act("log", series, step)

    def finish(self, status: str, summary: Mapping[str, float]) -> None:
        self._act("finish", status)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Fake]]:
    class Made(Fake):
        calls: ClassVar[list[tuple[Any, ...]]] = []
        release = threading.Event()

    monkeypatch.setitem(trackers.TRACKERS, "wandb", Made)
    yield Made
    Made.release.set()


def small(world: World, **settings: Any) -> Any:
    return world.recipe(world.sft_stage(), evals=[world.eval_config()], **settings)


@pytest.fixture(scope="module")
def untracked(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    with quick():
        pipeline.run(small(world), tmp_path_factory.mktemp("untracked") / "run", base=world.folder)
    return bits(tmp_path_factory.getbasetemp() / "untracked0" / "run")


@pytest.mark.parametrize("call", ["start", "log", "finish"])
@pytest.mark.usefixtures("here")
def test_a_tracker_that_is_down_leaves_the_run_as_it_is_and_one_alert(
    world: World, tmp_path: Path, fake: type[Fake], untracked: dict[str, Any], call: str
) -> None:
    fake.fails = call
    pipeline.run(small(world, report_to="wandb"), tmp_path / "run", base=world.folder)
    assert not differences(bits(tmp_path / "run"), untracked)
    (alert,) = events(tmp_path / "run", "alert")
    cause = "SystemExit: gone" if call == "finish" else f"{call} is down"
    assert alert["kind"] == "tracker" and "wandb is left alone" in alert["message"] and cause in alert["message"]
    assert [name for name, *_ in fake.calls].count(call) == 1


@pytest.mark.parametrize(("call", "said"), [("start", "did not take everything"), ("log", "did not take everything")])
@pytest.mark.usefixtures("here")
def test_a_tracker_that_hangs_holds_up_no_step(
    world: World,
    tmp_path: Path,
    fake: type[Fake],
    untracked: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    call: str,
    said: str,
) -> None:
    fake.hangs = call
    monkeypatch.setattr(reporting, "DRAIN", 0.1)
    pipeline.run(small(world, report_to=["wandb"]), tmp_path / "run", base=world.folder)  # else: 60 seconds a call
    assert not fake.release.is_set() and [name for name, *_ in fake.calls][-1] == call
    assert not differences(bits(tmp_path / "run"), untracked)
    (alert,) = events(tmp_path / "run", "alert")
    assert said in alert["message"]


@pytest.mark.usefixtures("here")
def test_a_tracker_that_falls_behind_is_left_alone_with_a_bounded_queue(
    world: World, tmp_path: Path, fake: type[Fake], monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.hangs = "start"
    monkeypatch.setattr(reporting, "WAITING", 3)
    pipeline.run(small(world, report_to=["wandb"]), tmp_path / "run", base=world.folder)
    (alert,) = events(tmp_path / "run", "alert")
    assert "does not keep up: 3 lines wait" in alert["message"]


@pytest.mark.usefixtures("here")
def test_a_resumed_run_goes_on_in_the_same_place_and_tells_each_step_once(
    world: World, tmp_path: Path, fake: type[Fake]
) -> None:
    class Crash(Sender):
        def _look(self, what: str) -> None:
            if self.when(what):
                time.sleep(0.5)  # what was told before has arrived
                raise ConfigError("out of order")

    recipe = small(world, report_to=["wandb"])
    with pytest.raises(ConfigError):
        pipeline.run(recipe, tmp_path / "run", base=world.folder, observer=Crash(0, lambda what: what == "sft 4"))
    pipeline.resume(tmp_path / "run")
    assert [identity for name, identity, *_ in fake.calls if name == "start"] == ["", "seven"]
    told = [step for name, series, *rest in fake.calls if (name, series) == ("log", "sft") for step in rest]
    assert told == [1, 2, 3, 4, 5, 6]  # steps 3 and 4 were done over
    assert [call[1] for call in fake.calls if call[0] == "finish"] == ["failed", "finished"]


@pytest.mark.parametrize("name", ALL)
def test_a_missing_package_is_told_with_its_command_before_anything_is_done(
    world: World, tmp_path: Path, name: str
) -> None:
    absent = mock.patch.object(trackers, "find_spec", lambda asked: None if asked == name else find_spec(asked))
    with absent, pytest.raises(ConfigError, match=rf"tracker {name} is not installed.*pip install {name}") as caught:
        pipeline.run(small(world, report_to=name), tmp_path / "run", base=world.folder)
    assert caught.value.path == "report_to"
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("here")
def test_trackers_can_be_asked_for_when_a_run_goes_on(world: World, tmp_path: Path, fake: type[Fake]) -> None:
    pipeline.run(small(world), tmp_path / "run", base=world.folder)
    before = bits(tmp_path / "run")
    pipeline.resume(tmp_path / "run", ["report_to=wandb"])
    assert [call[0] for call in fake.calls] == ["start", "finish"]
    assert bits(tmp_path / "run") == before


@pytest.mark.parametrize(
    ("value", "names"), [("wandb", ("wandb",)), (["mlflow", "wandb"], ("mlflow", "wandb")), ("none", ()), (None, ())]
)
def test_one_tracker_or_a_list_is_named(value: Any, names: tuple[str, ...]) -> None:
    assert parse({"model": "m", "report_to": value}).report_to == names


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"report_to\.0.*'tensorboard', 'wandb', 'mlflow' or 'trackio'"):
        parse({"model": "m", "report_to": "comet"})


def test_nested_values_become_names_with_slashes() -> None:
    line = {"reward": {"mean": 0.5, "by_grader": {"a": 1}}, "kl": None, "skipped": True, "text": "x", "list": [2]}
    assert numbers(line) == {"reward/mean": 0.5, "reward/by_grader/a": 1.0, "list/0": 2.0}
    assert flat({"a": [{"b": None}]}) == {"a/0/b": None}
