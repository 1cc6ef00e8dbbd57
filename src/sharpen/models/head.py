"""From hidden states to log-probabilities, in chunks, so that no (tokens × vocabulary) matrix is ever whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 512
"""Predictions a chunk: 512 × 49,152 float32 logits are 100 MB."""


class Predictions(NamedTuple):
    """What a model says of N (source, target) pairs, each (N,)."""

    logprobs: Tensor
    """log p(target), at the temperature; carries the gradient."""

    entropy: Tensor
    """Entropy of the distribution in nats; detached."""

    correct: Tensor
    """1 where the target is the most likely token; detached."""


def logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Logits (N, vocabulary) in float32 at least: rounded to bfloat16 they would carry errors of 0.03."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return hidden.to(wide) @ weight.to(wide).T


def predict(hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0) -> Predictions:
    """Log-probabilities of `targets` (N,) after `hidden` (N, width), under the head `weight` (vocabulary, width).

    The backward pass computes each chunk's logits anew, in the weight's own type, instead of keeping them.
    """
    return Predictions(*_Head.apply(hidden, weight, targets, temperature))  # type: ignore[no-untyped-call]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, ...]:
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        parts = []
        for part, target in zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True):
            chunk = logits(part, wide).div_(temperature)
            normalizer = chunk.logsumexp(-1)
            logprobs = chunk.gather(-1, target[:, None])[:, 0] - normalizer
            correct = (chunk.argmax(-1) == target).to(chunk.dtype)
            mean = (chunk * (chunk - normalizer[:, None]).exp_()).sum(-1)
            parts.append((logprobs, normalizer - mean, correct, normalizer))
        logprobs, entropy, correct, normalizer = (torch.cat(columns) for columns in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, targets, normalizer)
        ctx.temperature = temperature
        ctx.mark_non_differentiable(entropy, correct)
        return logprobs, entropy, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """d log p(target) / d logits = (onehot(target) − p) / temperature."""
        hidden, weight, targets, normalizer = ctx.saved_tensors
        d_hidden = torch.empty_like(hidden)
        trained = ctx.needs_input_grad[1]  # not under an adapter: half of this pass is saved
        d_weight: Tensor | None = None
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            part = hidden[rows].to(weight.dtype)
            probabilities = (part @ weight.T).to(normalizer.dtype).div_(ctx.temperature)
            probabilities.sub_(normalizer[rows, None]).exp_()
            # In bfloat16 logits are off by up to 0.06. Normalized anew, the gradient of a certain token stays near 0.
            total = probabilities.sum(-1, keepdim=True)
            slope = gradients[0][rows, None] / ctx.temperature
            d_logits = probabilities.mul_(-slope / total).scatter_add_(1, targets[rows, None], slope).to(weight.dtype)
            d_hidden[rows] = (d_logits @ weight).to(hidden.dtype)
            if trained:
                update = d_logits.T @ part
                d_weight = update if d_weight is None else d_weight.add_(update)
        return d_hidden, d_weight, None, None
