"""The findings of `sharpen data check`, to read and as JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from sharpen.data.check import SHOWN_PLACES, Fault, Findings, Lengths, Rendered, Report
from sharpen.data.duplicates import Pair
from sharpen.data.formats.parts import Purpose

SCHEMA_VERSION = 1
LONGEST_SPAN = 600
"""Characters of a stretch of the rendered row that are shown."""

_BARS = " ▁▂▃▄▅▆▇█"
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # would steer the terminal
_BOLD, _TRAINED, _RED, _PLAIN = "\x1b[1m", "\x1b[30;42m", "\x1b[1;31m", "\x1b[0m"


def as_json(report: Report) -> str:
    """One JSON object, indented."""
    lengths = report.lengths
    content: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "file": report.file,
        "for": report.purpose,
        "rows": report.rows,
        "faulty_rows": report.faulty,
        "faults": [asdict(fault) for fault in report.faults],
        "tokens": None if lengths is None else {**_quantiles(lengths), "histogram": lengths.histogram()},
        "loss": None if lengths is None else {"trained": lengths.trained, "total": lengths.total},
        "duplicates": {
            "exact": _pairs(report.duplicates.exact),
            "near": _pairs(report.duplicates.near),
        },
        "overlap": {
            name: {"count": shared.count, "lines": [place.line for place in shared.places]}
            for name, shared in report.overlap.items()
        },
        "private": {
            name: {"count": kind.count, "first": [place._asdict() for place in kind.places]}
            for name, kind in report.private.items()
        },
        "rendered": report.rendered and {**asdict(report.rendered), "spans": _spans(report.rendered)},
    }
    return json.dumps(content, indent=2)


def as_text(report: Report, *, colour: bool) -> str:
    """The findings in paragraphs; trained tokens are coloured, or stand between ⟦ and ⟧."""
    title = f"{_in(_BOLD, _visible(report.file), colour)}, read for {report.purpose}"
    findings = [f"  {name:<13}{_visible(line)}" for name, line in _findings(report)]
    return "\n".join([title, "", *findings, *_rendered(report, colour), *_faults(report, colour)])


def _findings(report: Report) -> Iterator[tuple[str, str]]:
    faulty = "1 has a fault" if report.faulty == 1 else f"{report.faulty:,} have faults"
    yield "rows", f"{report.rows:,}, of which {faulty}"
    if report.lengths is not None and report.lengths.counts:
        yield from _lengths(report.lengths, report.purpose)
    found = report.duplicates
    yield "duplicates", f"{len(found.exact):,} exact, {len(found.near):,} near"
    yield from (("", f"line {row} says what line {earlier} says") for row, earlier in found.exact[:SHOWN_PLACES])
    yield from (("", f"line {row} is nearly line {earlier}") for row, earlier in found.near[:SHOWN_PLACES])
    for name, shared in report.overlap.items():
        lines = ", ".join(str(place.line) for place in shared.places)
        yield "overlap", f"{shared.count:,} prompts stand in {name} too{_more(f': line {lines}', shared)}"
    yield "private", "nothing found" if not report.private else "likely personal data or secrets, values cut short:"
    for name, kind in sorted(report.private.items()):
        places = ", ".join(f"line {line} {place} {masked}" for line, place, masked in kind.places)
        yield "", f"{kind.count:,} × {name}{_more(f': {places}', kind)}"


def _more(places: str, found: Findings) -> str:
    """The places, and whether there are more; nothing where there are none."""
    return "" if not found.count else places + (", …" if found.count > len(found.places) else "")


def _lengths(lengths: Lengths, purpose: Purpose) -> Iterator[tuple[str, str]]:
    yield "tokens a row", "   ".join(f"{name} {count:,}" for name, count in _quantiles(lengths).items())
    rows = lengths.histogram()
    bars = "".join(_BARS[-(-(len(_BARS) - 1) * count // max(rows))] for count in rows)
    yield "", f"{lengths.quantile(0):,} ▕{bars}▏ {lengths.quantile(1):,}"
    share = lengths.trained / max(1, lengths.total)
    covered = f"{lengths.trained:,} of {lengths.total:,} tokens ({share:.1%})"
    yield "loss covers", "the model's own answers, nothing of the rows" if purpose == "rft" else covered


def _quantiles(lengths: Lengths) -> dict[str, int]:
    return {name: lengths.quantile(share) for name, share in (("min", 0), ("median", 0.5), ("p95", 0.95), ("max", 1))}


def _rendered(report: Report, colour: bool) -> Iterator[str]:
    row = report.rendered
    if row is None:
        if report.lengths is not None and report.lengths.counts:
            yield "\nNo row is shown: every good one holds likely personal data or secrets."
        return
    marks = "trained tokens are coloured" if colour else "trained tokens stand between ⟦ and ⟧"
    meaning = "the model's own answers come after it" if report.purpose == "rft" else marks
    yield f"\nLine {row.line} as the model reads it ({meaning}):"
    before, after = (_TRAINED, _PLAIN) if colour else ("⟦", "⟧")
    shown = ((_visible(span["text"]), span["trained"]) for span in _spans(row))
    yield "".join(f"{before}{text}{after}" if trained else text for text, trained in shown)


def _faults(report: Report, colour: bool) -> Iterator[str]:
    if not report.faults:
        yield "\nNo faults."
        return
    yield "\n" + _in(_RED, "Faults:", colour)
    yield from (f"  {_visible(_fault(fault))}" for fault in report.faults)
    if report.faulty > len(report.faults):
        yield f"  and {report.faulty - len(report.faults):,} more"


def _fault(fault: Fault) -> str:
    place = ":".join(part for part in (fault.file, str(fault.line or ""), fault.field) if part)
    value = "" if fault.value is None else f" (got {fault.value})"
    return f"{place}: {fault.fact}{value}. {fault.remedy}"


def _spans(row: Rendered) -> list[dict[str, Any]]:
    return [{"text": _middle_out(span.text), "trained": span.trained} for span in row.spans]


def _middle_out(text: str) -> str:
    """The text, or its beginning and end where it is long."""
    left_out = len(text) - LONGEST_SPAN
    half = LONGEST_SPAN // 2
    return text if left_out <= 0 else f"{text[:half]} [… {left_out:,} characters …] {text[-half:]}"


def _pairs(pairs: Sequence[Pair]) -> dict[str, Any]:
    return {"rows": len(pairs), "first": [{"line": row, "earlier": earlier} for row, earlier in pairs[:SHOWN_PLACES]]}


def _visible(text: str) -> str:
    return _CONTROL.sub(lambda sign: f"\\x{ord(sign[0]):02x}", text)


def _in(style: str, text: str, colour: bool) -> str:
    return f"{style}{text}{_PLAIN}" if colour else text
