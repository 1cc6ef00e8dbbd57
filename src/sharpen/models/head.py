"""From hidden states to log-probabilities, in chunks, so that no (tokens × vocabulary) matrix is ever whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK = 128
"""Predictions whose logits are float32 at one time: 128 × 49,152 of them are 25 MB, which caches hold."""

BLOCK = 1024
"""Predictions whose probabilities the backward pass holds at one time, in the weight's type."""

KEPT_BYTES = 2**27
"""Probabilities of so many bytes are kept for the backward pass; more are computed anew."""

SIGNIFICANT = -5.0
"""How far below the likeliest token's logit, at temperature 1, rounding may be left: e⁻⁵ is 0.7 %."""

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


Restrict = Callable[[Tensor], Tensor]
"""From logits (N, vocabulary) to those with what cannot be drawn at `EXCLUDED` or below."""


class PackedSupport(NamedTuple):
    """The tokens that each of N predictions may be: the first `counts[0]` of `ids` for the first, and so on.

    Where a grammar alone says it, both are empty, and prediction i may be those of the set `sets[which[i]]`.
    """

    counts: Tensor  # (N,)
    ids: Tensor  # (the sum of counts,)
    sets: Tensor | None = None  # (S, vocabulary / 8) bytes, a bit a token, the lowest first
    which: Tensor | None = None  # (N,)

    def restrict(self, logits: Tensor, first: int) -> Tensor:
        """The logits (R, vocabulary) of the predictions from `first` on, with all others excluded."""
        if self.sets is not None and self.which is not None:
            which = self.which[first : first + len(logits)]
            return logits.masked_fill(~unpacked(self.sets[which], logits.shape[1]), EXCLUDED)
        counts = self.counts[first : first + len(logits)]
        start, size = int(self.counts[:first].sum()), int(counts.sum())
        ids = self.ids[start : start + size].to(torch.long)
        rows = torch.repeat_interleave(torch.arange(len(logits)), counts)
        restricted = torch.full_like(logits, EXCLUDED)
        restricted[rows, ids] = logits[rows, ids]
        return restricted


def unpacked(bits: Tensor, vocabulary: int) -> Tensor:
    """Booleans (N, vocabulary) from their bits (N, at least vocabulary / 8), the lowest of a byte first."""
    places = torch.tensor([1 << place for place in range(8)], dtype=torch.uint8, device=bits.device)
    return bits[:, :, None].bitwise_and(places).ne(0).flatten(1)[:, :vocabulary]


