"""`from`: stages that start from another stage, from the recipe's model or an earlier run, and what that changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.config.load import RESOLVED, load, parse, schema
from sharpen.config.stages import SFT
from sharpen.errors import ConfigError, Interrupted, ModelError, RunError, SharpenError
from sharpen.runs.store import read_lines
from sharpen.stages import pipeline, starts
from tests.runs.lab import World, bits, differences, events, prompts, quick, write_rows
from tests.runs.test_damaged import Stop, flip
from tests.tiny import tiny_model

pytestmark = pytest.mark.usefixtures("here")

LORA = {"type": "lora", "rank": 2, "alpha": 2}


def short(world: World, name: str, **changes: Any) -> dict[str, Any]:
    """Three steps of sft, with a checkpoint after each."""
    return world.sft_stage(name=name, epochs=1, save_every=1, **changes)


def branches(world: World, **of_b: Any) -> Any:
    """base -> sft; sft -> a; sft -> b."""
    stages = (short(world, "sft"), short(world, "a", adapter=LORA), short(world, "b", **{"from": "sft", **of_b}))
    return world.recipe(*stages, evals=[world.eval_config(samples=0)])


def weights(run: Path, stage: str) -> bytes:
    return (run / "models" / stage / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def branched(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of `branches`, to be read only."""
    run = tmp_path_factory.mktemp("branched") / "run"
    with quick():
        pipeline.run(branches(world), run, base=world.folder)
    return run


@pytest.fixture
def copied(branched: Path, tmp_path: Path) -> Iterator[Path]:
    yield Path(shutil.copytree(branched, tmp_path / "copied"))


# The recipe


STAGES: list[tuple[list[dict[str, Any]], list[int | None]]] = [
    ([{}, {}, {}], [None, 0, 1]),
    ([{}, {}, {"from": "s0"}], [None, 0, 0]),
    ([{}, {"from": "base"}, {}], [None, None, 1]),
    ([{}, {"from": "./elsewhere"}, {}], [None, None, 1]),
    ([{}, {"type": "reward_model"}, {}], [None, 0, 0]),
    ([{"type": "reward_model"}, {}], [None, None]),
]


@pytest.mark.parametrize(("changes", "parents"), STAGES)
def test_a_stage_starts_from_the_nearest_before_that_writes_text_unless_it_says_otherwise(
    changes: list[dict[str, Any]], parents: list[int | None]
) -> None:
    stages = [{"type": "sft", "name": f"s{n}", "data": {"path": "rows.jsonl"}, **own} for n, own in enumerate(changes)]
    recipe = parse({"model": "m", "stages": stages})
    assert [recipe.parent(index) for index in range(len(stages))] == parents
    folders = [starts.start(recipe, index, Path("run")) for index in range(len(stages))]
    named = [recipe.elsewhere(index) or "m" for index in range(len(stages))]
    assert folders == [named[i] if p is None else f"run/models/s{p}" for i, p in enumerate(parents)]


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"from": "stf"}, "did you mean `sft`?"),
    ({"from": "elsewhere"}, "the names are base, sft, rm"),
    ({"from": "elsewhere"}, "such as `./elsewhere`"),
    ({"from": "own"}, "that is the stage itself"),
    ({"from": "later"}, "put 'later' before 'own'"),
    ({"from": "rm"}, "makes scores, not text"),
    ({"from": "base", "adapter": "continue"}, "it starts from the recipe's model; write `type: lora`"),
    ({"from": "sft", "adapter": "continue"}, "'sft' before it trains all weights"),
    ({"from": "runs/x", "adapter": {**LORA, "stack": True}}, "an adapter of an earlier run can only be continued"),
    ({"from": ""}, "stages.2.from"),
    ({"from": 3}, "stages.2.from: should be a valid string"),
]


@pytest.mark.parametrize(("own", "said"), FAULTS)
def test_a_start_that_cannot_be_is_told_with_what_can(own: dict[str, Any], said: str) -> None:
    data = {"data": {"path": "rows.jsonl"}}
    stages = [
        {"type": "sft", **data},
        {"type": "reward_model", "name": "rm", **data},
        {"type": "sft", "name": "own", **data, **own},
        {"type": "sft", "name": "later", **data},
    ]
    with pytest.raises(ConfigError) as error:
        parse({"model": "m", "stages": stages})
    assert said in str(error.value)


