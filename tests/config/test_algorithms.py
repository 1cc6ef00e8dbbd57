"""Presets fill what is not given; what makes no sense together is refused; the table in docs is the code's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.config.algorithms import PRESETS, Algorithm
from sharpen.config.load import dump, load, parse
from sharpen.errors import ConfigError

DOCS = Path(__file__).parents[2] / "docs"


def recipe(**algorithm: Any) -> dict[str, Any]:
    stage = {"type": "rft", "data": {"path": "x.jsonl"}, "grader": {"type": "math"}, "algorithm": algorithm}
    return {"model": "m", "stages": [stage]}


def chosen(**algorithm: Any) -> Algorithm:
    stage = parse(recipe(**algorithm)).stages[0]
    assert stage.type == "rft"
    return stage.algorithm


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_its_dictionary_and_each_of_its_fields_can_be_overridden(preset: str) -> None:
    plain = chosen(preset=preset).model_dump()
    assert {name: plain[name] for name in PRESETS[preset]} == PRESETS[preset]
    for name, value in {"advantage": "centered", "ratio": "sequence", "normalizer": "token"}.items():
        assert chosen(preset=preset, **{name: value}).model_dump() == {**plain, name: value}
    if plain["clip_high"] is not None:
        assert chosen(preset=preset, clip_high=0.9).model_dump() == {**plain, "clip_high": 0.9}


def test_another_kind_of_clip_takes_none_of_the_presets_bounds() -> None:
    free = chosen(preset="dapo", clip="none")
    assert (free.clip, free.clip_low, free.clip_high) == ("none", None, None)
    capped = chosen(preset="grpo", clip="cispo", clip_high=4.0)
    assert (capped.clip_low, capped.clip_high, capped.normalizer) == (None, 4.0, "sequence")
    bounded = chosen(preset="rloo", clip="ppo", clip_low=0.1, clip_high=0.3)
    assert (bounded.clip_low, bounded.clip_high, bounded.advantage) == (0.1, 0.3, "leave_one_out")


@pytest.mark.parametrize(
    ("algorithm", "words"),
    [
        ({"preset": "rloo", "clip_low": 0.2}, "clip `none` has no `clip_low`"),
        ({"preset": "cispo", "clip_low": 0.2}, "clip `cispo` has no `clip_low`"),
        ({"preset": "dapo", "clip": "none", "clip_high": 0.2}, "clip `none` has no `clip_high`"),
        ({"preset": "dapo", "clip": "cispo"}, "clip `cispo` needs `clip_high`"),
        ({"preset": "rloo", "clip": "ppo", "clip_low": 0.1}, "clip `ppo` needs `clip_high`"),
        ({"kl": {"coef": 0.1, "estimator": "k1_reward", "importance_weighted": True}}, "`importance_weighted` needs"),
        ({"kl": {"coef": -0.1}}, "kl.coef"),
        ({"preset": "ppo"}, "preset"),
        ({"clip_low": 1.5}, "clip_low"),
        ({"max_lag": -1}, "max_lag"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_field_and_the_remedy(algorithm: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse(recipe(**algorithm))
    assert words in str(raised.value) and "stages.0.algorithm" in str(raised.value)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_written_out_with_every_default_is_read_back_equal(preset: str, tmp_path: Path) -> None:
    parsed = parse(recipe(preset=preset, kl={"coef": 0.1}))
    path = tmp_path / "recipe.yaml"
    path.write_text(dump(parsed))
    assert load(path) == parsed


def rows_of(page: str) -> dict[str, list[str]]:
    """The table's cells by preset."""
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_table_in_the_docs_is_that_of_the_presets() -> None:
    page = (DOCS / "algorithms.md").read_text()
    papers = {word for word in str(Algorithm.model_json_schema()["properties"]["preset"]["description"]).split()}
    found = rows_of(page)
    assert found.keys() == PRESETS.keys()
    for name, values in PRESETS.items():
        bounds = "/".join(f"{values[bound]:g}" for bound in ("clip_low", "clip_high") if bound in values)
        clip = f"`{values['clip']}` {bounds}".strip()
        assert found[name][:4] == [
            f"`{values['advantage']}`",
            f"`{values['ratio']}`",
            clip,
            f"`{values['normalizer']}`",
        ]
        assert found[name][4] == f"{values['overlong_buffer']:g}"
        arxiv = found[name][5].partition("(https://arxiv.org/abs/")[2].rstrip(")")
        assert any(f"arXiv:{arxiv}" in word for word in papers), arxiv
