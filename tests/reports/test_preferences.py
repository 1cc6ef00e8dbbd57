"""What a preference stage shows: its charts on the page, its line on the terminal, its lines in a comparison."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import yaml
from rich.console import Console

from sharpen.api.pictures import Curves
from sharpen.cli.live import Live
from sharpen.cli.track import Plan, StageTrack, looked, step_line
from sharpen.reports import compare as compare_page
from sharpen.reports.comparison import compare
from sharpen.reports.html import write
from sharpen.runs.trackers import numbers
from tests.reports import synthetic_run

LINES = synthetic_run.preferences(12)
CHARTS = [
    "Loss",
    "Margin",
    "Preference accuracy",
    "Reward of answers",
    "Log-probability of answers",
    "KL to the start",
    "Gradient norm",
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose second stage learned from preferences."""
    path = synthetic_run.write(tmp_path / "one", rft_steps=12, items=40)
    recipe = {**synthetic_run.RECIPE, "stages": [{"type": "sft", "name": "sft"}, {"type": "dpo", "name": "dpo"}]}
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    synthetic_run.jsonl(path / "metrics.jsonl", LINES)
    return path


def test_the_page_has_the_charts_of_preferences_with_validation_and_both_answers(run: Path) -> None:
    page = write(run).read_text("utf-8")
    section = page[page.index("<h3><i></i>DPO") :]
    shown = re.findall(r"<figcaption><h4><span[^>]*>([^<]+)<", section)
    assert shown[: len(CHARTS)] == CHARTS
    margin, reward = (section[section.index(f">{name}<") :][:4000] for name in ("Margin", "Reward of answers"))
    assert "validation" in margin and "better" in reward and "worse" in reward


@pytest.mark.parametrize("kind", ["reward_model", "dpo"])
def test_a_stage_has_only_the_charts_that_its_lines_have_values_for(kind: str, run: Path) -> None:
    lean = [{key: value for key, value in line.items() if key not in ("kl", "logps")} for line in LINES]
    picture = Curves([{**line, "stage": "x", "type": kind} for line in lean])._repr_svg_()
    assert all(f">{name}<" in picture for name in CHARTS[:3])


def test_a_step_says_loss_margin_and_accuracy() -> None:
    track = StageTrack("dpo")
    rewards = {"chosen": 0.1, "rejected": -0.2, "margins": 0.3, "accuracies": 0.75}
    look = {"loss": 0.61, "rewards": {**rewards, "margins": 0.25}, "logps": {"chosen": -9.0}, "kl": 0.02}
    line = {**LINES[7], "loss": 0.55, "rewards": rewards, "kl": 0.012, "time": {"step": 2.0}, "validation": look}
    track.add({**line, "tokens": {"sampled": 0, "trained": 100}})
    assert step_line(track) == (
        "dpo 8/12  loss 0.550  margin 0.300  accuracy 0.750  kl 0.012  50 tokens/s  2 s/step  "
        "validation loss 0.610, margin 0.250, accuracy 0.750  ETA 8.0 s"
    )
    assert looked({"reward": 0.5, "n": 8}) == "reward 0.500, n 8"


def test_the_picture_on_a_terminal_says_them_too() -> None:
    file = io.StringIO()
    live = Live(Plan(None, "tiny", ("dpo",)), 5, Console(file=file, width=120))
    for line in LINES:
        live.metrics(line)
    Console(file=file, width=120).print(live.picture())
    shown = " ".join(file.getvalue().split())
    margin = LINES[-1]["rewards"]["margins"]
    assert re.search(rf"loss 0\.\d+ margin {margin:.2f} accuracy 0\.900", shown), shown


def test_a_tracker_has_the_names_that_trl_gives() -> None:
    told = numbers({name: LINES[3][name] for name in ("loss", "rewards", "logps", "validation")})
    assert {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"} <= set(told)
    assert {"logps/chosen", "logps/rejected", "validation/rewards/margins"} <= set(told)


def test_a_comparison_shows_margins_and_accuracies_of_both_runs(run: Path, tmp_path: Path) -> None:
    other = synthetic_run.write(tmp_path / "two", rft_steps=12, items=40)
    (other / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("seed: 7", "seed: 7\nnote: x"))
    synthetic_run.jsonl(other / "metrics.jsonl", LINES)
    page = compare_page.write(tmp_path / "page.html", compare([run, other])).read_text("utf-8")
    shown = re.findall(r"<figcaption><h4><span[^>]*>([^<]+)<", page)
    assert ["Loss", "Validation loss", "Preference accuracy", "Validation preference accuracy", "Margin"] == shown[:5]
