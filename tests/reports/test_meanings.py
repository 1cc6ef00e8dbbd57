"""Every number has its meaning and its range, in one place, and the pages show it without a script."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from docs.tables import filled
from sharpen.reports import compare as compare_page
from sharpen.reports.comparison import compare
from sharpen.reports.glossary import listing, term
from sharpen.reports.html import write
from sharpen.reports.meanings import MEANINGS, TRAINING
from sharpen.stages import pipeline
from sharpen.train.engine import StepResult
from tests.reports import synthetic_run
from tests.runs.lab import World, quick, write_rows

ROOT = Path(__file__).parents[2]
FIGURES: dict[str, Any] = {
    "prompts": 16,
    "group_size": 8,
    "reward": {"mean": 0.3, "variance": 0.2},
    **{name: {"share": 0.25, "ci95": [0.1, 0.5]} for name in ("learnable", "always_right", "always_wrong", "alike")},
    "in_form": 0.9,
    "graded_again": {"n": 16, "changed": 0},
    "faults": {"share": 0.0, "kinds": {}},
    "grade_seconds": 0.001,
    "tokens": 4.0,
    "truncated_share": 0.0,
    "max_tokens": 24,
    "mask": [],
    "logprob_gap": {"mean": 0.01, "max": 0.1},
    "forecast": {"step_seconds": 5.0, "steps": 32, "seconds": 170.0, "memory_bytes": 6e9},
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A report with everything that a report can have, and the page of a comparison."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [synthetic_run.write(folder / name, rft_steps=24, items=60) for name in ("one", "other")]
    run = runs[0]
    (runs[1] / "recipe.yaml").write_text((runs[1] / "recipe.yaml").read_text().replace("steps: 60", "steps: 30"))
    with (run / "events.jsonl").open("a") as file:
        file.write(
            json.dumps({"time": 1, "event": "probed", "stage": "rft", "message": "x", "figures": FIGURES}) + "\n"
        )
    summary = json.loads((run / "summary.json").read_text())
    summary["base"]["evals"]["held_out"]["pass_at_k"] = {"k": 4, "score": 0.08}
    (run / "summary.json").write_text(json.dumps(summary))
    for model in ("base", "sft", "rft"):
        path = run / f"evals/held_out/{model}.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        synthetic_run.jsonl(path, [line | {"answer": "ny"[place % 2]} for place, line in enumerate(lines)])
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for line in metrics:
        if line["type"] == "rft":
            line["reward"]["by_grader"] = {"one": 0.5, "other": 0.6}
    metrics += synthetic_run.preferences(12)
    synthetic_run.jsonl(run / "metrics.jsonl", metrics)
    compared = compare_page.write(folder / "compared.html", compare(runs))
    return {"report": write(run).read_text("utf-8"), "comparison": compared.read_text("utf-8")}


def keys(line: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The keys of a metrics line, dotted."""
    for name, value in line.items():
        if isinstance(value, Mapping) and value:
            yield from keys(value, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def known(key: str) -> list[str]:
    """The meanings that cover a key of metrics.jsonl."""
    return [
        name
        for name, meaning in MEANINGS.items()
        for pattern in meaning.metrics
        if pattern in (key, f"{key}.*") or (pattern.endswith(".*") and key.startswith(pattern[:-1]))
    ]


@pytest.fixture(scope="module")
def preferences(world: World, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The metrics of a stage that learns from pairs of two sources."""
    folder = tmp_path_factory.mktemp("preferences")
    pairs = {
        name: [{"prompt": f"{name} {number}", "chosen": "yes", "rejected": "no"} for number in range(4)]
        for name in ("one", "two", "look")
    }
    paths = {name: {"path": write_rows(folder / f"{name}.jsonl", rows)} for name, rows in pairs.items()}
    stage = {
        "type": "dpo",
        "data": [{**paths["one"], "weight": 1}, {**paths["two"], "weight": 1}],
        "validation": paths["look"],
        "batch_size": 4,
        "optim": {"lr": 1e-3},
    }
    with quick():
        pipeline.run(world.recipe(stage), folder / "run", base=folder)
    return [json.loads(line) for line in (folder / "run/metrics.jsonl").read_text().splitlines()]


def test_every_key_that_stages_write_into_metrics_has_exactly_one_meaning(
    undisturbed: dict[str, Any], preferences: list[dict[str, Any]]
) -> None:
    written = {key for line in (*undisturbed["metrics.jsonl"], *preferences) for key in keys(line)}
    wanted = {"validation.reward", "validation.loss", "logprob_gap.max", "validation.rewards.margins"}
    assert wanted <= written, "all kinds of stages, with validation"
    laps = re.findall(r'clock\.lap\("(\w+)"\)', (ROOT / "src/sharpen/stages/rft.py").read_text())
    written |= {f"time.{phase}" for phase in (*laps, "step", "train")}
    written |= set(StepResult(0.0, 0.0, 0.0, skipped=True).line())
    assert {key: known(key) for key in written if len(known(key)) != 1} == {}
    covered = {name for key in written for name in known(key)}
    assert {name for name, meaning in MEANINGS.items() if meaning.metrics} - covered == set(), "no stage writes these"


def test_every_meaning_is_used(pages: dict[str, str]) -> None:
    shown = set(re.findall(r'aria-describedby="meaning-(\w+)"', "".join(pages.values())))
    only_in_files = {"skipped", "dropped_groups", "policy_lag", "sources", "step"}
    assert shown == set(MEANINGS) - only_in_files
    assert all(TRAINING[key].metrics for key in only_in_files)


@pytest.mark.parametrize("page", ["report", "comparison"])
def test_what_a_name_refers_to_stands_once_on_the_page(pages: dict[str, str], page: str) -> None:
    text = pages[page]
    for key in set(re.findall(r'aria-describedby="(meaning-\w+)"', text)):
        assert text.count(f'id="{key}"') == 1
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("page", ["report", "comparison"])
def test_every_chart_and_every_column_of_numbers_has_a_tooltip(pages: dict[str, str], page: str) -> None:
    text = pages[page]
    headings = re.findall(r"<figcaption><h4>(.*?)</h4>", text)
    assert headings and all(heading.startswith('<span class="term"') for heading in headings)
    for table in re.findall(r'<table class="(?:results|per-class)">.*?</thead>', text):
        cells = re.findall(r"<th [^>]*>(.*?)</th>", table)
        plain = [cell for cell in cells if "term" not in cell and not cell.startswith("<svg")]
        assert set(plain) <= {"Model", "Arm", "Class", "Items"}


def test_a_tooltip_says_meaning_range_and_remedy_and_needs_no_script_nor_mouse() -> None:
    made = term("truncated")
    meaning = MEANINGS["truncated"]
    assert 'tabindex="0"' in made and 'aria-describedby="meaning-truncated"' in made and "title=" not in made
    words = re.sub(r"<[^>]+>", "", made)
    assert words.startswith("Cut off at the limit")
    for said in (meaning.text.replace("`", ""), f"Healthy: {meaning.healthy}.", "Else: Raise max_tokens"):
        assert said in words
    assert "<code>max_tokens</code>" in made
    assert "meaning-truncated" in listing([made]) and listing(["nothing"]) == ""


def test_the_tips_show_on_hover_and_on_focus() -> None:
    style = (ROOT / "src/sharpen/reports/style.css").read_text()
    assert re.search(r"\.term:is\(:hover, :focus\) > \.tip \{ visibility: visible", style)
    assert re.search(r"@media print \{.*?\.tip.*?display: none", style, re.DOTALL)


@pytest.mark.parametrize("key", MEANINGS)
def test_every_meaning_has_a_range_or_says_that_there_is_none(key: str) -> None:
    meaning = MEANINGS[key]
    assert meaning.text.endswith(".") and meaning.healthy and not meaning.healthy.endswith(".")
    assert not meaning.remedy or meaning.remedy.endswith((".", ")"))


def test_the_page_of_metrics_is_made_of_the_same_words() -> None:
    page = filled("docs/metrics.md")
    assert page == (ROOT / "docs/metrics.md").read_text(), "run python -m docs.tables"
    for meaning in MEANINGS.values():
        assert f"{meaning.text} | {meaning.healthy}" in page
