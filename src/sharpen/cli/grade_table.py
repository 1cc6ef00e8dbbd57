"""What `sharpen grade` found, to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sharpen.cli.table import console, simple
from sharpen.cli.track import clean
from sharpen.reports.numbers import MISSING, count, plain
from sharpen.reports.numbers import show as shown

Record = Mapping[str, Any]

TRIALS, FAILED, FOOLED = 8, 5, 2
"""Samples, failed gold answers, and successful texts of an attack that are shown; --json has more."""

WIDEST = 44
"""Characters of a text in a table."""

BAR = 24
"""Characters of the histogram's longest bar."""


def show(result: Record) -> None:
    """Print all of it, part by part."""
    screen = console()
    for place, own in enumerate(result["graders"]):
        kind = "" if own["name"] == own["type"] else f"{own['type']}, "
        facts = f"  {kind}version {own['version']}, full marks {plain(own['full_marks'])}, {_rows(own['rows'])}"
        screen.print(Text.assemble("" if place else "\n", (own["name"], "bold"), (facts, "dim")))
    if result["samples"]:
        _samples(screen, result["samples"])
    _gold(screen, result["gold"], [own["full_marks"] for own in result["graders"]])
    if result["red_team"] is not None:
        _red_team(screen, result["red_team"])
    if result["labels"]:
        _labels(screen, result["labels"])
    screen.print(Text(f"\n{speed(result['speed'])}", "dim"))


def quoted(text: str, width: int = WIDEST) -> str:
    """A text on one line between quotation marks, cut short in the middle."""
    line = clean(text) if text.strip() else text.encode("unicode_escape").decode()
    half = (width - 3) // 2
    return f"“{line}”" if len(line) <= width else f"“{line[:half]} … {line[-half:]}”"


def share(value: float | None, ci95: Sequence[float] | None) -> str:
    """`43.2% [36.1, 50.6]`."""
    return shown(value, "share") + (f" [{ci95[0] * 100:.1f}, {ci95[1] * 100:.1f}]" if ci95 else "")


def number(value: float | None) -> str:
    """A score."""
    return MISSING if value is None else plain(value)


def millis(seconds: float | None) -> str:
    """`0.8 ms`, `340 ms`, `2.4 s`."""
    if seconds is None:
        return MISSING
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.{1 if seconds < 0.01 else 0}f} ms"


def faults(found: Record) -> str:
    """Faults by whose they are and of what kind; empty where there are none."""
    parts = [
        f"{sum(kinds.values()):,} of the {whose} ({', '.join(f'{kind} {n:,}' for kind, n in kinds.items())})"
        for whose, kinds in found.items()
        if kinds
    ]
    return ", ".join(parts)


def speed(found: Record) -> str:
    """How long grades took."""
    alone, together = found["alone"], found["together"]
    said = f"Time of a grade: median {millis(alone['median'])}, p95 {millis(alone['p95'])} ({alone['n']} made alone)"
    return f"{said}; {count(together['per_second'])} a second together" if together["per_second"] else said


def _samples(screen: Console, found: Record) -> None:
    source = f": {found['n']:,} of {_rows(found['rows'])}, from {found['source']}"
    if "each" in found:
        source += f" ({found['each']} each, temperature {found['temperature']:g})"
    screen.print(Text.assemble("\n", ("Samples", "bold"), source))
    if found.get("unmatched"):
        screen.print(
            Text(f"  {found['unmatched']:,} lines of the file belong to none of these rows: left out", "yellow")
        )
    facts = [("score", _mean(found))]
    facts += [(name, number(value)) for name, value in found["metrics"].items()]
    if found["spread_share"] is not None:
        facts.append(("rows whose samples differ in score", shown(found["spread_share"], "share")))
    screen.print(Text("  " + "   ".join(f"{name} {value}" for name, value in facts)))
    if said := faults(found["faults"]):
        screen.print(Text(f"  faults: {said}", "yellow"))
    if found["histogram"]:
        screen.print(_histogram(found["histogram"]))
    screen.print(_trials(found["trials"][:TRIALS]))
    if len(found["trials"]) > TRIALS:
        screen.print(Text(f"  the first {TRIALS} of {found['n']:,}; --json has all", "dim"))


