"""Decoders of the Llama kind, computed in few passes over memory.

transformers' own layers widen, square, average, cut and join their tensors in some forty small passes. Here a layer is
four products and what must stand between them; weights, names and attention layouts are the model's own. Which models
are known is a matter of structure, and `models.proof` shows that a known one computes what its own code does.

Shapes: T tokens, W width, H query heads, K key-value heads, D head size, I inner width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from sharpen.models.adapters import low_rank, low_rank_factors, plain_adapter
from sharpen.models.attention import Packed, in_force
from sharpen.models.cache import Step
from sharpen.models.head import products_in_bfloat16
from sharpen.models.joined import Laid, join, joined_bias, lay_out, linear, together
from sharpen.models.passes import gated, norm, rotated, window_of
from sharpen.models.quantized import Quantized, product

_LAYERS = ("LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer", "Qwen3MoeDecoderLayer")

HELD_BYTES = 3 * 2**30
"""What layers may hold for the backward pass; beyond, each holds its input only and is computed again."""

_ATTRIBUTE = "sharpen_decoder"


@dataclass
class Decoder:
    """A transformers decoder's layers, and the products that are laid out for reading only."""

    base: Any
    packed: dict[nn.Module, Laid] = field(default_factory=dict)
    quick: Any = None
    """While the products are laid out: the compiled loops between them, where there are some."""

    def hidden(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """The last layer's normalized output (T, W) for tokens and positions (T,), under the layout in force."""
        base, layout = self.base, in_force()
        if self.quick and isinstance(layout, Step):
            found: Tensor = self.quick.hidden(tokens, positions, layout)
            return found
        stream = base.embed_tokens(tokens)
        cos, sin = (
            part[0, :, None, : part.shape[-1] // 2].float() for part in base.rotary_emb(stream, positions[None])
        )
        recompute = torch.is_grad_enabled() and self._held(len(tokens)) > HELD_BYTES
        for layer in base.layers:
            if recompute:
                stream = checkpoint(self._layer, layer, stream, cos, sin, layout, use_reentrant=False)
            else:
                stream = self._layer(layer, stream, cos, sin, layout)
        return norm(stream, base.norm, stream.dtype)

    def _held(self, tokens: int) -> float:
        """About how many bytes the layers hold for the backward pass: 34 a token and unit of width, counted
        over the tensors that each layer saves."""
        return 34.0 * tokens * int(self.base.config.hidden_size) * len(self.base.layers)

    def _layer(self, layer: Any, stream: Tensor, cos: Tensor, sin: Tensor, layout: Any) -> Tensor:
        attention, mlp = layer.self_attn, layer.mlp
        size, dtype = attention.head_dim, layer.input_layernorm.weight.dtype
        heads, shared = attention.config.num_attention_heads, attention.config.num_key_value_heads
        read = norm(stream, layer.input_layernorm, dtype)
        made = self._project(read, attention.q_proj, attention.k_proj, attention.v_proj).unflatten(-1, (-1, size))
        query, key, value = made.split((heads, shared, shared), 1)
        if hasattr(attention, "q_norm"):
            query, key = (
                norm(part, module, part.dtype) for part, module in ((query, attention.q_norm), (key, attention.k_norm))
            )
        scale, window = attention.scaling, window_of(attention)
        if isinstance(layout, Packed):
            output = layout.attend_turned(query, key, value, (cos, sin), scale, window)
        else:
            query, key = (rotated(part.float(), cos, sin) for part in (query, key))
            output = layout.attend(attention.layer_idx, query, key, value, scale, window)
        stream = stream + self._project(output.flatten(1).to(dtype), attention.o_proj)
        if not hasattr(mlp, "gate_proj"):  # experts, by their own code
            chosen: Tensor = mlp(norm(stream, layer.post_attention_layernorm, stream.dtype)[None])[0]
            return stream + chosen
        read = norm(stream, layer.post_attention_layernorm, dtype)
        made = self._project(read, mlp.gate_proj, mlp.up_proj)
        return stream + self._project(gated(made, mlp.act_fn), mlp.down_proj)

    def _project(self, inputs: Tensor, *layers: Any) -> Tensor:
        """What the layers make of inputs (T, in), side by side: (T, sum of outputs)."""
        found = self.packed.get(layers[0])
        if found is not None:
            return found.of(inputs)
        if not all(plain_adapter(layer) or type(layer) in (nn.Linear, Quantized) for layer in layers):
            return torch.cat([layer(inputs) for layer in layers], -1)
        bases = [getattr(layer, "base_layer", layer) for layer in layers]
        if _dense(bases):
            output = linear(inputs, [base.weight for base in bases], [base.bias for base in bases])
        else:
            output = product(inputs, bases)
        if any(hasattr(layer, "lora_A") for layer in layers):
            return low_rank(inputs, output, layers)
        return output

    def groups(self) -> Iterator[Sequence[Any]]:
        """The layers that are computed as one product."""
        for layer in self.base.layers:
            attention, mlp = layer.self_attn, layer.mlp
            yield attention.q_proj, attention.k_proj, attention.v_proj
            yield (attention.o_proj,)
            if hasattr(mlp, "gate_proj"):
                yield mlp.gate_proj, mlp.up_proj
                yield (mlp.down_proj,)

    def join(self) -> None:
        """Lay weights that are used together out together."""
        for group in self.groups():
            bases = [getattr(layer, "base_layer", layer) for layer in group]
            if _dense(bases):
                join(bases)

    def pack(self) -> None:
        """Lay the present weights out for the matrix units; where oneDNN has no bfloat16 products, nothing changes, nor
        does it where weights are held in 4 bits, to save memory."""
        for group in self.groups():
            bases = [getattr(layer, "base_layer", layer) for layer in group]
            if _dense(bases) and all(plain_adapter(layer) or type(layer) is nn.Linear for layer in group):
                weights, biases = [base.weight for base in bases], [base.bias for base in bases]
                if products_in_bfloat16(weights[0]):
                    factors = low_rank_factors(group, weights[0].dtype)
                    self.packed[group[0]] = lay_out(together(weights), joined_bias(weights, biases), factors)
        if self.packed:
            try:
                from sharpen.models.quick import quick  # needs numba, which is optional
            except ImportError:
                return
            self.quick = quick(self.base, self.packed)

    def unpack(self) -> None:
        """Read the weights themselves again."""
        self.packed.clear()
        self.quick = None


def _dense(bases: Sequence[Any]) -> bool:
    return not any(isinstance(base, Quantized) for base in bases)


def known(model: Any) -> Decoder | None:
    """The model's decoder, if its layers are of a kind that is known here."""
    base = model.base_model
    layers = getattr(base, "layers", None)
    if not layers or any(type(layer).__name__ not in _LAYERS for layer in layers):
        return None
    rotary = getattr(base.config, "rope_parameters", None) or {}
    if rotary.get("partial_rotary_factor", 1.0) != 1.0:
        return None
    return Decoder(base)


def adopt(model: Any, decoder: Decoder) -> None:
    """From now on `hidden` computes the model so."""
    decoder.join()
    setattr(model, _ATTRIBUTE, decoder)


def adopted(model: Any) -> Decoder | None:
    """The decoder that computes the model, if it is of a known kind."""
    found: Decoder | None = getattr(model, _ATTRIBUTE, None)
    return found


def hidden(model: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """The last layer's output (T, W) for tokens and positions (T,), under the layout in force."""
    decoder = adopted(model)
    if decoder:
        return decoder.hidden(tokens, positions)
    return plain_hidden(model, tokens, positions)


def plain_hidden(model: Any, tokens: Tensor, positions: Tensor) -> Tensor:
    """The same by the model's own code."""
    output = model.base_model(input_ids=tokens[None], position_ids=positions[None], use_cache=False)
    found: Tensor = output.last_hidden_state[0]
    return found
