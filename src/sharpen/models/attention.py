"""One attention function of ours inside unmodified transformers models.

transformers lets a registered function replace attention in any architecture that has its attention
interface. Ours asks the *layout in force* what each token may see: packed spans (training, prompts) or
a key-value cache (decoding). So neither packing nor caching touches a model's code, and both use
the model's own rotary embeddings through `position_ids`.

Shapes: H query heads, K key-value heads, D head size, T packed tokens, R rows, C cache columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from sharpen.errors import ModelError

NAME = "sharpen"
_UNSUPPORTED = ("softcap", "position_bias", "attn_bias")


class Layout(Protocol):
    """Who may attend to whom."""

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
        """Attention of one layer: query (B, H, T, D), key and value (B, K, T, D) -> (B, H, T, D).

        `sinks` (H,) are logits that take part in each head's softmax and bring no value.
        """
        ...


_layout: ContextVar[Layout] = ContextVar("layout")


@contextmanager
def layout(of: Layout) -> Iterator[None]:
    """Forward passes inside this block use this layout."""
    token = _layout.set(of)
    try:
        yield
    finally:
        _layout.reset(token)


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    **extras: Any,
) -> tuple[Tensor, None]:
    """transformers' attention interface: returns (B, T, H, D) and no weights.

    Raises ModelError for attention variants that are not built (soft caps, biases).
    """
    for name in _UNSUPPORTED:
        if extras.get(name) is not None:
            raise ModelError(
                "this architecture's attention is not supported yet",
                value=name,
                remedy="Use a Llama-, Qwen- or Mistral-like model",
            )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    output = _layout.get().attend(layer, query, key, value, scale, sliding_window, s_aux)
    return output.transpose(1, 2), None


def register() -> str:
    """Make the function known to transformers; returns the `attn_implementation` to load with."""
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attention)
    return NAME


class Span(NamedTuple):
    """Tokens `start : start + length` of a packed row, which see one another and a prefix before them.

    The prefix (`prefix` tokens from `prefix_start`) may be shared by many spans: the branches of a tree.
    """

    start: int
    length: int
    prefix_start: int = 0
    prefix: int = 0


class Packed:
    """Spans side by side in one row of T tokens; nothing else crosses a span's edge.

    Spans of like length are padded into one attention call. Attention computes in float32: on CPUs its
    backward pass is faster so than in bfloat16, and sampler and trainer come closer.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        buckets: dict[tuple[bool, int], list[Span]] = {}
        for span in spans:
            size = (span.prefix + span.length - 1).bit_length()
            buckets.setdefault((span.prefix > 0, size), []).append(span)
        self.calls = [_Call(bucket) for bucket in buckets.values()]
        places = torch.cat([call.places for call in self.calls])  # which token each padded output is, or -1
        order = torch.empty(int((places >= 0).sum()), dtype=torch.long)
        order[places[places >= 0]] = (places >= 0).nonzero()[:, 0]
        self.order = order  # (T,) where each token stands among the padded outputs

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
        q, k, v = (part[0].transpose(0, 1).float() for part in (query, key, value))  # each (T, heads, D)
        outputs = torch.cat([call.attend(q, k, v, scale, window, sinks) for call in self.calls])
        return outputs.index_select(0, self.order).to(query.dtype).transpose(0, 1)[None]


class _Call:
    """B spans as one padded attention call of L queries over S = P + L keys, prefixes right-aligned at P."""

    def __init__(self, spans: Sequence[Span]) -> None:
        starts, lengths, prefix_starts, prefixes = (torch.tensor(part)[:, None] for part in zip(*spans, strict=True))
        own = torch.arange(int(lengths.max()))[None]  # (1, L)
        before = torch.arange(int(prefixes.max()))[None] - prefixes.max() + prefixes  # (B, P), negative: padding
        self.shape = (len(spans), own.shape[1])
        self.places = torch.where(own < lengths, starts + own, -1).flatten()
        self.queries = torch.where(own < lengths, starts + own, 0).flatten()
        self.keys = torch.cat(
            [
                torch.where(before >= 0, prefix_starts + before, 0).flatten().view(len(spans), -1),
                self.queries.view(self.shape),
            ],
            1,
        ).flatten()
        self.query_positions = prefixes + own  # (B, L)
        self.key_positions = torch.cat([before, self.query_positions], 1)  # (B, S)
        self.masks: dict[tuple[int | None, bool], Tensor | None] = {}

    def mask(self, window: int | None, sink: bool) -> Tensor | None:
        """(B, 1, L, S) true where a query sees a key; None where plain causal attention says the same.

        With a sink there is one key more, the last, which all see.
        """
        if (window, sink) not in self.masks:
            distance = self.query_positions[:, :, None] - self.key_positions[:, None, :]
            visible = (distance >= 0) & (self.key_positions >= 0)[:, None, :]
            if window is not None:
                visible &= distance < window
            plain = self.key_positions.shape == self.query_positions.shape and (
                window is None or self.shape[1] <= window
            )
            visible = F.pad(visible, (0, int(sink)), value=True)
            self.masks[window, sink] = None if plain and not sink else visible[:, None]
        return self.masks[window, sink]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, sinks: Tensor | None
    ) -> Tensor:
        """Flat query (T, H, D), key and value (T, K, D) -> padded outputs (B·L, H, D)."""
        q, k, v = (
            part.index_select(0, index).unflatten(0, (self.shape[0], -1)).transpose(1, 2)
            for part, index in ((query, self.queries), (key, self.keys), (value, self.keys))
        )
        if sinks is not None:
            q, k, v = _with_sinks(q, k, v, sinks.float() / scale)
        mask = self.mask(window, sinks is not None)
        output = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale, enable_gqa=query.shape[1] != key.shape[1]
        )
        return output[..., : value.shape[-1]].transpose(1, 2).flatten(0, 1)