def test_everything_written_calls_it_from_and_python_may_say_from_with_a_stroke(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    data = {"path": "rows.jsonl"}
    two = [{"type": "sft", "name": name, "data": data} for name in ("one", "two")]
    path.write_text(yaml.safe_dump({"model": "m", "stages": two}))
    recipe = load(path, ["stages.two.from=base"])
    assert [stage["from"] for stage in recipe.model_dump(mode="json")["stages"]] == [None, "base"]
    assert '"from":"base"' in recipe.model_dump_json() and "from_" not in recipe.model_dump_json()
    described = schema()["$defs"]["SFT"]["properties"]
    assert "stage before it" in described["from"]["description"] and "from_" not in described
    assert SFT.model_validate({"from_": "one", "data": data}) == SFT.model_validate({"from": "one", "data": data})


# Branches


def test_a_branch_has_the_bits_of_a_chain_without_the_other_and_from_changes_them(
    world: World, branched: Path, tmp_path: Path
) -> None:
    for name, stages in {
        "chain": (short(world, "sft"), short(world, "b")),
        "alone": (short(world, "b"),),
    }.items():
        pipeline.run(world.recipe(*stages), tmp_path / name, base=tmp_path)
    pipeline.run(branches(world, **{"from": "base"}), tmp_path / "based", base=tmp_path)
    assert weights(branched, "b") == weights(tmp_path / "chain", "b")
    assert weights(tmp_path / "based", "b") == weights(tmp_path / "alone", "b")
    assert len({weights(run, "b") for run in (branched, tmp_path / "based")}) == 2
    assert weights(tmp_path / "based", "a") == weights(branched, "a")


def test_changes_are_measured_against_what_a_stage_starts_from(branched: Path) -> None:
    scores = {name: read_lines(branched / f"evals/held/{name}.jsonl") for name in ("base", "sft", "a", "b")}
    mean = {name: sum(line["correct"] for line in lines) / len(lines) for name, lines in scores.items()}
    stages = json.loads((branched / "summary.json").read_text())["stages"]
    deltas = {stage["name"]: stage["evals"]["held"]["vs_previous"]["delta"] for stage in stages}
    before = {"sft": "base", "a": "sft", "b": "sft"}
    assert deltas == {name: pytest.approx(mean[name] - mean[old]) for name, old in before.items()}


@pytest.mark.parametrize(("stage", "step"), [("a", 3), ("b", 1), ("b", 3)])
def test_a_stopped_run_with_branches_ends_with_the_bits_of_an_undisturbed_one(
    world: World, branched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int
) -> None:
    with pytest.raises(Interrupted):
        pipeline.run(branches(world), tmp_path / "run", base=world.folder, observer=Stop(monkeypatch, stage, step))
    pipeline.resume(tmp_path / "run")
    assert not differences(bits(tmp_path / "run"), bits(branched))


@pytest.mark.parametrize(("damaged", "again"), [("sft", ["sft", "a", "b"]), ("a", ["a"]), ("b", ["b"])])
def test_only_what_descends_from_a_damaged_model_is_made_anew(
    branched: Path, copied: Path, damaged: str, again: list[str]
) -> None:
    flip(copied / "models" / damaged / "model.safetensors")
    shutil.rmtree(copied / "stages", ignore_errors=True)
    before = len(events(copied))
    pipeline.resume(copied)
    assert [event["stage"] for event in events(copied)[before:] if event["event"] == "stage_finished"] == again
    evaluated = [event["model"] for event in events(copied)[before:] if event["event"] == "evaluated"]
    assert evaluated == again
    mine, theirs = bits(copied), bits(branched)
    for found in (mine, theirs):  # a stage done anew writes its lines after those of one that stays
        found["metrics.jsonl"].sort(key=lambda line: (line["stage"], line["step"]))
    assert not differences(mine, theirs)


def test_evals_that_a_kill_left_out_are_made_up_for_on_the_model_they_are_of(branched: Path, copied: Path) -> None:
    for name in ("base", "a"):
        (copied / f"evals/held/{name}.jsonl").unlink()
    pipeline.resume(copied)
    assert not differences(bits(copied), bits(branched))


def test_a_leaf_can_be_trained_further_and_a_model_that_others_start_from_cannot(copied: Path) -> None:
    b = weights(copied, "b")
    pipeline.resume(copied, ["stages.a.epochs=2"])
    assert max(line["step"] for line in read_lines(copied / "metrics.jsonl") if line["stage"] == "a") == 6
    assert weights(copied, "b") == b
    with pytest.raises(ConfigError, match="a has begun from its model"):
        pipeline.resume(copied, ["stages.sft.epochs=2"])
    with pytest.raises(ConfigError, match=r"stages\.2\.from"):
        pipeline.resume(copied, ["stages.b.from=a"])


# Earlier runs


def test_a_run_stands_for_its_last_model_and_the_stage_goes_on_from_its_bits(world: World, tmp_path: Path) -> None:
    whole, first = tmp_path / "whole", tmp_path / "first"
    pipeline.run(world.recipe(short(world, "one", adapter=LORA), short(world, "two")), whole, base=tmp_path)
    pipeline.run(world.recipe(short(world, "one", adapter=LORA)), first, base=tmp_path)
    for number, path in enumerate(("./first", "first/models/one", str(first))):
        run = tmp_path / f"second-{number}"
        pipeline.run(world.recipe(short(world, "two", **{"from": path})), run, base=tmp_path)
        assert weights(run, "two") == weights(whole, "two")
        written = yaml.safe_load((run / "recipe.yaml").read_text())
        assert written["stages"][0]["from"] == str(first / "models/one")


def test_an_adapter_of_an_earlier_run_is_continued_as_in_its_own(world: World, tmp_path: Path) -> None:
    """Also where its base is a model of that run; and the adapter that comes of it names a base that is there."""
    one, two = short(world, "one"), short(world, "two", adapter={**LORA, "dropout": 0.1})
    three = short(world, "three", adapter="continue")
    pipeline.run(world.recipe(one, two, three), tmp_path / "whole", base=tmp_path)
    first = tmp_path / "first"
    pipeline.run(world.recipe(one, two), first, base=tmp_path)
    run = tmp_path / "second"
    recipe = world.recipe({**three, "from": "first/models/two"})
    pipeline.run(recipe, run, base=tmp_path)
    for name in ("model.safetensors", "adapter/adapter_model.safetensors"):
        made = [(folder / "models/three" / name).read_bytes() for folder in (run, tmp_path / "whole")]
        assert made[0] == made[1], name
    noted = json.loads((run / "models/three/adapter/adapter_config.json").read_text())
    assert noted["base_model_name_or_path"] == str(first / "models/one")
    (told,) = events(run, "trains")
    assert told["message"].startswith(f"LoRA rank 2 on all linear layers, continued from {first}/models/two: ")

    flip(first / "models/one/chat_template.jinja")
    with pytest.raises(RunError, match="does not match its manifest"):
        pipeline.resume(run)
    shutil.rmtree(first / "models/one")
    with pytest.raises(ModelError, match=f"looked for the folder {first}/models/one"):
        pipeline.run(recipe, tmp_path / "third", base=tmp_path)
    shutil.copytree(tmp_path / "whole/models/one", first / "models/one")
    shutil.rmtree(first / "models/two/adapter")
    with pytest.raises(ModelError, match="there is no adapter to continue"):
        pipeline.run(recipe, tmp_path / "fourth", base=tmp_path)


def test_an_adapter_without_a_lineage_is_continued_by_what_peft_notes(world: World, tmp_path: Path) -> None:
    pipeline.run(world.recipe(short(world, "one", adapter=LORA)), tmp_path / "first", base=tmp_path)
    old = Path(shutil.copytree(tmp_path / "first/models/one", tmp_path / "old"))
    (old / "lineage.json").unlink()
    (old / "manifest.json").unlink()
    made = []
    for name, start in (("new", "first/models/one"), ("older", "./old")):
        stage = short(world, "two", adapter="continue", **{"from": start})
        pipeline.run(world.recipe(stage), tmp_path / name, base=tmp_path)
        made.append(weights(tmp_path / name, "two"))
    assert made[0] == made[1]


def test_an_earlier_model_that_changed_since_the_run_began_is_refused(
    world: World, branched: Path, tmp_path: Path
) -> None:
    model = Path(shutil.copytree(branched / "models/sft", tmp_path / "model"))
    (model / "manifest.json").unlink()
    run = tmp_path / "run"
    pipeline.run(world.recipe(short(world, "two", **{"from": str(model)})), run, base=tmp_path)
    assert yaml.safe_load((run / "recipe.yaml").read_text())[RESOLVED]["starts"].keys() == {"stages.two.from"}
    pipeline.resume(run)
    flip(model / "model.safetensors")
    with pytest.raises(RunError, match="the model changed since the run began") as error:
        pipeline.resume(run)
    assert error.value.value == "stages.two.from"


def unfinished(folder: Path, branched: Path) -> None:
    shutil.copytree(branched, folder)
    shutil.rmtree(folder / "models/b")


def stopped_early(folder: Path, branched: Path) -> None:
    shutil.copytree(branched, folder)
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "status": "interrupted"}))