def _mean(found: Record) -> str:
    ci95 = found["ci95"]
    return number(found["score"]) + (f" [{plain(ci95[0])}, {plain(ci95[1])}]" if ci95 else "")


def _histogram(found: Record) -> Table:
    """A line a bin that is not empty, or lies between such."""
    table = Table.grid(padding=(0, 1))
    counts, edges = found["counts"], found["edges"]
    full = [place for place, n in enumerate(counts) if n]
    skipped = False
    for place, n in enumerate(counts):
        if not n:
            skipped = full[0] < place < full[-1]
            continue
        if skipped:
            table.add_row("", Text("⋮", "dim"), "", "")
            skipped = False
        last = place == len(counts) - 1
        span = f"{edges[place]:g} to {edges[place + 1]:g}" if last else f"{edges[place]:g} to <{edges[place + 1]:g}"
        table.add_row(" ", Text(span, "dim"), Text(f"{n:,}", justify="right"), "█" * -(-BAR * n // max(counts)))
    return table


def _trials(trials: Sequence[Record]) -> Table:
    metrics = list(dict.fromkeys(name for trial in trials for name in trial["metrics"]))[:4]
    columns = [("row", "left"), ("score", "right"), *((name, "right") for name in metrics), ("time", "right")]
    table = simple([*columns, ("text", "left"), ("explanation", "left")])
    table.expand, table.columns[-1].ratio, table.columns[-1].overflow = True, 1, "ellipsis"  # what is left of the line
    for trial in trials:
        table.add_row(
            f"{trial['id']} {trial['sample'] + 1}",
            Text(number(trial["score"]), "bold" if trial["score"] is not None else "red"),
            *(number(trial["metrics"].get(name)) for name in metrics),
            millis(trial["seconds"]),
            Text(quoted(trial["text"], 30)),
            Text(_said(trial), "yellow" if trial["fault"] else ""),
        )
    return table


def _said(trial: Record) -> str:
    """The explanation; where the grader failed, after the kind of its fault."""
    failed = trial["score"] is None and trial["fault"]
    return clean(f"{trial['fault']['kind']}: {trial['explanation']}" if failed else trial["explanation"])


def _gold(screen: Console, found: Record, full_marks: Sequence[float]) -> None:
    title = Text.assemble("\n", ("Gold answers", "bold"))
    if not found["n"]:
        screen.print(title.append(f": no row has {found['template']}; name their field with --gold"))
        return
    failed = found["n"] - found["passed"]
    without = f"; {_rows(found['without'])} without one" if found["without"] else ""
    screen.print(title.append(f": {found['passed']:,} of {found['n']:,} get full marks{without}"))
    if not failed:
        return
    screen.print(Text(f"  The grader fails {failed:,} of its own gold answers.", "bold red"))
    if not found["passed"] and found["highest"] is not None and found["highest"] < min(full_marks):
        best = plain(found["highest"])
        screen.print(Text(f"  Their highest score is {best}: where that is full marks, say --threshold {best}."))
    for trial in found["failed"][:FAILED]:
        said = Text.assemble(f"  {trial['id']}  ", (number(trial["score"]), "bold"), f"  {quoted(trial['text'])}  ")
        screen.print(said.append(_said(trial), "dim"), no_wrap=True, overflow="ellipsis")
    if failed > FAILED:
        screen.print(Text(f"  and {failed - FAILED:,} more", "dim"))


def _red_team(screen: Console, attacks: Sequence[Record]) -> None:
    screen.print(Text.assemble("\n", ("Attacks", "bold"), ": answers that deserve nothing, and the rows they fooled"))
    columns = [("attack", "left"), ("rows", "right"), ("fooled", "right"), ("95 % interval", "left")]
    table = simple([*columns, ("mean score", "right"), ("worst text", "left"), ("holding the answer", "left")])
    for attack in attacks:
        if not (attack["n"] or attack["holding"]["n"] or attack["left_out"]):
            continue
        ci95, holding, hit = attack["ci95"], attack["holding"], bool(attack["false_positives"])
        worst = next(iter(attack["by_text"]), None)
        fooled = Text(shown(attack["rate"], "share"), "bold red" if hit else "")
        table.add_row(
            Text(attack["attack"], "bold"),
            f"{attack['rows']:,}",
            fooled,
            f"[{ci95[0] * 100:.1f}, {ci95[1] * 100:.1f}]" if ci95 else "",
            number(attack["mean"]),
            Text(quoted(worst["text"], 24)) if hit and worst else "",
            Text(f"{holding['paid']:,} of {holding['n']:,} paid" if holding["n"] else "", _warning(holding["paid"])),
        )
    screen.print(table)
    for attack in attacks:
        for trial in attack["examples"][:FOOLED]:
            said = Text.assemble(f"  {attack['attack']}: {trial['id']}  ", (number(trial["score"]), "bold red"), "  ")
            screen.print(
                said.append(quoted(trial["text"])).append(f"  {_said(trial)}", "dim"), no_wrap=True, overflow="ellipsis"
            )
    if left_out := sum(attack["left_out"] for attack in attacks):
        screen.print(Text(f"  {left_out:,} grades were left out: the grader failed on them", "yellow"))
    screen.print(
        Text(
            "Fooled: rows on which some text of the attack has full marks. A text in which the right answer stands, "
            "by accident or among all others, is no false positive; but what is paid there can be had by listing.",
            "dim",
        )
    )


def _warning(count: int) -> str:
    return "yellow" if count else ""


def _labels(screen: Console, found: Record) -> None:
    about = f": {found['n']:,} texts of {_rows(found['rows'])}, {found['good']:,} good"
    left_out = f"; {found['left_out']:,} without label or score left out" if found["left_out"] else ""
    screen.print(Text.assemble("\n", ("People's labels", "bold"), f" ({found['field']}){about}{left_out}"))
    columns = [("passed from", "left"), ("agreement", "left"), ("κ", "left"), ("balanced accuracy", "left")]
    table = simple([*columns, ("good passed", "right"), ("bad passed", "right")])
    table.add_row(Text("full marks", "bold"), *_judged(found["at_full_marks"]))
    best = found["best"]
    if best:
        table.add_row(Text(f"{best['threshold']:.4g}", "bold"), *_judged(best))
    screen.print(table)
    facts = [f"AUC {_valued(found['auc'])}", f"Spearman {number(found['spearman'])}"]
    if best and best["ci95"]:
        low, high = best["ci95"]
        facts.append(f"the best threshold, chosen anew in each resample: [{low:.4g}, {high:.4g}]")
    screen.print(Text(f"  {', '.join(facts)}"))
    screen.print(Text("Intervals: 95 %, bootstrap over rows. The best threshold was chosen on these labels.", "dim"))


def _judged(side: Record) -> Iterator[str]:
    table = side["confusion"]
    yield share(side["agreement"]["value"], side["agreement"]["ci95"])
    yield _valued(side["kappa"])
    yield share(side["balanced_accuracy"]["value"], side["balanced_accuracy"]["ci95"])
    yield f"{table['right_good']:,} of {table['right_good'] + table['wrong_good']:,}"
    yield f"{table['right_bad']:,} of {table['right_bad'] + table['wrong_bad']:,}"


def _valued(measure: Record) -> str:
    ci95 = measure["ci95"]
    return number(measure["value"]) + (f" [{plain(ci95[0])}, {plain(ci95[1])}]" if ci95 else "")


def _rows(n: int) -> str:
    return f"{n:,} row{'' if n == 1 else 's'}"