def _with_sinks(query: Tensor, key: Tensor, value: Tensor, sinks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """One key and one dimension more: there each query (B, H, L, D) holds its head's sink, and only the new key a 1.

    So the product of the two is the sink, other products stay what they are, and no mask is as large as H·L·S.
    """
    held = sinks[None, :, None, None].expand(*query.shape[:3], 1)
    key = F.pad(key, (0, 1, 0, 1))
    key[..., -1, -1] = 1
    return torch.cat([query, held], -1), key, F.pad(value, (0, 1, 0, 1))


class Cache:
    """Keys and values of R rows that share one clock.

    All rows write the same column at a step, so a write is a slice; a row that began later (a shorter
    prompt) simply starts at a later column: row r holds `first[r]:column`.
    """

    def __init__(self, layers: int, first: Tensor, column: int, columns: int) -> None:
        self.first = first  # (R,)
        self.column = column
        self.columns = columns
        self.keys: list[Tensor | None] = [None] * layers  # each (R, K, C, D)
        self.values: list[Tensor | None] = [None] * layers
        self._mask: dict[int | None, Tensor] = {}

    def room(self, layer: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """This layer's float32 buffers, made on first use after the shape of `like` (·, K, ·, D)."""
        keys, values = self.keys[layer], self.values[layer]
        if keys is None or values is None:
            shape = (len(self.first), like.shape[1], self.columns, like.shape[3])
            keys, values = (torch.zeros(shape, dtype=torch.float32, device=like.device) for _ in range(2))
            self.keys[layer], self.values[layer] = keys, values
        return keys, values

    def advance(self) -> None:
        """One more column has been written."""
        self.column += 1
        self._mask.clear()

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but these."""
        self.first = self.first[rows]
        self.keys = [keys[rows] if keys is not None else None for keys in self.keys]
        self.values = [values[rows] if values is not None else None for values in self.values]
        self._mask.clear()

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
        """One new token a row: write its key and value, attend over what the row holds."""
        keys, values = self.room(layer, key)
        rows, heads, _, size = query.shape
        end = self.column + 1
        keys[:, :, self.column] = key[:, :, 0]
        values[:, :, self.column] = value[:, :, 0]
        # The query heads of one key-value head form one short sequence: no key is repeated.
        grouped = query.reshape(rows, keys.shape[1], heads // keys.shape[1], size).float()
        visible = self._visible(end, window)
        if sinks is None:
            output = F.scaled_dot_product_attention(
                grouped, keys[:, :, :end], values[:, :, :end], attn_mask=visible, scale=scale
            )
        else:  # written out: an additional key would copy all keys
            scores = grouped @ keys[:, :, :end].mT * scale + visible
            held = sinks.float().view(1, keys.shape[1], -1, 1).expand(*scores.shape[:3], 1)
            output = torch.cat([scores, held], -1).softmax(-1)[..., :-1] @ values[:, :, :end]
        return output.reshape(rows, heads, 1, size).to(query.dtype)

    def _visible(self, end: int, window: int | None) -> Tensor:
        if window not in self._mask:
            columns = torch.arange(end, device=self.first.device)
            visible = columns[None, :] >= self.first[:, None]
            if window is not None:
                visible &= columns[None, :] > self.column - window
            mask = torch.zeros(visible.shape, device=visible.device).masked_fill_(~visible, -torch.inf)
            self._mask[window] = mask[:, None, None, :]  # (R, 1, 1, columns), added: made once for all layers
        return self._mask[window]


@dataclass
class Prefill:
    """Prompts packed as spans; their keys and values are copied to the cache rows that continue them."""

    packed: Packed
    cache: Cache
    rows: Sequence[tuple[int, int]]  # of each span: the cache rows first:last

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
        keys, values = self.cache.room(layer, key)
        end = self.cache.column
        for span, (first, last) in zip(self.packed.spans, self.rows, strict=True):
            tokens = slice(span.start, span.start + span.length)
            keys[first:last, :, end - span.length : end] = key[:, :, tokens]
            values[first:last, :, end - span.length : end] = value[:, :, tokens]
        return self.packed.attend(layer, query, key, value, scale, window, sinks)
