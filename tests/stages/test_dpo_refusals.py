"""What the preference stage refuses, and where it says the fault is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import ConfigError, DataError, OverlapError
from sharpen.stages import pipeline
from tests.runs.lab import Row, World, write_rows
from tests.stages.field_cases import inline
from tests.stages.test_dpo import pairs, singles, stage


@pytest.mark.parametrize(
    ("rows", "changes", "words"),
    [
        ([], {}, "the file has no rows"),
        ([{"prompt": "a", "chosen": "b", "rejected": "b"}], {}, "same"),
        ([{"prompt": "a", "chosen": "b", "rejected": ""}], {}, "rows.jsonl:1"),
        ([*pairs("one", 1), *singles("two", 1)], {}, r"rows.jsonl:2: a single answer with a label.*loss: kto"),
        ([{"prompt": "a", "completion": "b"}], {}, "rows.jsonl:1: .*preference rows are"),
        ([{"prompt": "a", "completion": "b"}], {"loss": "kto"}, "rows.jsonl:1"),
        (singles("one", 1), {"loss": "kto"}, r"stages\.dpo\.data: kto compares answers .* there is one row"),
        (
            [*pairs("one", 1), {"prompt": "b", "chosen": "c" * 90, "rejected": "d"}],
            {"max_length": 80},
            r"rows.jsonl:2: the row is longer than max_length = 80 tokens \(got \d+\)",
        ),
        (
            [{"prompt": "b", "completion": "c" * 90, "label": True}] * 2,
            {"max_length": 80, "loss": "kto"},
            r"rows.jsonl:1: the row is longer",
        ),
        (
            [
                {
                    "prompt": [{"role": "user", "content": "a"}],
                    "chosen": [{"role": "user", "content": "b"}],
                    "rejected": [{"role": "user", "content": "c"}],
                }
            ],
            {},
            "rows.jsonl:1",
        ),
    ],
)
def test_bad_rows_are_named_with_their_place_before_anything_is_trained(
    world: World, tmp_path: Path, rows: list[Row], changes: dict[str, Any], words: str
) -> None:
    data = {"path": write_rows(tmp_path / "rows.jsonl", rows)}
    with pytest.raises(DataError, match=words):
        pipeline.run(world.recipe(stage({"data": data}, **changes)), tmp_path / "run", base=world.folder)
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_a_bad_validation_row_is_named_with_its_place(world: World, tmp_path: Path) -> None:
    held = {
        "path": write_rows(
            tmp_path / "held.jsonl", [*pairs("held", 1), {"prompt": "h", "chosen": "x" * 90, "rejected": "y"}]
        )
    }
    dpo = stage({"data": inline(pairs("one", 4)), "validation": held}, max_length=80)
    with pytest.raises(DataError, match=r"held.jsonl:2: the row is longer than max_length"):
        pipeline.run(world.recipe(dpo), tmp_path / "run", base=world.folder)
    one = stage({"data": inline(pairs("one", 4)), "validation": inline(singles("two", 1))}, loss="kto")
    with pytest.raises(DataError, match=r"stages\.dpo\.validation: kto compares answers"):
        pipeline.run(world.recipe(one), tmp_path / "one", base=world.folder)


def test_held_out_pairs_are_not_trained_on(world: World, tmp_path: Path) -> None:
    dpo = stage({"data": inline(pairs("like", 6)), "validation": inline(pairs("like", 2))})
    with pytest.raises(OverlapError):
        pipeline.run(world.recipe(dpo), tmp_path / "run", base=world.folder)


def test_kto_needs_another_prompt_in_a_step(world: World) -> None:
    files = {"data": inline(pairs("one", 4))}
    with pytest.raises(ConfigError, match=r"kto compares the answers of a step .* batch_size is 1"):
        world.recipe(stage(files, loss="kto", batch_size=1))
    world.recipe(stage(files, loss="sigmoid", batch_size=1))