def an_adapter(folder: Path, branched: Path) -> None:
    shutil.copytree(branched / "models/a/adapter", folder)


def damaged(folder: Path, branched: Path) -> None:
    shutil.copytree(branched / "models/a", folder)
    flip(folder / "model.safetensors")


MISSING: list[tuple[Callable[[Path, Path], object], type[SharpenError], str]] = [
    (lambda folder, branched: None, ConfigError, "stages.own.from: there is no such run or model"),
    (lambda folder, branched: folder.mkdir(), ConfigError, "this is neither a run nor a model"),
    (an_adapter, ConfigError, "this is an adapter alone"),
    (unfinished, RunError, "the run is not finished: it has no model of b"),
    (stopped_early, RunError, "the run is not finished: interrupted"),
    (damaged, RunError, "model.safetensors does not match its manifest"),
]


@pytest.mark.parametrize(("make", "kind", "said"), MISSING)
def test_a_missing_parent_is_told_before_anything_runs(
    world: World,
    branched: Path,
    tmp_path: Path,
    make: Callable[[Path, Path], object],
    kind: type[SharpenError],
    said: str,
) -> None:
    make(tmp_path / "parent", branched)
    recipe = world.recipe(short(world, "first"), short(world, "own", **{"from": "./parent"}))
    with pytest.raises(kind) as error:
        pipeline.run(recipe, tmp_path / "run", base=tmp_path)
    assert said in str(error.value) and str(tmp_path / "parent") in str(error.value)
    assert not (tmp_path / "run/recipe.yaml").exists() and not (tmp_path / "run/events.jsonl").exists()


