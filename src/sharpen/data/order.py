"""In which order rows are seen: a stream of shuffled epochs, computed from its position alone."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

Key = tuple[int | str, ...]
"""What random numbers are counted on, such as (seed, stage, step, example, sample)."""


def generator(key: Key) -> np.random.Generator:
    """Philox, started from a hash of the key: the same numbers for the same key, in any order of asking."""
    digest = blake2b(repr(key).encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))


def indices(rows: int, start: int, stop: int, key: Key) -> list[int]:
    """Rows at positions `start:stop` of the endless stream of epochs; each epoch is shuffled anew."""
    found: list[int] = []
    for epoch in range(start // rows, (stop - 1) // rows + 1 if stop > start else 0):
        order = generator((*key, epoch)).permutation(rows)
        first = max(start - epoch * rows, 0)
        found += order[first : min(stop - epoch * rows, rows)].tolist()
    return found
