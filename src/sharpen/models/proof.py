"""Show, before anything trains, that a model computes on our attention and head what it computes by itself.

Sixteen tokens catch what no list of architectures would: layers that mix tokens without attention, attention of a
model's own, biased or scaled heads, caches of another shape, layers that cannot compute in bfloat16.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sharpen.errors import ModelError
from sharpen.models import fused
from sharpen.models.attention import Layout, Packed, Span, layout
from sharpen.models.cache import Cache, Step
from sharpen.models.head import Head

_FIRST, _SECOND = 7, 9  # tokens of two sequences


@torch.no_grad()
def prove(model: Any, dtype: torch.dtype) -> None:
    """Raise ModelError unless a sequence computes the same alone, packed and cached, and our head gives its logits."""
    text = model.config.get_text_config()
    tokens = torch.arange(_FIRST + _SECOND) % text.vocab_size
    second = tokens[_FIRST:]
    seen = _Seen(Packed([Span(0, _SECOND)]))
    try:
        alone = _hidden(model, second, seen)
        packed = _hidden(model, tokens, Packed([Span(0, _FIRST), Span(_FIRST, _SECOND)]), _FIRST)[_FIRST:]
        cached = _cached(model, second, text.num_hidden_layers)
        ours = torch.add(*Head(model.lm_head.weight).shifted(alone, 1.0))
        with layout(Packed([Span(0, _SECOND)])):
            theirs = model(input_ids=second[None], position_ids=torch.arange(_SECOND)[None], use_cache=False).logits[0]
    except ModelError:
        raise
    except Exception as error:  # a foreign boundary: any architecture's code
        raise unsupported(f"fails in {str(dtype).removeprefix('torch.')}: {brief(error)}", text.model_type) from error
    if seen.layers != set(range(text.num_hidden_layers)):
        raise unsupported("has layers that mix tokens without attention, or attention of its own", text.model_type)
    if not alone.isfinite().all():
        raise ModelError(
            "the model computes numbers that are not finite",
            value=model.name_or_path,
            remedy="Fetch the model again; if it stays so, its weights do not fit the compute type: set dtype: float32",
        )
    tolerance = _tolerance(dtype)
    for what, one, other in (
        ("lets packed sequences see one another", packed, alone),
        ("does not decode from cached keys and values", cached, alone[-1:]),
        ("makes logits in another way than hidden · lm_head", theirs.float(), ours),
    ):
        if not (one - other).abs().max() <= tolerance * other.abs().max():
            raise unsupported(what, text.model_type)


@torch.no_grad()
def quicken(model: Any, dtype: torch.dtype) -> None:
    """Let our own layers compute a model of a known kind from now on, if they compute what its own do."""
    decoder = fused.known(model)
    if decoder is None:
        return
    tokens = torch.arange(_SECOND) % model.config.get_text_config().vocab_size
    positions = torch.arange(_SECOND)
    with layout(Packed([Span(0, _SECOND)])):
        theirs, ours = fused.plain_hidden(model, tokens, positions), decoder.hidden(tokens, positions)
    if (theirs - ours).abs().max() <= _tolerance(dtype) * theirs.abs().max():
        fused.adopt(model, decoder)
        prove(model, dtype)


def unsupported(why: str, value: str) -> ModelError:
    """The error for an architecture that is not built."""
    return ModelError(
        f"this architecture is not supported yet: it {why}",
        value=value,
        remedy="Use a Llama-, Qwen-, Mistral- or Gemma-3-like model; if only bfloat16 fails, set dtype: float32",
    )


def brief(error: Exception) -> str:
    """The first line of a foreign error."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-3 if dtype == torch.float32 else 0.1


class _Seen:
    """A layout, and which layers asked it."""

    def __init__(self, of: Layout) -> None:
        self.of = of
        self.layers: set[int] = set()

    def attend(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scale: float, window: int | None) -> Tensor:
        self.layers.add(layer)
        return self.of.attend(layer, query, key, value, scale, window)


def _hidden(model: Any, tokens: Tensor, how: Layout, split: int = 0) -> Tensor:
    """The last layer's output (T, width); positions start anew at `split`."""
    positions = torch.cat([torch.arange(split), torch.arange(len(tokens) - split)])
    return _forward(model, tokens, positions, how)


def _cached(model: Any, tokens: Tensor, layers: int) -> Tensor:
    """The same for the last token, of a row that begins with those before it."""
    before = len(tokens) - 1
    step = Step(Cache(layers, 1, len(tokens)), 1, [(Span(0, before), [0])])
    return _forward(model, tokens, torch.arange(len(tokens)), step)[-1:]


def _forward(model: Any, tokens: Tensor, positions: Tensor, how: Layout) -> Tensor:
    with layout(how):
        return fused.hidden(model, tokens, positions)
