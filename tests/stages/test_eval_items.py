"""What an evaluation writes of each item."""

from __future__ import annotations

from pathlib import Path

from sharpen.runs.store import read_lines
from sharpen.stages import pipeline
from tests.runs.lab import World, quick


def test_an_items_answer_is_kept_where_it_is_text_or_a_number(world: World, tmp_path: Path) -> None:
    answers = ["yes", 4, 2.5, True, None, ["a"]]
    rows = [{"prompt": f"ask {number}", "answer": answer} for number, answer in enumerate(answers)]
    rows.append({"prompt": "ask without"})
    config = world.eval_config(data={"type": "inline", "rows": rows}, samples=0)
    with quick():
        pipeline.run(world.recipe(evals=[config]), tmp_path / "run", base=world.folder)
    lines = read_lines(tmp_path / "run/evals/held/base.jsonl")
    assert [line["answer"] for line in lines] == ["yes", 4, 2.5, None, None, None, None]
