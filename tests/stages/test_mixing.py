"""Weighted sources and replayed rows in whole runs: what each step saw, and that stopping changes none of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import sharpen as sh
from sharpen.config.data import FileData, InlineData, Replay
from sharpen.config.stages import SFT
from sharpen.errors import ConfigError, DataError, Interrupted, OverlapError, RunError
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines
from sharpen.stages import measure, pipeline
from sharpen.train.engine import Engine
from tests.runs.lab import World, bits, differences, labelled, prompts, write_rows
from tests.runs.test_extended import CONSTANT, trained
from tests.runs.test_stopped import Sender

pytestmark = pytest.mark.usefixtures("here")

Row = dict[str, Any]


def named(name: str, rows: list[Row]) -> list[Row]:
    return [{"id": f"{name} {place}", **row} for place, row in enumerate(rows)]


def pairs(word: str, count: int) -> list[Row]:
    return [{"prompt": row["prompt"], "chosen": row["completion"], "rejected": "no"} for row in labelled(word, count)]


ROWS: dict[str, list[Row]] = {
    "few": named("few", labelled("few", 3)),
    "many": named("many", labelled("many", 30)),
    "general": named("general", labelled("general", 5)),
}


INLINE = {"type": "inline", "rows": ROWS["few"]}
SUMS = {
    "type": "reasoning_gym",
    "generator": "chain_sum",
    "params": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "count": 4,
}


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Row]:
    return {name: {"path": write_rows(tmp_path / f"{name}.jsonl", rows)} for name, rows in ROWS.items()}


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[list[str]]]:
    """The ids of the rows of each optimiser step."""
    seen: list[list[str]] = []
    step = Engine.step

    def watched(self: Engine, rows: Any, *arguments: Any) -> Any:
        seen.append([row.atom for row in rows])
        return step(self, rows, *arguments)

    monkeypatch.setattr(Engine, "step", watched)
    yield seen


def weights(files: dict[str, Row], few: float, many: float) -> list[Row]:
    return [{**files["few"], "weight": few}, {**files["many"], "weight": many}]


def by_source(step: list[str]) -> Counter[str]:
    return Counter(name.split()[0] for name in step)


def test_every_step_of_sft_has_its_sources_in_proportion_and_each_is_seen_in_passes_of_its_own(
    world: World, files: dict[str, Row], steps: list[list[str]], tmp_path: Path
) -> None:
    stage = world.sft_stage(data=weights(files, 3, 1), epochs=1, batch_size=4)
    pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    assert [len(step) for step in steps] == [4] * 8 + [1], "an epoch has as many rows as the sources together: 33"
    assert all(by_source(step) == {"few": 3, "many": 1} for step in steps[:8])
    assert all(len({name for name in step if name.startswith("few")}) == 3 for step in steps[:8]), "a pass of 3 a step"
    once = [name for step in steps for name in step if name.startswith("many")]
    assert len(once) == len(set(once)) == 8, "a large source is not finished"
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert [line["rows"] for line in lines] == [{"data.0": 3, "data.1": 1}] * 8 + [{"data.0": 1, "data.1": 0}]


def test_prompts_of_rft_are_drawn_in_proportion(world: World, tmp_path: Path) -> None:
    data = [
        {"path": write_rows(tmp_path / "one.jsonl", prompts("one", 2)), "weight": 1},
        {"path": write_rows(tmp_path / "two.jsonl", prompts("two", 20)), "weight": 2},
    ]
    run = tmp_path / "run"
    stage = world.rft_stage(data=data, prompts_per_step=3, group_size=2, steps=4)
    pipeline.run(world.recipe(stage), run, base=world.folder)
    asked = [
        {line["prompt"][0]["content"] for line in read_lines(path)} for path in sorted(run.glob("rollouts/rft/*.jsonl"))
    ]
    assert [by_source(list(step)) for step in asked] == [{"one": 1, "two": 2}] * 4
    assert asked[0] | asked[1] > {"one 0", "one 1"}, "a pass over the small source takes two steps"
    assert [line["rows"] for line in read_lines(run / "metrics.jsonl")] == [{"data.0": 1, "data.1": 2}] * 4


@pytest.mark.parametrize("kind", ["dpo", "reward_model"])
def test_pairs_are_drawn_in_proportion(world: World, steps: list[list[str]], tmp_path: Path, kind: str) -> None:
    data = [
        {"path": write_rows(tmp_path / f"{name}.jsonl", named(name, pairs(name, count))), "weight": weight}
        for name, count, weight in (("one", 2, 1), ("two", 10, 3))
    ]
    stage = {"type": kind, "data": data, "batch_size": 4, "optim": {"lr": 1e-3}}
    run = tmp_path / "run"
    pipeline.run(world.recipe(stage), run, base=world.folder)
    assert [line["rows"] for line in read_lines(run / "metrics.jsonl")] == [{"data.0": 1, "data.1": 3}] * 3
    files = [{name.rpartition("/")[2] for name in step} for step in steps]  # a pair's two rows name its line
    assert [Counter(name[:3] for name in step) for step in files] == [{"one": 1, "two": 3}] * 3


def test_replayed_rows_are_the_share_asked_for_and_the_epochs_are_those_of_the_stage_s_own(
    world: World, files: dict[str, Row], steps: list[list[str]], tmp_path: Path
) -> None:
    stage = world.sft_stage(data=files["many"], epochs=2, batch_size=5)
    pipeline.run(world.recipe(stage), tmp_path / "plain", base=world.folder)
    alone = [name for step in steps for name in step]
    steps.clear()
    replay = {"data": files["general"], "share": 0.2}
    pipeline.run(world.recipe({**stage, "replay": replay}), tmp_path / "run", base=world.folder)
    assert len(steps) == 15, "60 own rows are 80 % of 75"
    assert all(by_source(step) == {"many": 4, "general": 1} for step in steps)
    assert [name for step in steps for name in step if name.startswith("many")] == alone
    again = Counter(name for step in steps for name in step if name.startswith("general"))
    assert set(again.values()) == {3} and len(again) == 5
    lines = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert all(line["rows"] == {"data": 4, "replay.data": 1} for line in lines)
    assert not any("rows" in line for line in read_lines(tmp_path / "plain" / "metrics.jsonl"))


def test_replay_of_several_sources_beside_weighted_ones(
    world: World, files: dict[str, Row], steps: list[list[str]], tmp_path: Path
) -> None:
    replay = {"data": [{**files["general"], "weight": 2}, {**world.sft, "weight": 1}], "share": 0.5}
    stage = world.sft_stage(data=weights(files, 1, 2), replay=replay, epochs=1, batch_size=6)
    run = tmp_path / "run"
    pipeline.run(world.recipe(stage), run, base=world.folder)
    wanted = {"data.0": 1, "data.1": 2, "replay.data.0": 2, "replay.data.1": 1}
    assert [line["rows"] for line in read_lines(run / "metrics.jsonl")] == [wanted] * 11


def test_sources_without_weights_are_one_stream_as_ever(
    world: World, files: dict[str, Row], steps: list[list[str]], tmp_path: Path
) -> None:
    whole = {"path": write_rows(tmp_path / "whole.jsonl", [*ROWS["few"], *ROWS["many"]])}
    runs = []
    for name, data in (("listed", [files["few"], files["many"]]), ("joined", whole)):
        pipeline.run(world.recipe(world.sft_stage(data=data, epochs=1)), tmp_path / name, base=world.folder)
        runs.append(bits(tmp_path / name))
    assert steps[: len(steps) // 2] == steps[len(steps) // 2 :]
    assert differences(*runs) in ([], ["models/sft/lineage.json"]), "only what names the data differs"


def recipe(world: World, files: dict[str, Row], epochs: float) -> Any:
    replay = {"data": files["general"], "share": 0.25}
    data = weights(files, 2, 1)
    return world.recipe(world.sft_stage(data=data, replay=replay, epochs=epochs, batch_size=4, optim=CONSTANT))


def test_a_stopped_mix_goes_on_with_the_same_rows_and_a_longer_one_begins_with_them(
    world: World, files: dict[str, Row], steps: list[list[str]], tmp_path: Path
) -> None:
    pipeline.run(recipe(world, files, 1), tmp_path / "whole", base=world.folder)
    whole = [list(step) for step in steps]
    steps.clear()
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        pipeline.run(recipe(world, files, 1), run, base=world.folder, observer=Sender(15, lambda what: what == "sft 4"))
    pipeline.resume(run)
    assert steps == whole
    assert not differences(bits(run), bits(tmp_path / "whole"))
    steps.clear()
    pipeline.resume(run, ["stages.0.epochs=2"])
    beyond = [list(step) for step in steps]
    steps.clear()
    pipeline.run(recipe(world, files, 2), tmp_path / "long", base=world.folder)
    assert steps == whole + beyond
    assert not differences(trained(run), trained(tmp_path / "long"))


@pytest.mark.parametrize(
    "one",
    [
        {"data": [{"weight": 1}, {"weight": 2}]},
        {"data": [{"weight": 1}, {"weight": 1}]},
        {"data": [{}, {}]},
        {"data": [{**INLINE, "weight": 1}, {"weight": 3}]},
        {"data": [{**INLINE, "weight": 3}, {"weight": 1}]},
        {"data": [{**SUMS, "weight": 1}, {"weight": 3}]},
        {"data": [{**SUMS, "weight": 3}, {"weight": 1}]},
        {"replay": {"share": 0.25}},
        {"replay": {"share": 0.5}},
        {"replay": {"share": 0.5, "source": "few"}},
    ],
    ids=lambda one: str(one)[:80],
)
def test_weights_and_replay_each_change_what_comes_out(
    world: World, files: dict[str, Row], one: dict[str, Any], tmp_path: Path, outcomes: dict[str, str]
) -> None:
    data: Any = files["many"]
    if "data" in one:
        first, second = one["data"]
        data = [first if "type" in first else {**files["few"], **first}, {**files["many"], **second}]
    replay = dict(one["replay"]) if "replay" in one else None
    if replay:
        replay["data"] = files[replay.pop("source", "general")]
    run = tmp_path / "run"
    pipeline.run(world.recipe(world.sft_stage(data=data, replay=replay, epochs=0.5)), run, base=world.folder)
    found = bits(run)["models/sft/model.safetensors"]
    assert found not in outcomes.values(), "an outcome as that of another mix"
    outcomes[str(one)] = found


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """The weights that each mix came to."""
    return {}


def test_the_run_notes_where_replayed_rows_lie_and_notices_when_they_change(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "general.jsonl", ROWS["general"])
    replay = {"data": [{"path": "general.jsonl", "weight": 1}, {"type": "inline", "rows": ROWS["few"], "weight": 1}]}
    run = Path("run")
    stage = world.sft_stage(replay={**replay, "share": 0.5})
    pipeline.run(world.recipe(stage), run, base=tmp_path)
    written = yaml.safe_load((run / "recipe.yaml").read_text())
    first, second = written["stages"][0]["replay"]["data"]
    assert Path(first["path"]) == tmp_path / "general.jsonl"
    assert Path(second["path"]) == tmp_path / "run" / "data" / "replay" / "sft-2.jsonl"
    assert first["weight"] == second["weight"] == 1
    assert set(written["resolved"]["data"]) == {"stages.sft.data", "stages.sft.replay.data"}
    write_rows(tmp_path / "general.jsonl", ROWS["general"][:4])
    with pytest.raises(RunError, match=r"data changed since the run began \(got 'stages.sft.replay.data'\)"):
        pipeline.resume(run, ["stages.0.epochs=3"])


def test_a_replayed_row_that_an_eval_asks_is_refused_as_any_other(
    world: World, files: dict[str, Row], tmp_path: Path
) -> None:
    asked = {"path": write_rows(tmp_path / "ask.jsonl", labelled("ask", 3))}
    stage = world.sft_stage(data=files["many"], replay={"data": [files["general"], asked], "share": 0.1})
    with pytest.raises(OverlapError, match=r"of 5 held-out prompts of evals\.held, .*3 in stages\.sft\.replay\.data"):
        pipeline.run(world.recipe(stage, evals=[world.eval_config()]), tmp_path / "run", base=world.folder)


def test_sums_that_are_replayed_are_dropped_from_generated_problems(world: World, tmp_path: Path) -> None:
    replay = {"data": {**SUMS, "suffix": " Only the number."}, "share": 0.5}
    held = world.eval_config(data={**SUMS, "count": 8})
    run = tmp_path / "run"
    pipeline.run(world.recipe(world.sft_stage(replay=replay, epochs=0.5), evals=[held]), run, base=world.folder)
    (checked,) = [line for line in read_lines(run / "events.jsonl") if line["event"] == "held_out_checked"]
    assert checked["dropped"]["evals.held"] == 4


BAD = "x.jsonl"


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ({"data": {"path": BAD, "weight": 2}}, r"stages\.0\.data: a source that stands alone has a weight \(got 2\)"),
        ({"data": [{"path": BAD, "weight": 2}, {"path": BAD}]}, r"stages\.0\.data: .* others have none \(.* 1\)"),
        ({"data": [{"path": BAD, "weight": 0}]}, r"stages\.0\.data\.0\.weight: should be greater than 0 \(got 0\)"),
        ({"data": [{"path": BAD, "weight": -1}]}, r"stages\.0\.data\.0\.weight: should be greater than 0"),
        ({"data": [{"path": BAD, "weight": float("inf")}]}, r"stages\.0\.data\.0\.weight: should be a finite number"),
        ({"replay": {"data": {"path": BAD}}}, r"stages\.0\.replay\.share: is missing"),
        ({"replay": {"share": 0.1}}, r"stages\.0\.replay\.data: is missing"),
        ({"replay": {"data": {"path": BAD}, "share": 1}}, r"stages\.0\.replay\.share: should be less than 1"),
        ({"replay": {"data": {"path": BAD}, "share": 0}}, r"stages\.0\.replay\.share: should be greater than 0"),
        ({"replay": {"data": {"path": BAD, "weight": 1}, "share": 0.1}}, r"stages\.0\.replay\.data: a source that"),
        (
            {"validation": [{"path": BAD, "weight": 1}, {"path": BAD, "weight": 1}]},
            r"stages\.0\.validation: a source of held-out rows has a weight",
        ),
        ({"interleave_probs": "0.1,0.9"}, r"here this is stages\.0\.data, as a list of sources .* `weight`"),
    ],
)
def test_wrong_mixes_are_refused_with_their_place(world: World, stage: Row, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        world.recipe({**world.sft_stage(), **stage})


def test_an_eval_and_a_stage_of_prompts_say_so_as_well(world: World) -> None:
    several = [{"path": BAD, "weight": 1}, {"path": BAD, "weight": 1}]
    with pytest.raises(ConfigError, match=r"evals\.0\.data: a source of held-out rows has a weight"):
        world.recipe(evals=[world.eval_config(data=several)])
    with pytest.raises(ConfigError, match=r"unknown key `replay`; it is a key of the type `sft`"):
        world.recipe(world.rft_stage(replay={"data": {"path": BAD}, "share": 0.1}))


@pytest.mark.parametrize("place", ["data", "replay"])
def test_a_source_without_rows_cannot_be_drawn_from(
    world: World, files: dict[str, Row], tmp_path: Path, place: str
) -> None:
    empty = {"path": write_rows(tmp_path / "empty.jsonl", [])}
    data = [{**files["many"], "weight": 1}, {**empty, "weight": 1}] if place == "data" else files["many"]
    replay = {"data": empty, "share": 0.1} if place == "replay" else None
    with pytest.raises(DataError, match=r"empty\.jsonl: the file has no rows"):
        pipeline.run(world.recipe(world.sft_stage(data=data, replay=replay)), tmp_path / "run", base=world.folder)


def test_a_bad_row_among_the_replayed_is_named_before_the_first_step(
    world: World, files: dict[str, Row], tmp_path: Path
) -> None:
    long = {"path": write_rows(tmp_path / "long.jsonl", [*ROWS["few"], {"prompt": "a", "completion": "x" * 500}])}
    stage = world.sft_stage(data=files["many"], replay={"data": long, "share": 0.1}, max_length=200)
    with pytest.raises(DataError, match=r"long\.jsonl:4: the row is longer than max_length = 200"):
        pipeline.run(world.recipe(stage), tmp_path / "run", base=world.folder)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_bench_measures_steps_of_the_mix_and_counts_replayed_rows(world: World, files: dict[str, Row]) -> None:
    stage = world.sft_stage(data=files["many"], replay={"data": files["general"], "share": 0.25}, epochs=1)
    found = measure.measure(world.recipe(stage), Path(), 1e6, Observer())["stages"][0]
    assert found["forecast"]["steps"] == 10, "30 own rows are three quarters of 40, in steps of 4"


def test_python_says_weights_and_replay_as_a_recipe_does(tmp_path: Path) -> None:
    own = [{"rows": ROWS["few"], "weight": 3}, {"path": "many.jsonl", "weight": 1}]
    replay = {"data": ROWS["general"], "share": 0.2}
    stage = sh.SFT(own, replay=replay)
    assert isinstance(stage, SFT) and isinstance(stage.data, tuple) and isinstance(stage.replay, Replay)
    inline, file = stage.data
    assert isinstance(inline, InlineData) and isinstance(file, FileData)
    assert (inline.weight, file.weight) == (3, 1) and list(inline.rows) == ROWS["few"]
    assert isinstance(stage.replay.data, InlineData) and list(stage.replay.data.rows) == ROWS["general"]
    with_path = [{"prompt": "a", "completion": "b", "path": "c"}]
    assert isinstance(sh.SFT(with_path).data, InlineData), "rows may have a path of their own"
    with pytest.raises(ConfigError, match="wieght"):
        sh.SFT([{"path": "a.jsonl", "wieght": 3}])
    with pytest.raises(ConfigError, match=r"replay\.share: is missing"):
        sh.SFT(ROWS["few"], replay={"data": ROWS["general"]})
