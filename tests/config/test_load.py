"""Recipes: read, overridden, written back; every fault is told by its path in the recipe."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sharpen as sh
from sharpen.config.load import dump, load, parse, schema
from sharpen.config.peers import NONE, PLACES
from sharpen.errors import ConfigError

TEXT = """
model: smollm2-135m-instruct
stages:
  - {type: sft, data: {path: labelled.jsonl}, optim: {lr: 1e-5}}
  - type: rft
    name: second
    data: {type: reasoning_gym, generator: chain_sum, count: 10, params: {min_terms: 2}}
    grader: {type: math}
    algorithm: {preset: grpo}
evals:
  - {name: held_out, data: {type: inline, rows: [{prompt: x, answer: 1e5}]}, grader: {type: math}}
"""


def write(folder: Path, text: str = TEXT) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def values(**stage: Any) -> dict[str, Any]:
    grader = {"type": "math"}
    return {"model": "m", "stages": [{"type": "rft", "data": {"path": "a"}, "grader": grader, **stage}]}


def fault(recipe: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(recipe)
    return caught.value


def test_a_recipe_is_read_with_its_defaults(tmp_path: Path) -> None:
    recipe = load(write(tmp_path))
    assert [stage.name for stage in recipe.stages] == ["sft", "second"]
    assert recipe.stages[0].optim.lr == 1e-5
    assert recipe.stages[1].algorithm.clip_high == 0.2  # type: ignore[union-attr]
    assert recipe.evals[0].data.rows[0]["answer"] == 100_000.0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("override", "changed"),
    [
        ("seed=7", lambda recipe: recipe.seed == 7),
        ("stages.1.steps=2", lambda recipe: recipe.stages[1].steps == 2),
        ("stages.second.steps=2", lambda recipe: recipe.stages[1].steps == 2),
        ("stages.sft.optim.lr=3e-4", lambda recipe: recipe.stages[0].optim.lr == 3e-4),
        ("stages.1.sampling.max_tokens=9", lambda recipe: recipe.stages[1].sampling.max_tokens == 9),
        ("evals.held_out.samples=4", lambda recipe: recipe.evals[0].samples == 4),
        ("stages.1.data={path: b}", lambda recipe: recipe.stages[1].data.path == "b"),
        ("stages.1.data.suffix= a=b", lambda recipe: recipe.stages[1].data.suffix == "a=b"),
        ("evals=[]", lambda recipe: recipe.evals == ()),
        ("threads=", lambda recipe: recipe.threads is None),
    ],
)
def test_an_override_changes_its_value(tmp_path: Path, override: str, changed: Any) -> None:
    assert changed(load(write(tmp_path), ["seed=1", "threads=1", override]))


@pytest.mark.parametrize(
    ("override", "path", "hint"),
    [
        ("seed", "", "a.b=value"),
        ("a..b=1", "", "a.b=value"),
        ("=1", "", "a.b=value"),
        ("stages.2.steps=1", "stages.2", "sft, second"),
        ("stages.-1.steps=1", "stages.-1", "index below 2"),
        ("stages.secnd.steps=1", "stages.secnd", "sft, second"),
        ("model.name=1", "model.name", "Shorten"),
        ("stages.second.stpes=1", "stages.1.stpes", "did you mean `steps`?"),
        ("seed={a: 1, a: 2}", "", "seed:1: the key `a` occurs twice"),
    ],
)
def test_a_wrong_override_is_told(tmp_path: Path, override: str, path: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path), [override])
    assert caught.value.path == path
    assert hint in str(caught.value)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("model: m\nseed: 1\nmodel: n", "recipe.yaml:3: the key `model` occurs twice"),
        ("model: m\nstages: [{type: sft, type: rft}]", "recipe.yaml:2: the key `type` occurs twice"),
        ("model: m\nseed: .nan", "recipe.yaml:2: `.nan` is not a finite number"),
        ("model: m\nseed: 1e999", "recipe.yaml:2: `1e999` is not a finite number"),
        ("model: [m", "recipe.yaml:1: expected ',' or ']'"),
        ("model: m\n1: x", "recipe.yaml:2: a key is not text"),
        ("model: m\n[a]: x", "recipe.yaml:2: a key is not text"),
        ("model: !!python/object:os.system x", "recipe.yaml:1: could not determine a constructor"),
        ("model: !!set {a}", "recipe.yaml:1: could not determine a constructor"),
        ("model: &a [*a]", "recipe.yaml:1: found unconstructable recursive node"),
        ("model: m\n---\nmodel: n", "recipe.yaml:2: but found another document"),
        ("model: \x01", "recipe.yaml: not YAML"),
        ("[" * 5000, "recipe.yaml: not YAML: nested too deep"),
        ("- model", "recipe.yaml: a recipe is a mapping"),
        ("", "recipe.yaml: a recipe is a mapping"),
    ],
)
def test_bad_yaml_is_told_with_its_line(tmp_path: Path, text: str, fact: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, text))
    assert fact in caught.value.fact


def test_bytes_that_are_not_text_and_missing_files_are_config_errors(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    with pytest.raises(ConfigError, match="cannot read the recipe"):
        load(path)
    path.write_bytes(b"model: \xff")
    with pytest.raises(ConfigError, match="not YAML"):
        load(path)


def test_dates_stay_text(tmp_path: Path) -> None:
    assert load(write(tmp_path, "model: 2024-01-01")).model == "2024-01-01"


@pytest.mark.parametrize(
    ("recipe", "path", "said"),
    [
        ({}, "model", ("is missing", "Alias")),
        (values(stpes=2), "stages.0.stpes", ("unknown key `stpes`; did you mean `steps`?",)),
        (values(qqqqq=2), "stages.0.qqqqq", ("the keys are name, from, data,",)),
        (values(**{"lear.rate": 2}), "stages.0.lear.rate", ("unknown key `lear.rate`",)),
        (values(steps=0), "stages.0.steps", ("greater than or equal to 1", "(got 0)")),
        (values(data={"path": 3}), "stages.0.data.path", ("valid string", "(got 3)")),
        (values(data={"pth": "a", "path": "b"}), "stages.0.data.pth", ("did you mean `path`?",)),
        (values(validation={"path": "b", "limt": 1}), "stages.0.validation.limt", ("`limit`",)),
        (values(data={"type": "reasoning_gim"}), "stages.0.data.type", ("did you mean `reasoning_gym`?",)),
        (values(data="a.jsonl"), "stages.0.data", ("should be a mapping with the keys type, path",)),
        (values(data={"type": "inline", "rows": [3]}), "stages.0.data.rows.0", ("should be a mapping",)),
        (values(grader={"type": "maths"}), "stages.0.grader.type", ("did you mean `math`?",)),
        (values(grader={}), "stages.0.grader", ("needs a `type`: string_check, math,",)),
        (values(grader={"type": "math", "math": 1}), "stages.0.grader.math", ("unknown key `math`",)),
        (values(algorithm={"preset": "gppo"}), "stages.0.algorithm.preset", ("'cispo' or 'rloo'",)),
        (values(algorithm={"preset": []}), "stages.0.algorithm.preset", ("'cispo' or 'rloo'",)),
        (values(name="a/b"), "stages.0.name", ("pattern", "'a/b'")),
        ({"model": "m", "stages": [3]}, "stages.0", ("should be a mapping with the keys type",)),
        ({"model": "m", "stages": [{"type": "stf"}]}, "stages.0.type", ("did you mean `sft`?",)),
        ({"model": "m", "seeds": 1}, "seeds", ("did you mean `seed`?",)),
        ({"model": "m", "evals": [{"name": "e", "grader": {"type": "math"}}]}, "evals.0.data", ("Held-out",)),
        ({"model": "m", "stages": values()["stages"] * 2}, "", ("two stages are named 'rft'",)),
    ],
)
def test_a_fault_names_its_path_in_the_recipe_and_what_is_allowed(
    recipe: dict[str, Any], path: str, said: tuple[str, ...]
) -> None:
    error = fault(recipe)
    assert error.path == path
    assert all(text in str(error) for text in said), str(error)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        (values(num_generations=8), "unknown key `num_generations`; here this is stages.0.group_size (got 8)"),
        (values(sampling={"max_new_tokens": 8}), "here this is stages.0.sampling.max_tokens"),
        (values(algorithm={"beta": 0.1}), "here this is stages.0.loss.beta (dpo), stages.0.algorithm.kl.coef (rft)"),
        (values(optim={"learning_rate": 1e-5}), "here this is stages.0.optim.lr"),
        (values(lora_r=8), "here this is adapter.rank"),
        ({"model": "m", "learning_rate": 1e-5}, "here this is stages.N.optim.lr"),
        ({"model": "m", "stages": [*values()["stages"], {"type": "sft", "n_epochs": 1}]}, "stages.1.epochs (sft, dpo)"),
        ({"model": "m", "evals": [{"eval_samples": 1}]}, "here this is evals.0.samples"),
        (values(reasoning_effort="low"), "here this is chat_template_kwargs, where"),
        (values(weight_decay=0.1), "it stands in stages.0.optim.weight_decay (got 0.1)"),
        (values(seed=0.1), "it stands in seed"),
        (values(temperature=0.1), "it stands in stages.0.sampling.temperature (got"),
        (values(epochs=2), "it is a key of the type `sft` or `dpo` or `reward_model`"),
        (values(data={"generator": "chain_sum", "path": "a"}), "it is a key of the type `reasoning_gym`"),
        (values(data=[{"generator": "chain_sum", "path": "a"}]), "it is a key of the type `reasoning_gym`"),
        (values(optim={"adapter": "continue"}), "it stands in stages.0.adapter"),
        ({"model": "m", "max_tokens": 2}, "it stands in stages.N.sampling.max_tokens or evals.N.max_tokens"),
    ],
)
def test_a_key_of_another_trainer_or_place_is_told_where_it_belongs(recipe: dict[str, Any], said: str) -> None:
    assert said in str(fault(recipe))


def test_the_python_api_names_the_key_of_the_stage_alone() -> None:
    with pytest.raises(ConfigError, match=r"unknown key `num_generations`; here this is group_size "):
        sh.RFT("a.jsonl", grader={"type": "math"}, num_generations=4)


def keys_of(described: dict[str, Any]) -> set[str]:
    """Every path of the schema, with `N` for a number in a list; written apart from the search in `load`."""
    found: set[str] = set()

    def walk(node: dict[str, Any], path: str) -> None:
        if "$ref" in node:
            walk(described["$defs"][node["$ref"].rpartition("/")[2]], path)
        for choice in (*node.get("anyOf", ()), *node.get("oneOf", ())):
            walk(choice, path)
        if node.get("type") == "array" and "items" in node:
            walk(node["items"], f"{path}.N")
        for name, inner in node.get("properties", {}).items():
            found.add(f"{path}.{name}".lstrip("."))
            walk(inner, f"{path}.{name}")

    walk(described, "")
    return found


def test_the_table_of_other_trainers_keys_names_places_that_exist_and_none_of_our_own_keys() -> None:
    known = keys_of(schema())
    named = {key: re.findall(r"(?:stages|evals)\.N(?:\.\w+)+|^\w+(?:\.\w+)*", text) for key, text in PLACES.items()}
    assert all(named.values())
    assert {place for places in named.values() for place in places} <= known
    assert len(PLACES) >= 50
    own = {path.rpartition(".")[2] for path in known if ".grader." not in path}  # judges have a reasoning_effort
    assert {*PLACES, *NONE} & own == {"beta", "stage"}  # ours stand within `loss` and `data`


def test_all_faults_are_told_at_once() -> None:
    lines = str(fault({"modle": "m", **values(steps=0, stpes=3)})).splitlines()
    assert lines[0] == "3 faults:"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["stages.0.steps", "stages.0.stpes", "modle"]


def test_a_dumped_recipe_loads_equal(tmp_path: Path) -> None:
    recipe = load(write(tmp_path))
    text = dump(recipe)
    assert load(write(tmp_path, text)) == recipe
    assert "clip_high: 0.2" in text  # every default is written out


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(st.characters(codec="utf-8"), max_size=20)
    | st.sampled_from(
        [
            "1e5",
            "2024-01-01",
            "no",
            "null",
            ".nan",
            "1_0",
            "0o7",
            "=",
            "<<",
            "~",
            "1:30",
            "- a",
            "\x85",
            "\u2028x",
        ]
    ),
    number=st.floats(allow_nan=False, allow_infinity=False) | st.integers() | st.booleans() | st.none(),
)
def test_any_text_and_number_survive_dump_and_load(
    tmp_path_factory: pytest.TempPathFactory, text: str, number: object
) -> None:
    rows = [{"prompt": text, f"k{text}": number, "list": [text, number]}]
    recipe = parse(values(data={"type": "inline", "rows": rows}))
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(dump(recipe), encoding="utf-8")
    again = load(path)
    assert again == recipe
    assert dump(again) == dump(recipe)


def test_parse_takes_models_made_in_python() -> None:
    recipe = parse(values())
    assert parse({"model": "m", "stages": recipe.stages}) == recipe


def test_the_schema_requires_and_allows_what_load_does_and_describes_every_field() -> None:
    described = schema()
    assert described["title"] == "Recipe"
    assert described["$id"].startswith("https://")
    assert described["required"] == ["model"]
    required = {name: model.get("required", []) for name, model in described["$defs"].items()}
    assert (required["RFT"], required["SFT"], required["Algorithm"]) == (["data"], ["data"], [])
    models = [described, *described["$defs"].values()]
    assert not any(model["additionalProperties"] for model in models)
    undescribed = {
        (model["title"], name)
        for model in models
        for name, field in model["properties"].items()
        if "description" not in field and name != "type"
    }
    assert not undescribed
