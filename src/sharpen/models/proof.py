"""Show, before anything trains, that a model computes on our attention and head what it computes by itself.

Sixteen tokens catch what no list of architectures would: layers that mix tokens without attention, attention of a
model's own, biased or scaled heads, caches of another shape, layers that cannot compute in bfloat16. Such a model
may still run on transformers' own attention (`sharpen.models.fallback`).
"""

from __future__ import annotations

import sys
from typing import Any

import torch
from torch import Tensor

from sharpen.errors import ModelError
from sharpen.models import fused
from sharpen.models.attention import NAME, Layout, Packed, Span, layout
from sharpen.models.cache import Cache, Step
from sharpen.models.head import Head

_FIRST, _SECOND = 7, 9  # tokens of two sequences
_OWN = f"{NAME}-own"

LARGE = 30.0
"""A soft cap of logits shows after hidden states so much larger than a model's own."""


class Unknown(ModelError):
    """Our attention, or our head, does not know an architecture; `why` ends the sentence "it ..."."""

    def __init__(self, why: str, value: str) -> None:
        self.why = why
        super().__init__(
            f"this architecture is not supported yet: it {why}",
            value=value,
            remedy="Use a Llama-, Qwen-, Mistral- or Gemma-3-like model; if only bfloat16 fails, set dtype: float32",
        )


@torch.no_grad()
def prove(model: Any, dtype: torch.dtype) -> None:
    """Raise Unknown unless a sequence computes the same alone, packed, cached and on the model's own attention.

    Our head must give the model's logits. Raises ModelError for a model whose numbers are not finite.
    """
    text = model.config.get_text_config()
    tokens = torch.arange(_FIRST + _SECOND) % text.vocab_size
    second = tokens[_FIRST:]
    seen = _Seen(Packed([Span(0, _SECOND)]))
    try:
        alone = _hidden(model, second, seen)
        packed = _hidden(model, tokens, Packed([Span(0, _FIRST), Span(_FIRST, _SECOND)]), _FIRST)[_FIRST:]
        cached = _cached(model, second, text.num_hidden_layers)
        own, theirs = _by_itself(model, second)
        ours = torch.add(*Head(model.lm_head.weight).shifted(own * LARGE, 1.0))
        bias = model.lm_head.bias
    except Unknown:
        raise
    except Exception as error:  # a foreign boundary: any architecture's code
        raise Unknown(f"fails in {name_of(dtype)}: {brief(error)}", text.model_type) from error
    if seen.layers != set(range(text.num_hidden_layers)):
        raise Unknown("has layers that mix tokens without attention, or attention of its own", text.model_type)
    if bias is not None:
        raise Unknown("has a head with a bias", text.model_type)
    check_finite(alone, model)
    for what, one, other in (
        ("attends in a way of its own", alone, own),
        ("lets packed sequences see one another", packed, alone),
        ("does not decode from cached keys and values", cached, alone[-1:]),
        ("makes logits in another way than hidden · lm_head", theirs, ours),
    ):
        if not close(one, other, dtype):
            raise Unknown(what, text.model_type)


def close(one: Tensor, other: Tensor, dtype: torch.dtype) -> bool:
    """Whether two results are the same but for the rounding of their type."""
    tolerance = 1e-3 if dtype == torch.float32 else 0.1
    return bool((one - other).abs().max() <= tolerance * other.abs().max())


def check_finite(hidden: Tensor, model: Any) -> None:
    """Raise ModelError for NaN and infinity."""
    if not hidden.isfinite().all():
        raise ModelError(
            "the model computes numbers that are not finite",
            value=model.name_or_path,
            remedy="Fetch the model again; if it stays so, its weights do not fit the compute type: set dtype: float32",
        )


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
    if close(ours, theirs, dtype):
        fused.adopt(model, decoder)
        prove(model, dtype)


def name_of(dtype: torch.dtype) -> str:
    """`float32`, without `torch.`."""
    return str(dtype).removeprefix("torch.")


def brief(error: Exception) -> str:
    """The first line of a foreign error."""
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


class _Seen:
    """A layout, and which layers asked it."""

    def __init__(self, of: Layout) -> None:
        self.of = of
        self.layers: set[int] = set()

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
        self.layers.add(layer)
        return self.of.attend(layer, query, key, value, scale, window, sinks)


def _hidden(model: Any, tokens: Tensor, how: Layout, split: int = 0) -> Tensor:
    """The last layer's output (T, width); positions start anew at `split`."""
    positions = torch.cat([torch.arange(split), torch.arange(len(tokens) - split)])
    return _forward(model, tokens, positions, how)


def _by_itself(model: Any, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The last layer's output (T, width) on the attention in the model's own file, and the model's enlarged logits."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(_OWN, _own_attention)
    AttentionMaskInterface.register(_OWN, eager_mask)
    positions = torch.arange(len(tokens))[None]
    given: dict[str, Any] = {"input_ids": tokens[None], "position_ids": positions, "use_cache": False}
    model.set_attn_implementation(_OWN)
    try:
        return model.base_model(**given).last_hidden_state[0], enlarged(model, **given)
    finally:
        model.set_attn_implementation(NAME)


def _own_attention(module: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **named: Any) -> Any:
    """What stands beside the module, in float32 as ours."""
    own = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    output, weights = own(module, query.float(), key.float(), value.float(), *rest, **named)
    return output.to(query.dtype), weights


def enlarged(model: Any, **named: Any) -> Tensor:
    """The model's own logits (T, vocabulary) where its head is given `LARGE` times what it would be given."""

    def enlarge(module: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0] * LARGE, *inputs[1:])

    handle = model.get_output_embeddings().register_forward_pre_hook(enlarge)
    try:
        found: Tensor = model(**named).logits[0].float()
    finally:
        handle.remove()
    return found


def _cached(model: Any, tokens: Tensor, layers: int) -> Tensor:
    """The same for the last token, of a row that begins with those before it."""
    before = len(tokens) - 1
    step = Step(Cache(layers, 1, len(tokens)), 1, [(Span(0, before), [0])])
    return _forward(model, tokens, torch.arange(len(tokens)), step)[-1:]


def _forward(model: Any, tokens: Tensor, positions: Tensor, how: Layout) -> Tensor:
    with layout(how):
        return fused.hidden(model, tokens, positions)
