"""Answers that were paid for, and what they took: each is written down as it arrives, and never bought twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.runs.store import append, read_lines


@dataclass
class Spent:
    """What a grader has used up."""

    requests: int = 0
    tokens: int = 0
    usd: float = 0.0


class Ledger:
    """Answers under the hash of their question, in a file of the run or, without one, in memory."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._answers: dict[str, Any] = {}
        self.spent: dict[str, Spent] = defaultdict(Spent)
        """By grader."""
        for line in read_lines(path) if path else ():
            self._take(line)

    def get(self, question: str) -> Any:
        """The answer noted under a question's hash, or None."""
        return self._answers.get(question)

    @contextmanager
    def forgetful(self) -> Iterator[None]:
        """For this block no answer is known, so that every question is asked anew; the first answers stay."""
        answers, self._answers = self._answers, {}
        try:
            yield
        finally:
            self._answers |= answers

    def note(self, question: str, grader: str, answer: Any, tokens: int, usd: float) -> None:
        """Write an answer down, with what it took; None: one that is of no use, but was paid for."""
        line = {"question": question, "grader": grader, "answer": answer, "tokens": tokens, "usd": usd}
        if self._path:
            append(self._path, [line], sync=True)
        self._take(line)

    def _take(self, line: dict[str, Any]) -> None:
        if line["answer"] is not None:
            self._answers.setdefault(line["question"], line["answer"])  # as in `forgetful`: the first ones stay
        spent = self.spent[line["grader"]]
        spent.requests += 1
        spent.tokens += line["tokens"]
        spent.usd += line["usd"]
