"""What the trainer makes of completions held to a grammar: the sampler's log-probabilities, and the right gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.models.head import Head, PackedSupport, predict
from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params
from sharpen.rollout.draw import draw
from sharpen.train.engine import score
from sharpen.train.losses import PolicyGradient
from sharpen.types import Sequence as Row
from tests.core.held import (
    FAST,
    NESTED,
    SLOW,
    WORDS,
    WORDS_PATTERN,
    eager,
    following,
    grammar,
    models_in,
    requests,
    run,
    text,
)
from tests.core.test_gradients import OPTIM, Watched, near
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Loaded]:
    return models_in(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("kind", [FAST, SLOW])
@pytest.mark.parametrize("form", [NESTED, r"\d{2,4}-[a-z]+"], ids=["schema", "regex"])
@pytest.mark.parametrize("drawing", [Params(60, 0.8), Params(60, 1.2, top_p=0.9), Params(60, 1.0, top_k=5, min_p=0.01)])
def test_the_trainers_logprobs_are_the_samplers(
    models: dict[str, Loaded], kind: str, form: dict[str, Any] | str, drawing: Params
) -> None:
    loaded = models[kind]
    segments = run(loaded, requests(10), replace(drawing, grammar=grammar(loaded, form)), max_rows=4)
    rows = [Row(segment.tokens, segment.mask, str(i), support=segment.support) for i, segment in enumerate(segments)]
    for row, segment in zip(score(loaded.model, rows, 200, drawing.temperature), segments, strict=True):
        assert row.old_logprobs == pytest.approx(segment.logprobs, abs=1e-4)
    free = score(loaded.model, [replace(row, support=None) for row in rows], 200, drawing.temperature)
    (first, *_), (unmasked, *_) = segments, free
    assert sum(unmasked.old_logprobs) < sum(first.logprobs) - 1, "without the support it is another distribution"


@pytest.mark.parametrize("kind", [FAST, SLOW])
def test_loss_and_gradient_are_those_of_an_explicit_masked_softmax(models: dict[str, Loaded], kind: str) -> None:
    """In float64, on transformers' own model, with the mask of the language written out."""
    loaded, own = models[kind], eager(models[kind]).requires_grad_()
    temperature = 0.8
    params = Params(4, temperature, grammar=grammar(loaded, WORDS_PATTERN))
    rows = []
    for place, segment in enumerate(run(loaded, requests(9), params)):
        advantage = (1.3, -0.7, -0.4)[place % 3]
        old = tuple(value - 0.1 * place if value else 0.0 for value in segment.logprobs)
        rows.append(
            Row(
                segment.tokens,
                segment.mask,
                str(place),
                advantages=tuple(advantage * sampled for sampled in segment.mask),
                rollout_logprobs=segment.logprobs,
                old_logprobs=old,
                attempt=0,
                support=segment.support,
            )
        )
    loss = masked_loss(own, rows, temperature)
    loss.backward()
    expected = [parameter.grad for parameter in own.parameters() if parameter.grad is not None]
    for budget in (1, 1000):
        engine = Watched(loaded.model, OPTIM, 10, budget)
        result = engine.step(rows, PolicyGradient(entropy_coef=0.2), temperature)
        assert result.loss == pytest.approx(float(loss.detach()), rel=1e-4, abs=1e-5)
        assert near(engine.gradients, expected)


