"""Rows in two parts, train and test, such that no test row is one that training has seen, or nearly.

Rows stay together when they share a prompt (as `overlap` compares prompts), when `group_by` is equal, or when
their longest prompts are near-duplicates: the sets of their three-word sequences overlap by a Jaccard
index of at least 0.8. Such pairs are found by MinHash (Broder 1997) in 20 bands of 6: a pair at 0.8 is
missed once in 500 times, a closer one more rarely. It takes about 1 kB of memory a row.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import compress
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from sharpen.config.data import Split
from sharpen.data import overlap
from sharpen.data.read import Record, Where
from sharpen.errors import DataError
from sharpen.types import Message

SIMILAR = 0.8
"""From this Jaccard index on, two prompts are near-duplicates."""

WORDS, BANDS, BAND_SIZE = 3, 20, 6
CANDIDATES = 32
"""A row is compared with so many unlike rows of a bucket at most."""

Numbered = Iterator[tuple[Where, Record]]
Prompts = Callable[[Record, Where], tuple[tuple[Message, ...], ...]]


def part(read: Callable[[], Numbered], split: Split, prompts: Prompts) -> Numbered:
    """The rows of the part asked for, in their order; `read` is called twice. Raises DataError.

    Which part a row is in depends on the rows and the seed, not on the order of the rows.
    """
    sides = _sides(_group(read(), split, prompts), split)
    wanted = sides if split.part == "test" else ~sides
    yield from compress(read(), wanted)


@dataclass
class _Groups:
    """Which rows belong together: a forest over the rows, each with a hash that does not depend on its place."""

    parent: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)

    def add(self, digest: bytes) -> int:
        self.parent.append(len(self.parent))
        self.hashes.append(digest)
        return len(self.parent) - 1

    def root(self, row: int) -> int:
        while self.parent[row] != row:
            self.parent[row] = self.parent[self.parent[row]]
            row = self.parent[row]
        return row

    def join(self, one: int, other: int) -> None:
        one, other = self.root(one), self.root(other)
        self.parent[max(one, other)] = min(one, other)


def _group(rows: Numbered, split: Split, prompts: Prompts) -> _Groups:
    groups = _Groups()
    first: dict[bytes, int] = {}
    shingles: list[NDArray[np.uint32]] = []
    for where, record in rows:
        asked = prompts(record, where)
        keys = sorted(overlap.key(_words_only(prompt)) for prompt in asked)
        row = groups.add(keys[0])
        shared = [*keys, _group_key(record, split.group_by, where)] if split.group_by else keys
        for key in shared:
            groups.join(row, first.setdefault(key, row))
        shingles.append(_shingles(" ".join(turn["content"] for turn in _words_only(asked[-1]))))
    _join_similar(groups, shingles)
    return groups


def _words_only(messages: Iterable[Message]) -> list[Message]:
    """Messages whose content in parts is reduced to its text; images are not compared."""
    return [
        turn
        if isinstance(turn["content"], str)
        else {**turn, "content": " ".join(str(part.get("text", "")) for part in turn["content"])}
        for turn in messages
        if turn["role"] != "system"
    ]


def _group_key(record: Record, path: str, where: Where) -> bytes:
    value: Any = record
    for name in path.split("."):
        if not isinstance(value, dict) or name not in value:
            raise where.error(
                f"the row has no {path!r}, by which the split groups", field=path, remedy="Correct split.group_by"
            )
        value = value[name]
    return blake2b(repr(value).encode(), digest_size=16, person=b"group").digest()


def _shingles(text: str) -> NDArray[np.uint32]:
    """Hashes of the three-word sequences of the normalised text, each once; a shorter text is one sequence."""
    words = overlap.normalise(text).split()
    found = {crc32(" ".join(words[at : at + WORDS]).encode()) for at in range(max(1, len(words) - WORDS + 1))}
    return np.fromiter(sorted(found), np.uint32, len(found))


def _join_similar(groups: _Groups, shingles: list[NDArray[np.uint32]]) -> None:
    draw = np.random.Generator(np.random.Philox(key=0))  # any fixed hash functions do
    factors = draw.integers(0, 2**64, (3, BANDS * BAND_SIZE), dtype=np.uint64) | np.uint64(1)
    bands = np.empty((len(shingles), BANDS), np.uint64)
    for row, own in enumerate(shingles):
        hashed = (own.astype(np.uint64)[:, None] * factors[0] + factors[1]) >> np.uint64(32)  # multiply-shift
        signature = hashed.min(axis=0) * factors[2]  # (BANDS * BAND_SIZE,)
        bands[row] = signature.reshape(BANDS, BAND_SIZE).sum(axis=1)
    for band in bands.T:
        for bucket in _buckets(band):
            _join_bucket(groups, shingles, bucket)


def _buckets(band: NDArray[np.uint64]) -> Iterator[list[int]]:
    """The rows that share a value, where there are several, in their order."""
    order = np.argsort(band, kind="stable")
    starts = np.flatnonzero(np.diff(band[order], prepend=~band[order[:1]])) if len(order) else order
    for bucket in np.split(order, starts[1:]):
        if len(bucket) > 1:
            yield bucket.tolist()


def _join_bucket(groups: _Groups, shingles: list[NDArray[np.uint32]], bucket: list[int]) -> None:
    unlike: list[int] = []
    for row in bucket:
        for other in unlike:
            if groups.root(row) == groups.root(other):
                break
            if _jaccard(shingles[row], shingles[other]) >= SIMILAR:
                groups.join(row, other)
                break
        else:
            if len(unlike) < CANDIDATES:
                unlike.append(row)


def _jaccard(one: NDArray[np.uint32], other: NDArray[np.uint32]) -> float:
    both = len(np.intersect1d(one, other, assume_unique=True))
    return both / (len(one) + len(other) - both)


def _sides(groups: _Groups, split: Split) -> NDArray[np.bool_]:
    """True for each row of the test side: whole groups in random order, as far as they fit into its share."""
    members: dict[int, list[int]] = defaultdict(list)
    for row in range(len(groups.parent)):
        members[groups.root(row)].append(row)
    salt = str(split.seed).encode()
    order = sorted(members.values(), key=lambda rows: blake2b(salt + min(groups.hashes[row] for row in rows)).digest())
    sides = np.zeros(len(groups.parent), np.bool_)
    room = max(1, round(split.test * len(sides)))
    for rows in order:
        if len(rows) <= room:
            sides[rows] = True
            room -= len(rows)
    if len(sides) and (sides.all() or not sides.any()):
        raise DataError(
            f"the split leaves one side without rows: {len(sides)} rows are {len(order)} groups that must stay whole",
            field="split",
            value=split.test,
            remedy="Give more varied rows, another share, or another group_by",
        )
    return sides
