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
from sharpen.models.passes import rotated

NAME = "sharpen"
_UNSUPPORTED = ("softcap", "position_bias", "attn_bias")


Angles = tuple[Tensor, Tensor]
"""Cosines and sines of tokens' rotary embedding, (T, 1, D/2) each."""


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
        if sinks is None and query.shape[-1] == value.shape[-1]:
            return self.attend_turned(query, key, value, None, scale, window)
        q, k, v = (part.float() for part in (query, key, value))
        outputs = torch.cat([call.attend(q, k, v, scale, window, sinks) for call in self.calls])
        return outputs.index_select(0, self.order).to(query.dtype)

    def attend_turned(
        self, query: Tensor, key: Tensor, value: Tensor, angles: Angles | None, scale: float, window: int | None
    ) -> Tensor:
        """The same, of queries and keys whose rotary embedding is still to come.

        For the backward pass it holds what it is given and returns, and a number a token and head.
        """
        output: Tensor = _Attention.apply(query, key, value, angles, self, scale, window)  # type: ignore[no-untyped-call]
        return output


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        query, key, value, angles, packed, scale, window = given
        q, k, v = _wide(query, key, value, angles)
        outputs, normalizers = [], []
        for call in packed.calls:
            padded, normalizer = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                *call.lay_out(q, k, v), 0.0, **call.seen(window), scale=scale
            )
            outputs.append(padded.transpose(1, 2).flatten(0, 1))
            normalizers.append(normalizer)
        output = torch.cat(outputs).index_select(0, packed.order).to(query.dtype)
        ctx.save_for_backward(query, key, value, output, *normalizers)
        ctx.given = angles, packed, scale, window
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, output, *normalizers = ctx.saved_tensors
        angles, packed, scale, window = ctx.given
        q, k, v = _wide(query, key, value, angles)
        d_queries, d_key, d_value = [], torch.zeros_like(k), torch.zeros_like(v)
        for call, normalizer in zip(packed.calls, normalizers, strict=True):
            of_output, padded = (call.by_query(part).float() for part in (gradients[0], output))
            of_output.transpose(1, 2).flatten(0, 1)[call.places < 0] = 0
            parts = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
                of_output, *call.lay_out(q, k, v), padded, normalizer, 0.0, **call.seen(window), scale=scale
            )
            of_query, of_key, of_value = (part.transpose(1, 2).flatten(0, 1) for part in parts)
            d_queries.append(of_query)
            d_key.index_add_(0, call.keys, of_key)  # branches add up in the prefix they share
            d_value.index_add_(0, call.keys, of_value)
        d_query = torch.cat(d_queries).index_select(0, packed.order)
        if angles:
            d_query, d_key = (rotated(part, angles[0], -angles[1]) for part in (d_query, d_key))
        return d_query.to(query.dtype), d_key.to(key.dtype), d_value.to(value.dtype), None, None, None, None


def _wide(query: Tensor, key: Tensor, value: Tensor, angles: Angles | None) -> tuple[Tensor, Tensor, Tensor]:
    """In float32, queries and keys turned by the angles."""
    q, k, v = (part.float() for part in (query, key, value))
    return (rotated(q, *angles), rotated(k, *angles), v) if angles else (q, k, v)


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
        self.added: dict[int | None, Tensor] = {}

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

    def seen(self, window: int | None) -> dict[str, Any]:
        """What the fused attention wants to know of it."""
        mask = self.mask(window, False)
        if mask is None:
            return {"is_causal": True}
        if window not in self.added:
            self.added[window] = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        return {"is_causal": False, "attn_mask": self.added[window]}

    def by_query(self, part: Tensor) -> Tensor:
        """Flat (T, H, D) -> (B, H, L, D)."""
        found: Tensor = part.index_select(0, self.queries).unflatten(0, self.shape)
        return found.transpose(1, 2)

    def lay_out(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Flat query (T, H, D), key and value (T, K, D) -> (B, H, L, D) and twice (B, K, S, D)."""
        k, v = (
            part.index_select(0, self.keys).unflatten(0, (self.shape[0], -1)).transpose(1, 2) for part in (key, value)
        )
        return self.by_query(query), k, v

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None, sinks: Tensor | None
    ) -> Tensor:
        """Flat query (T, H, D), key and value (T, K, D) -> padded outputs (B·L, H, D)."""
        q, k, v = self.lay_out(query, key, value)
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
