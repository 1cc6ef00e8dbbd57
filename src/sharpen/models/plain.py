"""The slow path: a model that our attention does not know, called as transformers calls it, one sequence a row.

Nothing is packed, no prefix is shared, and the head is the model's own: with a bias, a scale or a soft cap.
`sharpen.models.fallback` proves that it computes so, and notes on the model how it is to be called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from sharpen.models.attention import Span
from sharpen.models.head import CHUNK, PackedSupport, Predictions

_NOTE = "sharpen_plain"


@dataclass(frozen=True)
class Plain:
    """How a model is to be called that does not compute on our attention."""

    padded: bool
    """Sequences of other lengths beside one change nothing for it; else each is computed alone."""

    cache: Literal["batch", "row", "none"]
    """Whether rows decode together, each by itself, or by computing the whole sequence anew."""

    scale: float = 1.0
    """Of the logits."""

    cap: float | None = None
    """Logits x become cap · tanh(x / cap), after scaling."""


def how(model: Any) -> Plain | None:
    """How the model is to be called; None where it computes on our attention."""
    noted: Plain | None = getattr(model, _NOTE, None)
    return noted


def note(model: Any, plain: Plain) -> None:
    """Say how the model is to be called; it goes wherever the model goes, to other ranks too."""
    setattr(model, _NOTE, plain)


def call(model: Any, **named: Any) -> Any:
    """The body's output for the arguments that it takes and that are not None."""
    taken = inspect.signature(model.base_model.forward).parameters
    return model.base_model(**{name: value for name, value in named.items() if name in taken and value is not None})


def hidden_states(model: Any, plain: Plain, tokens: Tensor, spans: Sequence[Span]) -> Tensor:
    """The last layer's output (T, width) of T packed tokens, each span computed as a sequence with its prefix."""
    found: dict[int, Tensor] = {}
    for part in _parts(spans, plain.padded):
        rows = [
            torch.cat([tokens[span.prefix_start :][: span.prefix], tokens[span.start :][: span.length]])
            for span in part
        ]
        lengths = torch.tensor([len(row) for row in rows])
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long() if len(rows) > 1 else None
        output = call(model, input_ids=padded, attention_mask=mask, use_cache=False).last_hidden_state
        for row, span in enumerate(part):
            found[span.start] = output[row, span.prefix : span.prefix + span.length]
    return torch.cat([found[span.start] for span in spans])


def _parts(spans: Sequence[Span], padded: bool) -> Iterator[list[Span]]:
    """Spans of like length, to be padded to one; or each alone."""
    parts: dict[int, list[Span]] = {}
    for index, span in enumerate(spans):
        parts.setdefault((span.prefix + span.length - 1).bit_length() if padded else index, []).append(span)
    yield from parts.values()


def head(model: Any, plain: Plain) -> Callable[[Tensor], Tensor]:
    """What makes the model's own logits (N, vocabulary) of hidden states (N, width), in float32 at least."""
    own = model.get_output_embeddings()
    wide = torch.promote_types(own.weight.dtype, torch.float32)
    weight, bias = own.weight.to(wide), None if own.bias is None else own.bias.to(wide)

    def logits(hidden: Tensor) -> Tensor:
        scores = F.linear(hidden.to(wide), weight, bias) * plain.scale
        return scores if plain.cap is None else plain.cap * torch.tanh(scores / plain.cap)

    return logits


def predict(
    model: Any,
    plain: Plain,
    hidden: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    support: PackedSupport | None = None,
) -> Predictions:
    """As `sharpen.models.head.predict`, with the model's own head; the backward pass computes chunks anew."""
    logits = head(model, plain)

    def chunk(part: Tensor, target: Tensor, start: int) -> Predictions:
        scores = logits(part) / temperature
        if support:
            scores = support.restrict(scores, start)
        distribution = scores.log_softmax(-1)
        entropy = -(distribution.exp() * distribution).sum(-1)
        correct = (scores.argmax(-1) == target).to(scores.dtype)
        return Predictions(distribution.gather(-1, target[:, None])[:, 0], entropy, correct)

    parts = [
        checkpoint(chunk, part, target, index * CHUNK, use_reentrant=False)
        for index, (part, target) in enumerate(zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True))
    ]
    return Predictions(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
