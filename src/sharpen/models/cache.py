"""Keys and values of rows that come and go, and the layout of one decoding step over them.

Shapes: S slots, N rows in use (always the first N slots), C columns, T tokens side by side; heads as in `attention`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from mmap import mmap

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.models.attention import Packed, Span

_FIRST = 256
"""Columns at first; they are doubled when a row needs more, so that a generous limit costs nothing until it is used."""


class Cache:
    """One buffer a layer for keys and one for values, (S, K, C, D) in float32; slot s holds `lengths[s]` tokens."""

    def __init__(self, layers: int, slots: int, most: int) -> None:
        """No row will have more than `most` tokens."""
        self.lengths = torch.zeros(slots, dtype=torch.long)
        self.most = most
        self.columns = 0
        self.rows = slots
        """The first so many slots hold something that a larger buffer must hold too."""
        self._buffers: list[tuple[Tensor, Tensor] | None] = [None] * layers

    def room(self, columns: int) -> None:
        """From now on rows may have so many tokens."""
        if columns > self.columns:
            self.columns = min(self.most, max(columns, 2 * self.columns, _FIRST))

    def buffers(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """This layer's keys and values, made or grown after the shape of `like` (·, K, D)."""
        held = self._buffers[layer]
        if held is None or held[0].shape[2] < self.columns:
            shape = (len(self.lengths), like.shape[1], self.columns, like.shape[2])
            made = _zeros(shape), _zeros(shape)
            if held is not None:
                for old, new in zip(held, made, strict=True):
                    new[: self.rows, :, : old.shape[2]] = old[: self.rows]
            self._buffers[layer] = held = made
        return held

    def move(self, source: int, target: int) -> None:
        """Give a slot another's row."""
        length = int(self.lengths[source])
        self.lengths[target] = length
        for held in self._buffers:
            if held is not None:
                for part in held:
                    part[target, :, :length] = part[source, :, :length]


def _zeros(shape: tuple[int, ...]) -> Tensor:
    """float32 in pages of its own: they cost nothing before they are used, and are given back at once afterwards.

    The allocator's would be cleared as a whole, and would stay with the process.
    """
    if math.prod(shape) == 0:
        return torch.zeros(shape)
    return torch.frombuffer(mmap(-1, 4 * math.prod(shape)), dtype=torch.float32).view(shape)


class Step:
    """The layout of a step: first prompts that begin, as packed spans, then the newest token of each of N rows.

    A prompt's keys and values are written to every slot that continues it, before any row looks.
    """

    def __init__(self, cache: Cache, rows: int, prompts: Sequence[tuple[Span, Sequence[int]]] = ()) -> None:
        """`prompts` are spans and the slots that continue them; a slot's length is then the span's.

        The rows' own tokens are written behind what their slots hold; afterwards `done` counts them.
        """
        self.cache = cache
        self.rows = rows
        self.packed = Packed([span for span, _ in prompts]) if prompts else None
        self.prompts = [(span, torch.tensor(slots)) for span, slots in prompts]
        for span, slots in self.prompts:
            cache.lengths[slots] = span.length
        self.places = cache.lengths[:rows].clone()
        self.longest = int(self.places.max()) + 1
        cache.rows = rows
        self.row = torch.arange(rows)
        self.masks: dict[int | None, Tensor] = {}
        cache.room(self.longest)

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        first = len(query) - self.rows
        parts: list[Tensor] = []
        if self.packed:
            parts.append(self.begin(layer, query[:first], key[:first], value[:first], scale, window, sinks))
        keys, values = self.cache.buffers(layer, key)
        keys[self.row, :, self.places] = key[first:].float()
        values[self.row, :, self.places] = value[first:].float()
        # The query heads of one key-value head form one short sequence: no key is repeated.
        grouped = query[first:].float().unflatten(1, (key.shape[1], -1))
        held, seen = (part[: self.rows, :, : self.longest] for part in (keys, values))
        visible = self._visible(window)
        if sinks is None:
            output = F.scaled_dot_product_attention(grouped, held, seen, attn_mask=visible, scale=scale)
        else:  # written out: an additional key would copy all keys
            scores = grouped @ held.mT * scale + visible
            sink = sinks.float().view(1, scores.shape[1], -1, 1).expand(*scores.shape[:3], 1)
            output = torch.cat([scores, sink], -1).softmax(-1)[..., :-1] @ seen
        parts.append(output.flatten(1, 2).to(query.dtype))
        return torch.cat(parts)

    def begin(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
        sinks: Tensor | None = None,
    ) -> Tensor:
        """The same for the prompts that begin alone: write their keys and values, attend among them."""
        assert self.packed
        keys, values = self.cache.buffers(layer, key)
        for span, slots in self.prompts:
            tokens = slice(span.start, span.start + span.length)
            keys[slots, :, : span.length] = key[tokens].transpose(0, 1).float()
            values[slots, :, : span.length] = value[tokens].transpose(0, 1).float()
        return self.packed.attend(layer, query, key, value, scale, window, sinks)

    def done(self) -> None:
        """The rows' tokens have been written by every layer."""
        self.cache.lengths[: self.rows] += 1

    def _visible(self, window: int | None) -> Tensor:
        """(N, 1, 1, columns), added: 0 where a row sees a column, −∞ elsewhere; made once for all layers."""
        if window not in self.masks:
            columns = torch.arange(self.longest)
            hidden = columns[None, :] > self.places[:, None]
            if window is not None:
                hidden |= columns[None, :] <= self.places[:, None] - window
            mask = torch.zeros(hidden.shape).masked_fill_(hidden, -torch.inf)
            self.masks[window] = mask[:, None, None, :]
        return self.masks[window]