class Head:
    """The output layer, laid out once for many products: logits (N, vocabulary) in float32 at least.

    Rounded to bfloat16, logits carry errors of 0.03. So where oneDNN multiplies bfloat16 in hardware, the logits of
    every token that matters (`SIGNIFICANT`) are computed once more, with float32 results; the rest have too little
    probability for their rounding to show.
    """

    def __init__(self, weight: Tensor) -> None:
        """`weight` is (vocabulary, width); it must not change while this is used."""
        self.weight = weight.detach()
        self.packed = None
        if products_in_bfloat16(weight):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)
        else:
            self.weight = self.weight.to(torch.promote_types(weight.dtype, torch.float32))

    def shifted(
        self, hidden: Tensor, temperature: float, out: Tensor | None = None, restrict: Restrict | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits / temperature of `hidden` (N, width), less about the largest of each row: (N, vocabulary); and that
        number, (N, 1).

        They may be written to the first N rows of `out`, where there is one. With `restrict`, the largest is that of
        what is left: it decides which logits matter, and nothing that is left vanishes beside what is not.
        """
        if self.packed is None:
            scores = F.linear(hidden.to(self.weight.dtype), self.weight)
            scores = scores if restrict is None else restrict(scores)
            peak = scores.amax(-1, keepdim=True)
            return scores.sub_(peak).div_(temperature), peak / temperature
        narrow = hidden.to(torch.bfloat16)
        near: Tensor = torch.ops.mkldnn._linear_pointwise(narrow, self.packed, None, "none", [], "")
        scores = near.float() if out is None else out[: len(near)].copy_(near)
        scores = scores if restrict is None else restrict(scores)
        peak = (near if restrict is None else scores).amax(-1, keepdim=True).float()
        scores -= peak
        tokens = (scores.amax(0) > temperature * SIGNIFICANT).nonzero()[:, 0]
        exact = F.linear(hidden.float(), self.weight[tokens].float()).sub_(peak)
        if restrict is not None:  # what matters in one row may be excluded in another
            exact = torch.where(scores[:, tokens] > EXCLUDED / 2, exact, scores[:, tokens])
        scores[:, tokens] = exact
        return scores.div_(temperature) if temperature != 1 else scores, peak / temperature

    def exact(self, hidden: Tensor, tokens: Tensor) -> Tensor:
        """The logits (N,) of one token (N,) each."""
        wide = torch.promote_types(self.weight.dtype, torch.float32)
        found: Tensor = torch.linalg.vecdot(hidden.to(wide), self.weight[tokens].to(wide))
        return found


def products_in_bfloat16(weight: Tensor) -> bool:
    """Whether oneDNN multiplies this weight as it is, in hardware."""
    return (
        weight.dtype == torch.bfloat16
        and weight.device.type == "cpu"
        and torch.backends.mkldnn.is_available()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def predict(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    temperature: float = 1.0,
    support: PackedSupport | None = None,
    head: Head | None = None,
) -> Predictions:
    """Log-probabilities of `targets` (N,) after `hidden` (N, width), under the head `weight` (vocabulary, width).

    The distribution is that at the temperature, renormalised on `support` where there is one. `head` is the weight
    laid out, where it is at hand. The backward pass may be taken once.
    """
    with_grad = torch.is_grad_enabled() and (hidden.requires_grad or weight.requires_grad)
    head = head or Head(weight)
    return Predictions(*_Head.apply(hidden, weight, targets, temperature, support, head, with_grad))  # type: ignore[no-untyped-call]


class _Head(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        temperature: float,
        support: PackedSupport | None,
        head: Head,
        with_grad: bool,
    ) -> tuple[Tensor, ...]:
        size = len(hidden) * len(weight) * weight.element_size()
        kept = weight.new_empty(len(hidden), len(weight)) if with_grad and size <= KEPT_BYTES else None
        wide = torch.promote_types(weight.dtype, torch.float32)
        room, more = (weight.new_empty(min(CHUNK, len(hidden)), len(weight), dtype=wide) for _ in range(2))
        parts = []
        for start in range(0, max(1, len(hidden)), CHUNK):
            part, target = hidden[start : start + CHUNK], targets[start : start + CHUNK, None]
            restrict = partial(support.restrict, first=start) if support else None
            scores, peak = head.shifted(part, temperature, room, restrict)
            scores.scatter_(1, target, head.exact(part, target[:, 0])[:, None] / temperature - peak)
            if support:
                above = scores.amax(-1, keepdim=True)
                scores, peak = scores.sub_(above), peak + above
            likeliest = scores.amax(-1, keepdim=True)
            probabilities = torch.exp(scores, out=more[: len(part)])
            total = probabilities.sum(-1, keepdim=True)
            chosen = scores.gather(-1, target)
            mean = scores.mul_(probabilities).sum(-1, keepdim=True).div_(total)
            log_total = total.log()
            parts.append((chosen - log_total, log_total - mean, chosen == likeliest, peak + log_total, total))
            if kept is not None:
                kept[start : start + CHUNK] = probabilities
        columns = (torch.cat(column)[:, 0] for column in zip(*parts, strict=True))
        logprobs, entropy, correct, normalizer, totals = columns
        correct = correct.to(logprobs.dtype)
        ctx.save_for_backward(hidden, weight, targets, normalizer, totals, logprobs)
        ctx.temperature, ctx.support, ctx.kept = temperature, support, kept
        ctx.mark_non_differentiable(correct)
        ctx.set_materialize_grads(False)  # so that the backward pass sees which outputs were used
        return logprobs, entropy, correct

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        """By logits / temperature: of log p(target) it is onehot(target) − p, of the entropy H it is −p (log p + H)."""
        hidden, weight, targets, normalizer, totals, logprobs = ctx.saved_tensors
        of_logprobs = torch.zeros_like(normalizer) if gradients[0] is None else gradients[0]
        of_entropy = gradients[1]
        slopes = -of_logprobs[:, None] / ctx.temperature
        d_hidden = torch.empty_like(hidden)
        trained = ctx.needs_input_grad[1]  # not under an adapter: half of this pass is saved
        d_weight: Tensor | None = None
        for first in range(0, len(hidden), BLOCK):
            block = slice(first, min(first + BLOCK, len(hidden)))
            part = hidden[block].to(weight.dtype)
            d_logits = ctx.kept[block] if ctx.kept is not None else weight.new_empty(len(part), len(weight))
            if ctx.kept is not None and of_entropy is None:
                # The slope, and what makes probabilities of the kept, multiply the short rows of either product.
                total = totals[block, None]
                at_target = logprobs[block, None].expm1() * total
                d_logits[torch.arange(len(part)), targets[block]] = at_target[:, 0].to(
                    weight.dtype
                )  # scatter_ copies all
                slope = slopes[block] / total
                d_hidden[block] = ((d_logits @ weight) * slope).to(hidden.dtype)
                part = (part * slope).to(weight.dtype)
            else:
                for start in range(first, block.stop, CHUNK):
                    rows = slice(start, min(start + CHUNK, block.stop))
                    here = slice(rows.start - first, rows.stop - first)
                    d_logits[here] = _of_logits(
                        ctx, rows, slopes[rows], None if of_entropy is None else of_entropy[rows]
                    )
                d_hidden[block] = (d_logits @ weight).to(hidden.dtype)
            if trained:
                update = d_logits.T @ part
                d_weight = update if d_weight is None else d_weight.add_(update)
        ctx.kept = None
        return d_hidden, d_weight, None, None, None, None, None


def _of_logits(ctx: Any, rows: slice, slope: Tensor, of_entropy: Tensor | None) -> Tensor:
    """The gradient by some rows' logits / temperature, (R, vocabulary), of probabilities kept or computed anew."""
    hidden, weight, targets, normalizer, totals, logprobs = ctx.saved_tensors
    if ctx.kept is not None:
        probabilities = ctx.kept[rows] / totals[rows, None]
    else:
        probabilities = (hidden[rows].to(weight.dtype) @ weight.T).to(totals.dtype).div_(ctx.temperature)
        if ctx.support:
            probabilities = ctx.support.restrict(probabilities, rows.start)
        probabilities.sub_(normalizer[rows, None]).exp_()
        # In bfloat16 logits are off by up to 0.06: what they say is normalized anew.
        probabilities /= probabilities.sum(-1, keepdim=True)
    bonus = None
    if of_entropy is not None:
        bonus = _entropy_slope(probabilities).mul_(of_entropy[:, None] / ctx.temperature)
    # 1 − p from the log-probability, so that the gradient of a certain token stays near 0.
    d_scores: Tensor = probabilities.scatter_(1, targets[rows, None], logprobs[rows, None].expm1()).mul_(slope)
    return d_scores if bonus is None else d_scores.add_(bonus)


def _entropy_slope(probabilities: Tensor) -> Tensor:
    """The entropy's derivative by logits / temperature, −p (log p + H), (R, vocabulary)."""
    plogp = torch.special.entr(probabilities).neg_()  # 0 where p is 0
    entropy = -plogp.sum(-1, keepdim=True)
    slope: Tensor = plogp.add_(probabilities * entropy).neg_()
    return slope
