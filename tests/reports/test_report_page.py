"""The page says what the files say, runs nothing it was not given, and is the same each time."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sharpen.errors import RunError
from sharpen.reports.html import write
from tests.reports import synthetic_run

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>"
VOID = {"meta", "br", "img"}


class Outline(HTMLParser):
    """Checks that elements nest, and gathers the page's text and every attribute's name and value."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text += f" {data}"


def report(run: Path) -> Outline:
    return Outline(write(run).read_text(encoding="utf-8"))


def edit(path: Path, change: Any) -> None:
    """Rewrites each record of a JSONL file with what `change` makes of it."""
    synthetic_run.jsonl(path, [change(json.loads(line)) for line in path.read_text().splitlines()])


def test_the_table_holds_the_numbers_of_the_summary(finished_run: Path) -> None:
    summary = json.loads((finished_run / "summary.json").read_text())
    text = re.sub(r"\s+", " ", report(finished_run).text)
    assert summary["headline"] in text
    for entry in (summary["base"], *summary["stages"]):
        found = entry["evals"]["held_out"]
        low, high = found["ci95"]
        assert f"{found['score'] * 100:.1f}% [{low * 100:.1f}, {high * 100:.1f}]" in text
        assert f"{found['format']['score'] * 100:.1f}%" in text
        for key in ("delta", "format_gain", "task_gain"):
            if "vs_previous" in found:
                assert f"{found['vs_previous'][key] * 100:+.1f}".replace("-", "\N{MINUS SIGN}") in text
    assert "4 min 2 s" in text and "108.0 k" in text


def test_under_the_verdict_stand_remarks_what_the_test_can_show_and_what_to_type_next(finished_run: Path) -> None:
    page = report(finished_run)
    text = re.sub(r"\s+", " ", page.text)
    verdict, results = text.index("larger than chance"), text.index("Results")
    for said in (synthetic_run.REMARK, "mostly form: look with sharpen report", synthetic_run.TEST, "Next"):
        assert verdict < text.index(said) < results
    for line in (f"sharpen chat {finished_run} --compare base", f"sharpen predict {finished_run} --in rows.jsonl"):
        assert verdict < text.index(line) < results
    assert ("class", "main") in page.attributes


def test_a_summary_from_before_there_were_remarks_still_has_its_verdict(finished_run: Path) -> None:
    summary = json.loads((finished_run / "summary.json").read_text())
    for key in ("headline", "remarks", "detectable"):
        del summary[key]
    (finished_run / "summary.json").write_text(json.dumps(summary | {"verdict": "All is well."}))
    assert "All is well." in report(finished_run).text


@pytest.mark.parametrize("rubbish", [3, [3], [{"text": None}], {"held_out": 3}, {"held_out": {"text": [1]}}])
def test_rubbish_in_their_place_does_no_harm(finished_run: Path, rubbish: object) -> None:
    summary = json.loads((finished_run / "summary.json").read_text())
    spoilt = summary | {"remarks": rubbish, "detectable": rubbish}
    (finished_run / "summary.json").write_text(json.dumps(spoilt))
    assert "Results" in report(finished_run).text


def test_curves_hold_the_values_of_the_metrics(finished_run: Path) -> None:
    lines = [json.loads(line) for line in (finished_run / "metrics.jsonl").read_text().splitlines()]
    rewards = [line["reward"]["mean"] for line in lines if line["stage"] == "rft"]
    drawn = [json.loads(value) for name, value in report(finished_run).attributes if name == "data-series"]
    read = [[[point[0], point[3]] for point in series] for plot in drawn for series in plot]
    assert [[step, f"{reward:.3f}"] for step, reward in enumerate(rewards, 1)] in read


def test_a_higher_value_is_drawn_higher(finished_run: Path) -> None:
    drawn = [json.loads(value) for name, value in report(finished_run).attributes if name == "data-series"]
    loss = drawn[0][0]
    assert float(loss[0][3]) > float(loss[-1][3]) and loss[0][2] < loss[-1][2]
    assert loss[0][1] < loss[-1][1]


def test_samples_count_what_rft_fixed_and_lost(finished_run: Path) -> None:
    def correct(model: str) -> list[int]:
        lines = (finished_run / f"evals/held_out/{model}.jsonl").read_text().splitlines()
        return [json.loads(line)["correct"] for line in lines]

    pairs = list(zip(correct("sft"), correct("rft"), strict=True))
    text = re.sub(r"\s+", " ", report(finished_run).text)
    assert f"{pairs.count((0, 1))} fixed" in text and f"{pairs.count((1, 0))} lost" in text
    assert f"{pairs.count((0, 0))} still wrong" in text and f"{pairs.count((1, 1))} kept right" in text


def test_text_from_data_is_never_markup(finished_run: Path) -> None:
    prompt = [{"role": ATTACK, "content": ATTACK}, {"role": "user", "content": ATTACK * 20}]
    hostile = {"text": ATTACK, "prompt": prompt, "explanation": ATTACK, "fault": {"kind": ATTACK}}
    for model in ("base", "sft", "rft"):
        edit(finished_run / f"evals/held_out/{model}.jsonl", lambda record: record | hostile)
    for path in (finished_run / "rollouts/rft").iterdir():
        edit(path, lambda record: record | hostile | {"scores": {ATTACK: 1.0, "b": 0.0}})
    edit(
        finished_run / "events.jsonl",
        lambda record: record | {"message": ATTACK, "event": "alert", "step": 3},
    )
    edit(finished_run / "metrics.jsonl", lambda record: record | {"faults": {ATTACK: 2}})
    with (finished_run / "recipe.yaml").open("a") as file:
        file.write(f"note: {ATTACK!r}\n")
    summary = json.loads((finished_run / "summary.json").read_text())
    (finished_run / "summary.json").write_text(json.dumps(summary | {"verdict": ATTACK, "model": ATTACK}))
    page = report(finished_run)
    assert page.tags.count("script") == 1 and "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert ATTACK in page.text


