"""`sharpen predict`: a model's answers to the rows of a file."""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.cli.evaluate import typed
from sharpen.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.answer.predict import Progress, Report, Settings, Tell, Watch


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen predict` is told."""
    parser.add_argument(
        "model", metavar="MODEL", help="an alias, a run, a folder such as runs/X/models/rft, or a hub id"
    )
    parser.add_argument(
        "--in",
        dest="source",
        required=True,
        metavar="FILE",
        help="rows: JSONL, JSON, CSV, TSV, Parquet, a hub dataset, or - for JSONL on standard input",
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the rows with their answers: .jsonl, .csv or .tsv"
    )
    parser.add_argument("--overwrite", "--force", action="store_true", help="begin anew, whatever --out holds")
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="OURS=THEIRS",
        help="how the file calls what we call prompt, as in prompt=question; may be repeated",
    )
    parser.add_argument(
        "--answer-column", default="prediction", metavar="NAME", help="the answer's field (default: prediction)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N rows")
    answering(parser, max_tokens=256)
    parser.add_argument(
        "--response-format",
        metavar="FORM",
        help="hold answers to a form, as a recipe does: '{type: json_object}', or a YAML file",
    )


def answering(parser: ArgumentParser, max_tokens: int) -> None:
    """How a model answers, here and in `sharpen chat`."""
    parser.add_argument(
        "--system",
        metavar="TEXT",
        help="a system message to begin with (default: the one that all held-out problems of the model's run had)",
    )
    parser.add_argument(
        "--max-tokens", type=int, default=max_tokens, metavar="N", help=f"longest answer (default: {max_tokens})"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="T",
        help="above 0 answers are drawn (default: 0, the likeliest token)",
    )
    parser.add_argument(
        "--top-p",
        type=float,
        default=1.0,
        metavar="P",
        help="draw from the likeliest tokens of this probability (default: 1, all)",
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for drawn answers (default: 0)")


def predict(options: Namespace) -> int:
    """Answer the rows, and say what came out."""
    more = {name: getattr(options, name) for name in ("answer_column", "limit")}
    form = typed(options.response_format, "--response-format")
    more |= {"columns": dict(map(_pair, options.columns)), "response_format": form}
    settings = checked(options, more)
    if settings.system and options.system is None:
        print(f"System   {' '.join(settings.system.split())} (the run's; --system '' for none)", file=sys.stderr)
    from sharpen.answer import predict as answers  # imports torch

    with _file(options.source) as path, _watching() as (watch, tell):
        report = answers.predict(
            options.model, path, options.out, settings, overwrite=options.overwrite, watch=watch, tell=tell
        )
    _conclude(report, options)
    return 0


def checked(options: Namespace, more: dict[str, Any]) -> Settings:
    """The options of `answering`, and `more`, as settings."""
    from pydantic import ValidationError

    from sharpen.answer.named import system_of
    from sharpen.answer.predict import Settings
    from sharpen.config.load import explain

    names = ("max_tokens", "temperature", "top_p", "seed")
    system = system_of(options.model) if options.system is None else options.system
    try:
        return Settings.model_validate({**{name: getattr(options, name) for name in names}, "system": system, **more})
    except ValidationError as error:
        raise explain(error, Settings) from error


def _pair(text: str) -> tuple[str, str]:
    ours, equals, theirs = text.partition("=")
    if not (ours and equals and theirs):
        raise ConfigError("not a pair of names", path="--columns", value=text, remedy="Write --columns prompt=question")
    return ours, theirs


@contextmanager
def _file(source: str) -> Iterator[str]:
    """The path of the rows; what comes on standard input is put into a file, for it is read more than once."""
    if source != "-":
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="sharpen-") as folder:
        path = Path(folder) / "stdin.jsonl"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield str(path)


@contextmanager
def _watching() -> Iterator[tuple[Watch, Tell]]:
    """What shows the progress, and what is told: with a bar on a terminal, in lines elsewhere."""
    if not sys.stdout.isatty() or os.environ.get("TERM") == "dumb":
        yield NowAndThen(lambda progress: print(f"answers  {said(progress)}", flush=True), 5.0), print
        return
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    with Bar(TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}")) as bar:
        task = bar.add_task("answers", total=None, said="")

        def show(progress: Progress) -> None:
            bar.update(task, completed=progress.earlier + progress.share, total=progress.total, said=said(progress))

        yield NowAndThen(show, 0.2), lambda said: bar.console.print(said, markup=False, highlight=False)


class NowAndThen:
    """Shows the beginning and the end, and between them what comes when so many seconds have passed."""

    def __init__(self, show: Watch, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._show = show
        self._seconds = seconds
        self._clock = clock
        self._last, self._rows = -math.inf, -1

    def __call__(self, progress: Progress) -> None:
        ends = progress.rows == progress.total != self._rows
        if ends or self._clock() - self._last >= self._seconds:
            self._last, self._rows = self._clock(), progress.rows
            self._show(progress)


def said(progress: Progress) -> str:
    """`384/1,000 rows  512 tokens/s  ETA 1 min 12 s`."""
    from sharpen.reports.numbers import count, roughly

    left = progress.total - progress.earlier - progress.share
    parts = [f"{progress.rows:,}/{progress.total:,} rows"]
    if progress.tokens:
        parts.append(f"{count(progress.tokens / progress.seconds)} tokens/s")
    if left and progress.share > min(5, left / 10):  # the first tokens come late, and say little
        parts.append(f"ETA {roughly(progress.seconds / progress.share * left)}")
    if progress.earlier and not progress.share:
        parts.append(f"going on after {progress.earlier:,} rows of an earlier run of this command")
    return "  ".join(parts)


def _conclude(report: Report, options: Namespace) -> None:
    from sharpen.reports.numbers import count, duration

    progress = report.progress
    facts = [f"{progress.rows:,} rows"]
    if progress.tokens:
        facts += [f"{progress.tokens:,} tokens", f"{count(progress.tokens / progress.seconds)} tokens/s"]
    print(f"{', '.join([*facts, duration(progress.seconds)])}")
    if report.cut:
        longest = f"--max-tokens {options.max_tokens}"
        print(f"Cut off  {report.cut:,} answers, which had not ended at {longest}; raise it where they should")
    print(f"Answers  {options.out}")
    if report.reference and options.source != "-":
        print(f"Next     {_evaluation(report.reference, options)}")


def _evaluation(reference: str, options: Namespace) -> str:
    """The command that scores the model on rows that have answers."""
    from sharpen.answer.named import named

    data: dict[str, Any] = {"path": options.source}
    if options.columns:
        data["columns"] = dict(map(_pair, options.columns))
    grader: dict[str, str] = {"type": "string_check"}
    if reference != "answer":
        grader["reference"] = f"{{{{ item.{reference} }}}}"
    words = [
        *("sharpen", "eval", named(options.model)),
        *("--data", options.source if len(data) == 1 else json.dumps(data, ensure_ascii=False)),
        *("--grader", "string_check" if len(grader) == 1 else json.dumps(grader)),
        *(("--max-tokens", str(options.max_tokens))),
    ]
    return shlex.join(words)
