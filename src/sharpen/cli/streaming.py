"""Answers as they are made: one in a stream, or two side by side."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from sharpen.types import Sample

WIDE = 100
"""Columns that a terminal must have for two answers side by side."""

GAP = 3


class Stream:
    """Writes an answer as it grows, after what is written of it already; thoughts dim, and only to a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._thoughts = self._text = ""

    def hear(self, sample: Sample) -> None:
        """Write what is new."""
        if self._console.is_terminal:
            self._thoughts = self._write(sample.reasoning, self._thoughts, "dim")
            if self._thoughts and sample.text and not self._text:
                self._console.print("\n")
        self._text = self._write(sample.text, self._text, "")

    def end(self) -> None:
        """End the line."""
        self._console.print()

    def _write(self, text: str, written: str, style: str) -> str:
        if not text.startswith(written):  # the beginning of a mark was taken for text
            return written
        new = text[len(written) :]
        if self._console.is_terminal:
            self._console.print(Text(harmless(new), style), end="", soft_wrap=True)
        else:
            self._console.file.write(new)
        self._console.file.flush()
        return text


class Columns:
    """Several answers side by side, drawn anew as they grow while it is entered; the whole of them stays."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        self._console = console
        self._names = names
        self._samples = [Sample("") for _ in names]
        self._width = (console.width - GAP * (len(names) - 1)) // len(names)
        self._live = Live(console=console, get_renderable=self._newest, refresh_per_second=8, transient=True)

    def __enter__(self) -> Self:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, error, trace)
        self._console.print(self._table(None))

    def hear(self, place: int) -> Callable[[Sample], None]:
        """What hears of the answer in one column."""

        def heard(sample: Sample) -> None:
            self._samples[place] = sample

        return heard

    def _newest(self) -> RenderableType:
        return self._table(max(1, self._console.height - 3))

    def _table(self, most: int | None) -> Table:
        """The answers, or the last lines of each."""
        table = Table.grid(padding=(0, GAP, 0, 0))
        for _ in self._names:
            table.add_column(width=self._width)
        table.add_row(*(Text(name, "bold cyan") for name in self._names))
        table.add_row(*(self._column(sample, most) for sample in self._samples))
        return table

    def _column(self, sample: Sample, most: int | None) -> Text:
        thoughts = Text(harmless(sample.reasoning), "dim")
        text = Text.assemble(thoughts, "\n\n" if sample.reasoning and sample.text else "", harmless(sample.text))
        lines = text.wrap(self._console, self._width)
        return Text("\n").join(lines[-most:] if most else lines)


def harmless(text: str) -> str:
    """Text that cannot steer a terminal: models write what they like."""
    return "".join(
        sign if sign in "\n\t" or unicodedata.category(sign) != "Cc" else "\N{REPLACEMENT CHARACTER}" for sign in text
    )
