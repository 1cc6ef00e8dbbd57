"""A decoding step of a known decoder whose products are laid out: compiled loops between them (`models.kernels`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from sharpen.models import kernels
from sharpen.models.cache import Step
from sharpen.models.joined import Laid
from sharpen.models.passes import normed, rotated, swish, window_of


class _Layer(NamedTuple):
    first_norm: Tensor
    first_epsilon: Tensor
    attention: Laid
    out: Laid
    second_norm: Tensor
    second_epsilon: Tensor
    gate: Laid
    down: Laid
    scale: Tensor
    window: int | None


class Quick:
    """The layers' weights as the loops take them. D is the head size."""

    def __init__(self, base: Any, layers: list[_Layer], size: int) -> None:
        self.base = base
        self.layers = layers
        self.size = size

    def hidden(self, tokens: Tensor, positions: Tensor, step: Step) -> Tensor:
        """As `Decoder.hidden`, for a step's tokens."""
        base = self.base
        stream = base.embed_tokens(tokens)
        half = self.size // 2
        cos, sin = (part[0, :, :half].float().contiguous() for part in base.rotary_emb(stream, positions[None]))
        added: Tensor | None = None
        for index, layer in enumerate(self.layers):
            read = kernels.add_norm(stream, added, layer.first_norm, layer.first_epsilon)
            output = self._attend(index, layer, layer.attention.of(read), cos, sin, step)
            added = layer.out.of(output)
            read = kernels.add_norm(stream, added, layer.second_norm, layer.second_epsilon)
            added = layer.down.of(kernels.gate(layer.gate.of(read)))
        assert added is not None
        return normed(stream.add_(added), base.norm.weight, base.norm.variance_epsilon, stream.dtype)[0]

    def _attend(self, index: int, layer: _Layer, made: Tensor, cos: Tensor, sin: Tensor, step: Step) -> Tensor:
        """Attention (T, H·D) of a layer: prompts that begin by torch, each row's newest token by the loop."""
        count, size = len(made) - step.rows, self.size
        shared = self.base.config.num_key_value_heads
        heads = made.shape[1] // size - 2 * shared
        begun: list[Tensor] = []
        if count:
            split = made[:count].unflatten(-1, (-1, size))
            turned = rotated(split[:, : heads + shared].float(), cos[:count, None], sin[:count, None])
            query, key, value = turned[:, :heads], turned[:, heads:], split[:, heads + shared :]
            begun.append(
                step.begin(index, query, key, value, float(layer.scale), layer.window).flatten(1).to(made.dtype)
            )
        keys, values = step.cache.buffers(index, made.new_empty(0, shared, size))
        newest = kernels.attend(
            made[count:], cos[count:], sin[count:], keys, values, step.places, layer.scale, layer.window
        )
        return torch.cat([*begun, newest]) if begun else newest


def quick(base: Any, packed: Mapping[nn.Module, Laid]) -> Quick | None:
    """The decoder for the compiled loops, where they can run and its layers are of the plain kind."""
    attention = base.layers[0].self_attn
    group = attention.config.num_attention_heads // attention.config.num_key_value_heads
    layers = list(_layers(base, packed))
    if len(layers) < len(base.layers) or attention.head_dim % 2 or not kernels.ready(group, attention.head_dim):
        return None
    return Quick(base, layers, attention.head_dim)


def _layers(base: Any, packed: Mapping[nn.Module, Laid]) -> Iterator[_Layer]:
    """Those whose every product is laid out."""
    for layer in base.layers:
        attention, mlp = layer.self_attn, layer.mlp
        read = (attention.q_proj, attention.o_proj, getattr(mlp, "gate_proj", None), getattr(mlp, "down_proj", None))
        plain = not hasattr(attention, "q_norm") and all(part in packed for part in read)
        if not plain or not swish(mlp.act_fn):
            return
        first, second = layer.input_layernorm, layer.post_attention_layernorm
        yield _Layer(
            first.weight.detach().float(),
            torch.tensor([first.variance_epsilon]),
            packed[attention.q_proj],
            packed[attention.o_proj],
            second.weight.detach().float(),
            torch.tensor([second.variance_epsilon]),
            packed[mlp.gate_proj],
            packed[mlp.down_proj],
            torch.tensor([attention.scaling]),
            window_of(attention),
        )
