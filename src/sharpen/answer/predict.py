"""A model's answers to the rows of a file: in batches, each row once, however often the work is stopped.

Batches are always the same rows, and random numbers are counted on the row, so that a work that was killed and goes
on makes the same bits as an undisturbed one: what was answered of the batch under way is made again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from sharpen.answer.named import named, unfinished
from sharpen.answer.output import Output, Writer
from sharpen.answer.rows import Row, rows
from sharpen.answer.survey import THOUGHTS, added, look, measure, prompt
from sharpen.config.base import Config
from sharpen.config.data import FileData
from sharpen.config.response_format import ResponseFormat
from sharpen.config.stages import Count
from sharpen.data.source import fingerprint
from sharpen.errors import ConfigError, Interrupted
from sharpen.models.load import compute_dtype, load, resolve
from sharpen.rollout.base import Params, Request
from sharpen.rollout.generate import ROWS, Answerer
from sharpen.rollout.grammar import grammar_of
from sharpen.stages.pipeline import blocking
from sharpen.stages.stopping import StopFlag, stopping
from sharpen.types import Sample

_MODEL = (".safetensors", ".json", ".jinja", ".model", ".txt")


class Settings(Config):
    """What is asked, and how it is answered."""

    columns: dict[str, str] = Field(default_factory=dict)
    """Names of our fields to names in the rows, such as `{prompt: question}`."""

    limit: Count | None = None
    """Answer only the first so many rows."""

    system: str = ""
    """A system message for the rows that have none of their own."""

    answer_column: Annotated[str, Field(min_length=1)] = "prediction"
    """The field that the answer is put into; no row may have it already."""

    max_tokens: Count = 256
    """The longest answer, in tokens."""

    temperature: Annotated[float, Field(ge=0)] = 0.0
    """Logits are divided by it; 0 takes the likeliest token always."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Draw from the smallest set of likeliest tokens whose probability is at least this; 1: from all."""

    seed: Annotated[int, Field(ge=0)] = 0
    """Random numbers are counted on it and the row's place."""

    response_format: ResponseFormat | None = None
    """The form that answers are held to; none: any text."""


class Progress(NamedTuple):
    """How far the work is; `earlier` rows were answered by a process before this one, `tokens` made by this one.

    `share` counts this process's rows, an answer under way as its share of max_tokens.
    """

    rows: int
    total: int
    earlier: int
    tokens: int
    share: float
    seconds: float


class Report(NamedTuple):
    """What came out; `cut` answers reached max_tokens, and `reference` is a field that holds the rows' own answers."""

    progress: Progress
    cut: int
    reference: str


Watch = Callable[[Progress], None]
Tell = Callable[[str], None]


def predict(
    model: str,
    path: str,
    out: Path,
    settings: Settings,
    *,
    overwrite: bool = False,
    watch: Watch = lambda progress: None,
    tell: Tell = lambda said: None,
) -> Report:
    """Write the rows of a file or hub dataset to `out`, each with the model's answer; an unfinished `out` goes on.

    `watch` hears how far it is, `tell` what should be known before. All rows are read and measured before the first is
    answered. Raises DataError for a row that cannot be read, asks nothing, has the answer's field already, or is too
    long for the model; RunError where `out` is not this work's or the disk is full; Interrupted after SIGINT or
    SIGTERM, with what was answered kept.
    """
    if Path(path).exists() and out.exists() and out.samefile(path):
        raise ConfigError(
            "the answers would overwrite the rows", path="--out", value=str(out), remedy="Name another file"
        )
    survey = look(_read(path, settings), settings.answer_column)
    source = named(model)
    folder = resolve(source, tell)
    made_by = {"model": _digest(folder), "input": fingerprint(FileData(path=path), Path())}
    output = Output(out, {**made_by, **settings.model_dump(mode="json")})
    done = output.found(overwrite)
    if missing := unfinished(model):
        tell(f"the run is not finished: it has no model of {missing} yet")
    tell(f"{source} answers {survey.total:,} rows")
    loaded = load(folder, compute_dtype("auto"))
    answerer, grammar = Answerer(loaded), grammar_of(settings.response_format, loaded)
    if loaded.notice:
        tell(loaded.notice)
    params = Params(settings.max_tokens, settings.temperature, top_p=settings.top_p, grammar=grammar)
    fields = added(survey, path, settings.answer_column, answerer)
    if not done.rows:
        measure(_read(path, settings), answerer, settings.max_tokens)
    work = _Work(settings, survey.total, done.rows, watch)
    with output.opened(done, fields) as writer, stopping(work.stop):
        work.answer(_read(path, settings), answerer, params, writer)
        writer.finish()
    return Report(work.progress(), writer.done.cut, survey.reference)


def _read(path: str, settings: Settings) -> Iterator[Row]:
    return rows(path, settings.columns, settings.limit, settings.system)


class _Work:
    """The answering: what was made, and since when."""

    def __init__(self, settings: Settings, total: int, earlier: int, watch: Watch) -> None:
        self.stop = StopFlag()
        self._settings = settings
        self._total = total
        self._earlier = self._rows = earlier
        self._tokens = 0
        self._share = 0.0
        self._watch = watch
        self._began = time.monotonic()

    def answer(self, found: Iterator[Row], answerer: Answerer, params: Params, writer: Writer) -> None:
        """Answer the rows that the writer does not have yet, a batch at a time."""
        self._began = time.monotonic()
        self._watch(self.progress())
        left = islice(enumerate(found), writer.done.rows, None)
        while batch := list(islice(left, ROWS)):
            requests = [Request(prompt(row, answerer), (self._settings.seed, place)) for place, row in batch]
            made = blocking(answerer.answer(requests, params, self._seen(answerer, params, writer)))
            samples = [rollout.sample for rollout in made]
            records = [
                {**row.record, **_thoughts(sample), self._settings.answer_column: sample.text}
                for (_, row), sample in zip(batch, samples, strict=True)
            ]
            writer.append(records, sum(sample.finish == "length" for sample in samples))
            self._rows = writer.done.rows
            self._watch(self.progress())

    def progress(self) -> Progress:
        """How far it is now."""
        return Progress(
            self._rows, self._total, self._earlier, self._tokens, self._share, time.monotonic() - self._began
        )

    def _seen(self, answerer: Answerer, params: Params, writer: Writer) -> Callable[[int, int], None]:
        made: dict[int, int] = {}

        def seen(which: int, token: int) -> None:
            if self.stop.cause:
                kept = writer.done.rows
                raise Interrupted(
                    f"stopped by {self.stop.cause}: {kept:,} of {self._total:,} rows are answered and kept",
                    remedy="Run the same command again: it goes on",
                )
            made[which] = made.get(which, 0) + 1
            self._tokens += 1
            self._share += 1 / params.max_tokens
            if token in answerer.loaded.stop or made[which] == params.max_tokens:
                self._rows += 1
                self._share += 1 - made[which] / params.max_tokens
            self._watch(self.progress())

        return seen


def _thoughts(sample: Sample) -> dict[str, str]:
    return {THOUGHTS: sample.reasoning} if sample.reasoning else {}


def _digest(folder: Path) -> str:
    """SHA-256 of all that makes a model's answers: weights, configuration, tokenizer."""
    found = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.suffix in _MODEL and path.name != "manifest.json"):
        with path.open("rb") as file:
            found.update(f"{path.name} {hashlib.file_digest(file, 'sha256').hexdigest()}\n".encode())
    return found.hexdigest()