def other_template(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text(path.read_text().replace("assistant", "Assistant"))


def swapped_tokens(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    path.write_text(json.dumps(content))


def one_more(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["model"]["vocab"]["é"] = len(content["model"]["vocab"])
    path.write_text(json.dumps(content))


def told_more(folder: Path) -> None:
    path = folder / "chat_template.jinja"
    path.write_text("{{ greeting }}" + path.read_text())


OTHERS: list[tuple[Callable[[Path], object], str]] = [
    (other_template, "its chat template is another"),
    (swapped_tokens, "'b', not 'a'"),
    (one_more, " tokens, not "),
]


@pytest.mark.parametrize(("change", "said"), OTHERS)
def test_a_model_that_reads_otherwise_than_the_recipes_is_refused_before_training(
    world: World, tmp_path: Path, change: Callable[[Path], object], said: str
) -> None:
    other = Path(shutil.copytree(world.model, tmp_path / "other"))
    change(other)
    with pytest.raises(ModelError) as error:
        pipeline.run(world.recipe(short(world, "own", **{"from": "./other"})), tmp_path / "run", base=tmp_path)
    for text in (said, "stages.own.from", str(other), world.model):
        assert text in str(error.value)
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_templates_are_to_be_told_the_same_and_the_recipe_tells_both(world: World, tmp_path: Path) -> None:
    own, other = (Path(shutil.copytree(world.model, tmp_path / name)) for name in ("own", "other"))
    for folder in (own, other):
        told_more(folder)
    (other / "chat_template_kwargs.json").write_text('{"greeting": "hi"}')
    stage = short(world, "s", **{"from": str(other)})
    with pytest.raises(ModelError, match=r'told {"greeting": "hi"}, not {}'):
        pipeline.run(world.recipe(stage, model=str(own)), tmp_path / "run", base=tmp_path)
    recipe = world.recipe(stage, model=str(own), chat_template_kwargs={"greeting": "ho"})
    pipeline.run(recipe, tmp_path / "agreed", base=tmp_path)


def test_a_model_of_another_shape_with_the_same_tokenizer_will_do(world: World, tmp_path: Path) -> None:
    bigger = tiny_model(tmp_path / "bigger", num_hidden_layers=2)
    recipe = world.recipe(short(world, "own", **{"from": str(bigger)}), short(world, "next"))
    pipeline.run(recipe, tmp_path / "run", base=tmp_path)
    layers = json.loads((tmp_path / "run/models/next/config.json").read_text())["num_hidden_layers"]
    assert layers == 2


def test_rft_prompts_may_start_anywhere_too(world: World, tmp_path: Path) -> None:
    """The probe, the reference and the sampler all take the model that `from` names."""
    write_rows(tmp_path / "rows.jsonl", prompts("say", 4))
    kl = {"algorithm": {"overlong_buffer": 0.0, "kl": {"coef": 0.1}}}
    rft = world.rft_stage(steps=1, **kl)
    pipeline.run(world.recipe(short(world, "sft"), rft), tmp_path / "chain", base=tmp_path)
    branch = world.recipe(short(world, "sft"), short(world, "a"), {**rft, "from": "sft"})
    pipeline.run(branch, tmp_path / "branch", base=tmp_path)
    assert weights(tmp_path / "branch", "rft") == weights(tmp_path / "chain", "rft")
