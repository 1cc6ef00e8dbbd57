"""Rows of several sources, drawn in proportion: which row stands where follows from its position alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, pairwise

from sharpen.data.order import Key, indices

HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Stream:
    """So many rows, seen in shuffled passes of their own; `name` is their place in the stage, such as `data.0`."""

    name: str
    rows: int
    weight: float = 1.0


@dataclass(frozen=True, slots=True)
class Mix:
    """The streams of a stage, whose rows lie one after the other: its own, then those that are replayed.

    Own rows are drawn in proportion to their weights, and so are replayed ones, which are `share` of all.
    """

    own: tuple[Stream, ...]
    replay: tuple[Stream, ...] = ()
    share: float = 0.0

    @property
    def streams(self) -> tuple[Stream, ...]:
        """All of them, in the order of their rows."""
        return self.own + self.replay

    @property
    def own_rows(self) -> int:
        """How many rows the stage's own streams have together: an epoch draws so many of them."""
        return sum(stream.rows for stream in self.own)

    def length(self, epochs: float) -> int:
        """How many positions so many epochs over the stage's own rows have, those of replayed rows among them."""
        return _nearest(max(1, round(epochs * self.own_rows)) / self._own_share)

    def rows(self, start: int, stop: int, key: Key) -> list[int]:
        """The rows at positions `start:stop`, always the same for the same `key`."""
        if len(self.streams) == 1:
            return indices(self.own_rows, start, stop, key)
        drawn = [self._drawn(position) for position in range(start, stop + 1)]
        ends = zip(self.streams, drawn[0], drawn[-1], strict=True)
        passes = [iter(indices(own.rows, first, last, self._key(own, key))) for own, first, last in ends]
        firsts = list(accumulate((stream.rows for stream in self.streams), initial=0))
        found = []
        for before, after in pairwise(drawn):
            place = next(place for place, count in enumerate(after) if count > before[place])
            found.append(firsts[place] + next(passes[place]))
        return found

    def counts(self, start: int, stop: int) -> dict[str, int]:
        """How many of positions `start:stop` are each stream's, by its name; empty where there is but one stream."""
        if len(self.streams) == 1:
            return {}
        pairs = zip(self.streams, self._drawn(start), self._drawn(stop), strict=True)
        return {stream.name: after - before for stream, before, after in pairs}

    def _key(self, stream: Stream, key: Key) -> Key:
        """Own rows without weights come in the order that they have without replayed ones between them."""
        return key if (stream,) == self.own else (*key, stream.name)

    @property
    def _own_share(self) -> Fraction:
        return 1 - _exact(self.share)

    def _drawn(self, count: int) -> list[int]:
        """How many of the first `count` positions are each stream's."""
        own = _nearest(count * self._own_share)
        return [
            *shared_out(own, [stream.weight for stream in self.own]),
            *shared_out(count - own, [stream.weight for stream in self.replay]),
        ]


def shared_out(count: int, weights: Sequence[float]) -> list[int]:
    """`count` in whole numbers in proportion to the weights; with one more, exactly one number grows, by one.

    One after the other, the heaviest first, takes its share of what is left, to the nearest whole number. So none of k
    numbers is further than (1 + 1 + 1/2 + 1/3 + … + 1/(k - 2)) / 2 from its exact proportion: half of one where there
    are two, one where there are three, 1.5 where there are five.
    """
    found = [0] * len(weights)
    left, whole = count, sum(map(_exact, weights))
    for place in sorted(range(len(weights)), key=lambda place: -weights[place]):
        weight = _exact(weights[place])
        found[place] = _nearest(left * weight / whole)
        left, whole = left - found[place], whole - weight
    return found


@lru_cache
def _exact(value: float) -> Fraction:
    """0.1 as a tenth, not as the binary number next to it."""
    return Fraction(repr(value))


def _nearest(value: Fraction) -> int:
    return math.floor(value + HALF)
