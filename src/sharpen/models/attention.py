"""One attention function of ours inside unmodified transformers models.

transformers lets a registered function replace attention in any architecture that has its attention
interface. Ours asks the *layout in force* what each token may see: packed spans (training, prompts) or
a key-value cache (decoding). So neither packing nor caching touches a model's code, and both use
the model's own rotary embeddings through `position_ids`.

Shapes: H query heads, K key-value heads, D head size, T tokens side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
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
        """Attention of one layer: query (T, H, D), key and value (T, K, D) -> (T, H, D).

        `sinks` (H,) are logits that take part in each head's softmax and bring no value.
        """
        ...


_layout: ContextVar[Layout] = ContextVar("layout")


def in_force() -> Layout:
    """The layout of the forward pass under way."""
    return _layout.get()


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
    """transformers' attention interface, called with all tokens in one row: returns (1, T, H, D) and no weights.

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
    q, k, v = (part[0].transpose(0, 1) for part in (query, key, value))
    return in_force().attend(layer, q, k, v, scale, sliding_window, s_aux)[None], None


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


WIDTH = 32
"""Spans whose lengths differ by less are padded to one another's."""


class Packed:
    """Spans side by side in one row of T tokens; nothing else crosses a span's edge.

    Spans of like length are padded into one attention call. Attention computes in float32: on CPUs its
    backward pass is faster so than in bfloat16, and sampler and trainer come closer.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        self.spans = spans
        buckets: dict[tuple[bool, int], list[Span]] = {}
        for span in spans:
            size = (span.prefix + span.length - 1) // WIDTH
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
        q, k, v = (part.float() for part in (query, key, value))
        outputs = torch.cat([call.attend(q, k, v, scale, window, sinks) for call in self.calls])
        return outputs.index_select(0, self.order).to(query.dtype)


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