def test_the_page_asks_for_nothing_outside_itself(finished_run: Path) -> None:
    page = report(finished_run)
    assert not [name for name, _ in page.attributes if name in ("src", "href", "xlink:href", "action")]
    style = (finished_run / "report.html").read_text().split("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert "default-src 'none'" in style


def test_the_same_directory_gives_the_same_bytes(finished_run: Path, tmp_path: Path) -> None:
    first = write(finished_run).read_bytes()
    assert write(finished_run).read_bytes() == first
    copy = shutil.copytree(finished_run, tmp_path / "elsewhere" / finished_run.name)
    moved = write(copy).read_text(encoding="utf-8").replace(str(copy), str(finished_run))
    assert moved == first.decode(), "but for the place that its commands name"
    assert not list(finished_run.glob("*.tmp"))


def test_an_unfinished_run_shows_its_state_and_what_there_is(unfinished_run: Path) -> None:
    text = re.sub(r"\s+", " ", report(unfinished_run).text)
    assert "not finished" in text and "at step 24 of stage rft" in text.replace(" of 24", "")
    assert "no interval yet" in text and "Entropy" in text
    assert f"sharpen run --resume {unfinished_run}" in text
    assert "1 unreadable or half-written line" in text


def test_a_failed_run_says_why(unfinished_run: Path) -> None:
    with (unfinished_run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": 1_790_000_500, "event": "failed", "cause": "loss is not finite"}) + "\n")
    text = re.sub(r"\s+", " ", report(unfinished_run).text)
    assert "The run failed at step 24 of 24 of stage rft: loss is not finite." in text


@pytest.mark.parametrize(
    "missing", ["recipe.yaml", "events.jsonl", "metrics.jsonl", "rollouts", "evals", "summary.json"]
)
def test_any_part_may_be_missing(finished_run: Path, missing: str) -> None:
    part = finished_run / missing
    shutil.rmtree(part) if part.is_dir() else part.unlink()
    assert "What was run" in report(finished_run).text


@pytest.mark.parametrize("rubbish", ["[]", "null", '{"stages": [3, {"name": ["x"]}], "base": 4, "cost": []}', "{"])
def test_rubbish_is_shown_as_absence(finished_run: Path, rubbish: str) -> None:
    for file in (p for p in finished_run.rglob("*") if p.is_file()):
        file.write_text(rubbish + "\n")
    assert "Results" in report(finished_run).text


def test_an_empty_directory_has_a_report(tmp_path: Path) -> None:
    assert "before its first training step" in report(tmp_path).text


def test_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run directory"):
        write(tmp_path / "nowhere")


def test_drawings_hold_no_number_that_is_not_finite(finished_run: Path) -> None:
    def spoil(line: dict[str, Any]) -> dict[str, Any]:
        odd = {2: float("nan"), 3: float("inf"), 4: None, 5: 1e300, 6: "high", 7: 10**400}
        return line | ({"grad_norm": odd[line["step"]]} if line["step"] in odd else {})

    edit(finished_run / "metrics.jsonl", spoil)
    page = write(finished_run).read_text(encoding="utf-8")
    drawings = re.findall(r"<svg.*?</svg>", page, flags=re.DOTALL)
    assert drawings and not re.search(r"nan|inf\b|infinity", " ".join(drawings), flags=re.IGNORECASE)
    assert "5 steps had no finite value" in page


def test_a_long_run_stays_small(tmp_path: Path) -> None:
    run = synthetic_run.write(tmp_path / "long", rft_steps=5000, items=100)
    flood = "长" * 20_000
    for file in [*(run / "rollouts/rft").iterdir(), *(run / "evals/held_out").iterdir()]:
        edit(file, lambda record: record | {"text": flood})
    assert write(run).stat().st_size < 2_000_000


def test_drawn_answers_are_told_where_there_are_any(finished_run: Path) -> None:
    summary = json.loads((finished_run / "summary.json").read_text())
    assert "avg@" not in report(finished_run).text
    summary["base"]["evals"]["held_out"] |= {"avg_at_k": {"4": 0.021}, "pass_at_k": {"k": 4, "score": 0.084}}
    (finished_run / "summary.json").write_text(json.dumps(summary))
    assert "Base: avg@4 2.1%, pass@4 8.4%" in report(finished_run).text


def test_labels_get_a_confusion_matrix_and_macro_f1(finished_run: Path) -> None:
    """Thirty of each label; `y` is always right, `n` is taken for `y` ten times: F1 60/70 and 40/50."""
    answers = [{"answer": "y", "text": "y", "correct": 1}] * 30
    answers += [{"answer": "n", "text": "n", "correct": 1}] * 20 + [{"answer": "n", "text": "y", "correct": 0}] * 10
    lines = [json.loads(line) for line in (finished_run / "evals/held_out/rft.jsonl").read_text().splitlines()]
    synthetic_run.jsonl(
        finished_run / "evals/held_out/rft.jsonl",
        [line | answer for line, answer in zip(lines, answers, strict=True)],
    )
    text = re.sub(r"\s+", " ", report(finished_run).text)
    assert f"RFT: macro-F1 {(60 / 70 + 40 / 50) / 2 * 100:.1f}% [" in text
    assert "n 30 100.0% 66.7% 80.0%" in text and "y 30 75.0% 100.0% 85.7%" in text
    assert "n 20 10 · y · 30 ·" in text
    assert text.count("macro-F1") == 1
