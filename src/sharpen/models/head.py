"""From hidden states to log-probabilities, in chunks, so that no (tokens × vocabulary) matrix is ever whole."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

CHUNK = 512
"""Predictions a chunk: 512 × 49,152 float32 logits are 100 MB."""

EXCLUDED = -1e30
"""The logit of a token outside the support: its probability is 0, as with −∞, but 0 times it is no NaN."""


class Predictions(NamedTuple):
    """What a model says of N (source, target) pairs, each (N,)."""

    logprobs: Tensor
    """log p(target), at the temperature; carries the gradient."""

    entropy: Tensor
    """Entropy of the distribution in nats; carries the gradient, which costs nothing unless it is used."""

    correct: Tensor
    """1 where the target is the most likely token; detached."""


class PackedSupport(NamedTuple):
    """The tokens that each of N predictions may be: the first `counts[0]` of `ids` for the first, and so on."""

    counts: Tensor  # (N,)
    ids: Tensor  # (the sum of counts,)

    def restrict(self, logits: Tensor, first: int) -> Tensor:
        """The logits (R, vocabulary) of the predictions from `first` on, with all others excluded."""
        counts = self.counts[first : first + len(logits)]
        start, size = int(self.counts[:first].sum()), int(counts.sum())
        ids = self.ids[start : start + size].to(torch.long)
        rows = torch.repeat_interleave(torch.arange(len(logits)), counts)
        restricted = torch.full_like(logits, EXCLUDED)
        restricted[rows, ids] = logits[rows, ids]
        return restricted


def logits(hidden: Tensor, weight: Tensor) -> Tensor:
    """Logits (N, vocabulary) in float32 at least: rounded to bfloat16 they would carry errors of 0.03."""
    wide = torch.promote_types(weight.dtype, torch.float32)
    return hidden.to(wide) @ weight.to(wide).T


def predict(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, support: PackedSupport | None = None
) -> Predictions:
    """Log-probabilities of `targets` (N,) after `hidden` (N, width), under the head `weight` (vocabulary, width).

    The distribution is that at the temperature, renormalised on `support` where there is one. The backward
    pass computes each chunk's logits anew, in the weight's own type, instead of keeping them.
    """
    return Predictions(*_Head.apply(hidden, weight, targets, temperature, support))  # type: ignore[no-untyped-call]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, support: PackedSupport | None
    ) -> tuple[Tensor, ...]:
        wide = weight.to(torch.promote_types(weight.dtype, torch.float32))
        parts = []
        for index, (part, target) in enumerate(zip(hidden.split(CHUNK), targets.split(CHUNK), strict=True)):
            chunk = logits(part, wide).div_(temperature)
            if support:
                chunk = support.restrict(chunk, index * CHUNK)
            normalizer = chunk.logsumexp(-1)
            logprobs = chunk.gather(-1, target[:, None])[:, 0] - normalizer
            correct = (chunk.argmax(-1) == target).to(chunk.dtype)
            mean = (chunk * (chunk - normalizer[:, None]).exp_()).sum(-1)
            parts.append((logprobs, normalizer - mean, correct, normalizer))
        logprobs, entropy, correct, normalizer = (torch.cat(columns) for columns in zip(*parts, strict=True))
        ctx.save_for_backward(hidden, weight, targets, normalizer)
        ctx.temperature, ctx.support = temperature, support
        ctx.mark_non_differentiable(correct)
        ctx.set_materialize_grads(False)  # so that the backward pass sees which outputs were used
        return logprobs, entropy, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """By logits / temperature: of log p(target) it is onehot(target) − p, of the entropy H it is −p (log p + H)."""
        hidden, weight, targets, normalizer = ctx.saved_tensors
        of_logprobs = torch.zeros_like(normalizer) if gradients[0] is None else gradients[0]
        of_entropy = gradients[1]
        d_hidden = torch.empty_like(hidden)
        trained = ctx.needs_input_grad[1]  # not under an adapter: half of this pass is saved
        d_weight: Tensor | None = None
        for start in range(0, len(hidden), CHUNK):
            rows = slice(start, start + CHUNK)
            part = hidden[rows].to(weight.dtype)
            scores = (part @ weight.T).to(normalizer.dtype).div_(ctx.temperature)
            if ctx.support:
                scores = ctx.support.restrict(scores, start)
            probabilities = scores.sub_(normalizer[rows, None]).exp_()
            # In bfloat16 logits are off by up to 0.06. Normalized anew, the gradient of a certain token stays near 0.
            total = probabilities.sum(-1, keepdim=True)
            slope = of_logprobs[rows, None] / ctx.temperature
            bonus = None
            if of_entropy is not None:
                bonus = _entropy_slope(probabilities / total).mul_(of_entropy[rows, None] / ctx.temperature)
            d_scores = probabilities.mul_(-slope / total).scatter_add_(1, targets[rows, None], slope)
            if bonus is not None:
                d_scores.add_(bonus)
            d_logits = d_scores.to(weight.dtype)
            d_hidden[rows] = (d_logits @ weight).to(hidden.dtype)
            if trained:
                update = d_logits.T @ part
                d_weight = update if d_weight is None else d_weight.add_(update)
        return d_hidden, d_weight, None, None, None


def _entropy_slope(probabilities: Tensor) -> Tensor:
    """The entropy's derivative by logits / temperature, −p (log p + H), (R, vocabulary)."""
    plogp = torch.special.entr(probabilities).neg_()  # 0 where p is 0
    entropy = -plogp.sum(-1, keepdim=True)
    slope: Tensor = plogp.add_(probabilities * entropy).neg_()
    return slope