def masked_loss(own: Any, rows: list[Row], temperature: float) -> torch.Tensor:
    """DAPO's, with an entropy bonus, written out."""
    total, tokens = torch.zeros((), dtype=torch.float64), sum(row.trained for row in rows)
    for row in rows:
        scores = own(input_ids=torch.tensor(row.tokens)[None]).logits[0] / temperature
        sampled = [index for index, trained in enumerate(row.mask) if trained]
        for index in sampled:
            allowed = sorted(following(WORDS, text(row.tokens[sampled[0] : index])))
            mask = torch.full_like(scores[index - 1], -torch.inf)
            mask[allowed] = 0.0
            distribution = (scores[index - 1] + mask).log_softmax(-1)
            left = distribution[allowed]
            new, entropy = distribution[row.tokens[index]], -(left.exp() * left).sum()
            weight = min(2.0, float(np.exp(row.old_logprobs[index] - row.rollout_logprobs[index])))
            ratio, advantage = torch.exp(new - row.old_logprobs[index]), row.advantages[index]
            bounded = ratio.clamp(max=1.28) if advantage > 0 else ratio.clamp(min=0.8)
            total = total - (weight * bounded * advantage + 0.2 * entropy) / tokens
    return total


# Where what is forbidden is far likelier than what is not


def far_below(dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """States (6, 64), a head (300, 64) of which the first tokens lead by some 100 nats, and what is allowed: not those.

    The logits of what is allowed are about 96, so that bfloat16 rounds them by up to 0.25.
    """
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 64, generator=generator).mul(0.3).add(1.0).to(dtype)
    weight = torch.randn(300, 64, generator=generator).mul(0.3).add(1.5)
    weight[:6] += 1.5
    allowed = torch.rand(6, 300, generator=generator) < 0.4
    allowed[:, :6] = False
    return hidden, weight.to(dtype), allowed


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
def test_nothing_vanishes_beside_a_far_likelier_token_that_is_masked(dtype: torch.dtype, temperature: float) -> None:
    hidden, weight, allowed = far_below(dtype)
    exact = (hidden.double() @ weight.double().T / temperature).masked_fill(~allowed, -torch.inf).log_softmax(-1)
    head = Head(weight)
    scores, peak = head.shifted(hidden, temperature, restrict=lambda logits: logits.masked_fill(~allowed, -torch.inf))
    uniform = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    tokens, logprobs = draw(scores, 1.0, uniform)
    reported = (
        logprobs + head.exact(hidden, tokens) / temperature - peak[:, 0] - scores.gather(-1, tokens[:, None])[:, 0]
    )
    assert allowed.gather(-1, tokens[:, None]).all()
    assert torch.equal(tokens, (exact.exp().cumsum(-1) > uniform[:, None]).float().argmax(-1))
    torch.testing.assert_close(reported.double(), exact.gather(-1, tokens[:, None])[:, 0], atol=6e-3, rtol=0)
    for support in (with_sets(allowed), with_ids(allowed)):
        found = predict(hidden, weight, tokens, temperature, support)
        torch.testing.assert_close(found.logprobs.double(), exact.gather(-1, tokens[:, None])[:, 0], atol=6e-3, rtol=0)


def with_sets(allowed: torch.Tensor) -> PackedSupport:
    bits = torch.from_numpy(np.packbits(allowed.numpy(), axis=1, bitorder="little"))
    order = torch.arange(len(bits)).flip(0)  # the sets need not stand in the order of the predictions
    return PackedSupport(torch.zeros(0), torch.zeros(0), bits[order], order)


def with_ids(allowed: torch.Tensor) -> PackedSupport:
    return PackedSupport(allowed.sum(-1), allowed.nonzero()[:, 1].int())


def test_in_bfloat16_logprobs_under_a_grammar_are_the_trainers_on_average(tmp_path: Path) -> None:
    loaded = load(tiny_model(tmp_path, initializer_range=0.1), torch.bfloat16)
    segments = run(loaded, requests(12), Params(60, grammar=grammar(loaded, NESTED)))
    rows = [Row(segment.tokens, segment.mask, str(i), support=segment.support) for i, segment in enumerate(segments)]
    gaps = [
        abs(a - b)
        for row, segment in zip(score(loaded.model, rows, 300), segments, strict=True)
        for a, b in zip(row.old_logprobs, segment.logprobs, strict=True)
        if b
    ]
    assert len(gaps) > 200 and sum(gaps) / len(gaps) <= 0.02
