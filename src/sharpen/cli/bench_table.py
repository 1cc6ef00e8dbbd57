"""The figures of `sharpen bench`, to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sharpen.cli.table import console, simple
from sharpen.reports.numbers import MISSING, count, duration, memory, roughly

Record = Mapping[str, Any]

STAGES = ("stage", "a step", "sample", "grade", "train", "sampled/s", "trained/s", "memory", "steps", "all of it")
EVALS = ("eval", "an answer", "sampled/s", "memory", "answers", "all of it")
LEGEND = (
    "Tokens a second: sampled while sampling; in training all that go through the model, a group's prompt once. "
    "Memory: peak of all processes together."
)


def show(result: Record) -> None:
    """Print what was measured, the forecast, and what both rest on."""
    screen = console()
    facts = f"  {result['dtype']}, {_number(result['threads'], 'thread')} on {_number(result['cores'], 'core')}"
    screen.print(Text.assemble("\n", (str(result["model"]), "bold"), (facts, "dim")))
    for columns, rows in ((STAGES, map(_stage, result["stages"])), (EVALS, map(_eval, result["evals"]))):
        table = simple([(name, "right" if place else "left") for place, name in enumerate(columns)])
        for name, *figures, forecast in rows:
            table.add_row(Text(name, "bold"), *figures, Text(forecast, "bold"))
        if table.row_count:
            screen.print(table)
    screen.print(Text(LEGEND, "dim"))
    most = "at most " if any(_is_part(stage) for stage in result["stages"]) else "about "
    screen.print(Text.assemble("\nThe whole recipe: ", (most + roughly(result["forecast_seconds"]), "bold")))
    screen.print(Text("\nWhat this rests on", "bold"))
    grid = Table.grid(padding=(0, 2))
    for name, grounds in _grounds(result):
        for place, fact in enumerate(grounds):
            grid.add_row(Text("" if place else name, "bold"), Text(fact))
    screen.print(Padding(grid, (0, 0, 0, 2)))
    screen.print(Text(f"\nMeasured in {duration(result['seconds'])}; nothing was written.", "dim"))
    if result["busy"]:
        load = f"load average {result['load_average']:.1f}"
        screen.print(Text(f"Other work was going on here ({load}): on an idle machine it all takes less.", "yellow"))


def _stage(stage: Record) -> tuple[str, ...]:
    seconds, rates, forecast = stage["seconds"], stage["tokens_per_second"], stage["forecast"]
    most, least = ("≤ ", "≥ ") if _is_part(stage) else ("", "")
    return (
        stage["name"],
        most + _short(seconds["step"]),
        *(_short(seconds[phase]) if phase in seconds else MISSING for phase in ("sample", "grade", "train")),
        _rate(rates["sampled"]),
        _rate(rates["computed"]),
        least + memory(stage["peak_memory_bytes"]),
        f"{forecast['steps']:,}",
        most + roughly(forecast["seconds"]),
    )


def _eval(held_out: Record) -> tuple[str, ...]:
    forecast = held_out["forecast"]
    return (
        held_out["name"],
        _short(held_out["seconds"]["step"]),
        _rate(held_out["tokens_per_second"]["sampled"]),
        memory(held_out["peak_memory_bytes"]),
        f"{forecast['answers']:,}",
        roughly(forecast["seconds"]),
    )


def _grounds(result: Record) -> Iterator[tuple[str, list[str]]]:
    """What the figures of each part rest on, and what they leave out."""
    for place, stage in enumerate(result["stages"]):
        yield stage["name"], [*_of_stage(stage), *(_of_rft(stage, place) if stage["type"] == "rft" else ())]
    for held_out in result["evals"]:
        rests, answers = held_out["rests_on"], held_out["forecast"]["answers"]
        models = _number(1 + len(result["stages"]), "model")
        yield (
            held_out["name"],
            [
                f"{_number(rests['problems'], 'greedy answer')} of the model as it is now: {_lengths(rests)}",
                f"extrapolated to {answers:,} answers of {models}",
            ],
        )
    yield "start", [f"{duration(result['start_seconds'])} to read the data and load the model, which is in the whole"]
    yield "left out", ["starting graders, writing checkpoints and models, the report"]


def _of_stage(stage: Record) -> Iterator[str]:
    rests, forecast = stage["rests_on"], stage["forecast"]
    unit = "row" if "rows" in rests else "prompt"
    units = rests[f"{unit}s"]
    each = round(units / rests["steps"])
    tokens = f"{_number(rests['computed'], 'token')} through the model, {rests['trained']:,} of them under the loss"
    if _is_part(stage):
        yield f"extrapolated from {_number(units, unit)} of the {each:,} of a step: {tokens}"
        yield "a whole step is faster for each of them, and needs more memory; a larger --budget has time for one"
    else:
        yield f"{_number(units // each, 'whole step')} of {_number(each, unit)}: {tokens}"
    yield f"trains {stage['trains']}"
    if looks := forecast["looks"]:
        seconds = roughly(forecast["looks_seconds"])
        yield f"{_number(looks, 'look')} at the validation rows, estimated: {seconds} of it all"


def _of_rft(stage: Record, place: int) -> Iterator[str]:
    rests = stage["rests_on"]
    yield f"{_number(rests['completions'], 'completion')}: {_lengths(rests)}"
    if place:
        yield "they are of the model as it is now: after the stages before, their lengths will be others"
    if idle := rests["groups_without_spread"]:
        groups = _number(rests["prompts"], "group")
        yield f"{idle:,} of {groups} had equal rewards: trained on here, which a run skips, so it may be faster"


def _is_part(stage: Record) -> bool:
    """Whether no whole step was measured."""
    return bool(stage["rests_on"]["extrapolated"])


def _lengths(rests: Record) -> str:
    """How long the completions were."""
    mean, cut_off = rests["sampled"] / rests["completions"], rests["cut_off"] / rests["completions"]
    return f"{_number(rests['sampled'], 'token')}, {mean:.1f} each, {cut_off:.0%} cut off"


def _short(seconds: float) -> str:
    """`340 ms`, `2.4 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else duration(seconds)


def _rate(value: float | None) -> str:
    return count(value) if value else MISSING


def _number(value: int, unit: str) -> str:
    """`1 step`, `2 steps`."""
    return f"{value:,} {unit}{'' if value == 1 else 's'}"
