"""Sequences to batches: flat tokens under a budget, shared prefixes computed once, nothing padded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from zlib import decompress

import numpy as np
import torch
from torch import Tensor

from sharpen.models.attention import Span
from sharpen.models.head import PackedSupport
from sharpen.types import Sequence as Row


@dataclass(frozen=True)
class Batch:
    """T packed tokens and the N predictions the loss asks for, of S sequences in `rows` rows."""

    tokens: Tensor  # (T,)
    positions: Tensor  # (T,)
    spans: tuple[Span, ...]
    source: Tensor  # (N,) which of the T tokens predicts
    target: Tensor  # (N,) the token to predict
    sequence: Tensor  # (N,) which of the S sequences this is of
    lengths: Tensor  # (S,) trained tokens of each sequence
    advantages: Tensor  # (N,)
    rollout_logprobs: Tensor  # (N,) under the sampler
    old_logprobs: Tensor | None  # (N,) under the trainer before this batch's first step; None: this is that step
    ref_logprobs: Tensor | None  # (N,) under the reference
    support: PackedSupport | None  # what each of the N could be; None: anything
    rows: int


def atoms(rows: Iterable[Row]) -> list[list[Row]]:
    """Neighbouring sequences of one atom, which share a prefix and are packed together where they fit."""
    return [list(group) for _, group in groupby(rows, key=lambda row: row.atom)]


def sequences(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each sequence: a rollout's neighbouring segments, or a row by itself."""
    keys = ((row.atom, index if row.attempt is None else -1, row.attempt, row) for index, row in enumerate(rows))
    return [[row for *_, row in group] for _, group in groupby(keys, key=lambda keyed: keyed[:3])]


def cost(atom: Sequence[Row]) -> int:
    """Tokens that an atom takes in a batch: its shared prefix once."""
    return atom[0].shared + sum(len(row.tokens) - row.shared for row in atom)


def pack(rows: Iterable[Row], budget: int, *, whole: bool = False) -> Iterator[Batch]:
    """Batches of at most `budget` tokens, in the order of the rows; a sequence over the budget stands alone.

    An atom over the budget comes in parts, each with the shared prefix; with `whole` it stands alone.
    """
    pending: list[list[Row]] = []
    used = 0
    for part in atoms(rows) if whole else _parts(rows, budget):
        if pending and used + cost(part) > budget:
            yield _batch(pending)
            pending, used = [], 0
        pending.append(part)
        used += cost(part)
    if pending:
        yield _batch(pending)


def _parts(rows: Iterable[Row], budget: int) -> Iterator[list[Row]]:
    """Atoms, or as much of one as the budget holds; sequences stay whole."""
    for atom in atoms(rows):
        part: list[Row] = []
        used = shared = atom[0].shared
        for sequence in sequences(atom):
            own = cost(sequence) - shared
            if part and used + own > budget:
                yield part
                part, used = [], shared
            part.extend(sequence)
            used += own
        yield part


class _Writer:
    """Collects the flat lists of one batch."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.source: list[int] = []
        self.spans: list[Span] = []
        self.rows: list[Row] = []

    def write(self, tokens: Sequence[int], span: Span) -> int:
        """Append tokens as a span like the one given; returns the index of the first."""
        start = len(self.tokens)
        if tokens:
            self.tokens.extend(tokens)
            self.positions.extend(range(span.prefix, span.prefix + len(tokens)))
            self.spans.append(span._replace(start=start, length=len(tokens)))
        return start


def _batch(atoms: Sequence[Sequence[Row]]) -> Batch:
    writer = _Writer()
    for atom in atoms:
        if atom[0].shared and len(atom) > 1:
            _write_tree(writer, atom)
        else:
            for row in atom:
                _write_tree(writer, [replace(row, shared=0)])
    rows = writer.rows
    counts = [sum(row.trained for row in sequence) for sequence in sequences(rows)]

    def trained(name: str) -> Tensor:
        values = [v for row in rows for v, m in zip(getattr(row, name) or row.mask, row.mask, strict=True) if m]
        return torch.tensor(values, dtype=torch.float32)

    def given(name: str) -> Tensor | None:
        return trained(name) if all(getattr(row, name) for row in rows) else None

    return Batch(
        tokens=torch.tensor(writer.tokens),
        positions=torch.tensor(writer.positions),
        spans=tuple(writer.spans),
        source=torch.tensor(writer.source, dtype=torch.long),
        target=torch.tensor(
            [t for row in rows for t, m in zip(row.tokens, row.mask, strict=True) if m], dtype=torch.long
        ),
        sequence=torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)),
        lengths=torch.tensor(counts, dtype=torch.float32),
        advantages=trained("advantages"),
        rollout_logprobs=trained("rollout_logprobs"),
        old_logprobs=given("old_logprobs"),
        ref_logprobs=given("ref_logprobs"),
        support=_support(rows),
        rows=len(rows),
    )


def _support(rows: Sequence[Row]) -> PackedSupport | None:
    """The rows' supports, one after the other; all rows of a step have one of a kind, or none."""
    supports = [row.support for row in rows if row.support is not None]
    if not supports:
        return None
    assert [len(support.sets or support.counts) for support in supports] == [row.trained for row in rows]
    counts = torch.tensor([count for support in supports for count in support.counts], dtype=torch.long)
    ids = torch.tensor(np.concatenate([np.frombuffer(support.ids, dtype=np.int32) for support in supports]))
    if not any(support.sets for support in supports):
        return PackedSupport(counts, ids)
    places: dict[bytes, int] = {}
    which = [places.setdefault(own, len(places)) for support in supports for own in support.sets]
    sets = torch.stack([torch.frombuffer(bytearray(decompress(own)), dtype=torch.uint8) for own in places])
    return PackedSupport(counts, ids, sets, torch.tensor(which))


def _write_tree(writer: _Writer, atom: Sequence[Row]) -> None:
    """Write a shared prefix and its branches; equal branches are computed once."""
    shared = atom[0].shared
    start = writer.write(atom[0].tokens[:shared], Span(0, 0))
    branches: dict[tuple[int, ...], int] = {}
    for row in atom:
        assert row.tokens[:shared] == atom[0].tokens[:shared] and not row.mask[0]
        branch = row.tokens[shared:]
        if branch not in branches:
            branches[branch] = writer.write(branch, Span(0, 0, start, shared))
        first = branches[branch]
        writer.rows.append(row)
        for index, is_trained in enumerate(row.mask):
            if is_trained:  # token `index` is predicted by the one before it, which may be the prefix's last
                before = index - 1
                writer.source.append(start + before if before < shared else first + before - shared)
