"""The chunked head, against log_softmax over whole logits in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from sharpen.models.head import BLOCK, CHUNK, Head, PackedSupport, predict


@pytest.fixture(autouse=True, params=["kept", "anew"])
def _probabilities(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it holds where the forward pass keeps the probabilities, and where the backward pass makes them anew."""
    if request.param == "anew":
        monkeypatch.setattr("sharpen.models.head.KEPT_BYTES", 0)


def problem(count: int, vocabulary: int = 23, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(count, width, dtype=torch.float64, generator=generator)
    weight = torch.randn(vocabulary, width, dtype=torch.float64, generator=generator)
    return hidden, weight, torch.randint(0, vocabulary, (count,), generator=generator)


@pytest.mark.parametrize("temperature", [1.0, 0.7, 2.5])
@pytest.mark.parametrize("count", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, BLOCK + 76])
def test_predictions_and_gradients_are_those_of_log_softmax(count: int, temperature: float) -> None:
    hidden, weight, targets = problem(count)
    pull = torch.randn(count, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mine, theirs = ([part.clone().requires_grad_() for part in (hidden, weight)] for _ in range(2))
    found = predict(mine[0], mine[1], targets, temperature)
    (found.logprobs * pull).sum().backward()
    whole = (theirs[0] @ theirs[1].T / temperature).log_softmax(-1)
    expected = whole.gather(-1, targets[:, None])[:, 0]
    (expected * pull).sum().backward()
    torch.testing.assert_close(found.logprobs, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.entropy, -(whole.exp() * whole).sum(-1).detach(), atol=1e-12, rtol=0)
    assert torch.equal(found.correct, (whole.argmax(-1) == targets).double())
    assert not found.correct.requires_grad
    for mine_one, theirs_one in zip(mine, theirs, strict=True):
        gradient = mine_one.grad if mine_one.grad is not None else torch.zeros_like(mine_one)
        torch.testing.assert_close(gradient, theirs_one.grad, atol=1e-10, rtol=0)


def supports(targets: Tensor, vocabulary: int, seed: int = 3) -> tuple[PackedSupport, Tensor]:
    """A random support around each target, packed and as a mask (N, V)."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(len(targets), vocabulary, generator=generator) < 0.3
    mask[torch.arange(len(targets)), targets] = True
    shuffled = [row.nonzero()[:, 0].flip(0) for row in mask]
    return PackedSupport(mask.sum(-1), torch.cat([*shuffled, torch.zeros(0)]).int()), mask


def as_sets(mask: Tensor) -> PackedSupport:
    """The same as a grammar's sets, which need not stand in the order of the predictions."""
    bits = torch.from_numpy(np.packbits(mask.numpy(), axis=1, bitorder="little"))
    order = torch.arange(len(bits)).flip(0)
    return PackedSupport(torch.zeros(0), torch.zeros(0), bits[order], order)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("count", [1, CHUNK, 1100])
@pytest.mark.parametrize("cut", ["", "ids", "sets"])
@pytest.mark.parametrize("used", ["logprobs", "entropy", "both"])
def test_entropy_and_support_are_those_of_a_masked_softmax_gradients_included(
    used: str, cut: str, count: int, temperature: float
) -> None:
    """A distribution with the others at −∞, written out whole in float64 and differentiated by autograd."""
    hidden, weight, targets = problem(count, seed=2)
    packed, mask = supports(targets, len(weight))
    generator = torch.Generator().manual_seed(1)
    pulls = [torch.randn(count, dtype=torch.float64, generator=generator) for _ in range(2)]
    mine, theirs = ([part.clone().requires_grad_() for part in (hidden, weight)] for _ in range(2))
    support = {"": None, "ids": packed, "sets": as_sets(mask)}[cut]
    found = predict(mine[0], mine[1], targets, temperature, support)
    scores = theirs[0] @ theirs[1].T / temperature
    if not cut:
        mask = torch.ones_like(mask)
    whole = scores.masked_fill(~mask, -torch.inf).log_softmax(-1)
    logprobs = whole.gather(-1, targets[:, None])[:, 0]
    entropy = -torch.where(mask, whole.exp() * whole.masked_fill(~mask, 0.0), 0.0).sum(-1)
    torch.testing.assert_close(found.logprobs, logprobs, atol=1e-12, rtol=0)
    torch.testing.assert_close(found.entropy, entropy, atol=1e-12, rtol=0)
    for ours, other in ((found[:2], mine), ((logprobs, entropy), theirs)):
        terms = [(value * pull).sum() for value, pull in zip(ours, pulls, strict=True)]
        {"logprobs": terms[0], "entropy": terms[1], "both": terms[0] + terms[1]}[used].backward()
        assert all(leaf.grad is not None and leaf.grad.any() for leaf in other)
    for mine_one, theirs_one in zip(mine, theirs, strict=True):
        torch.testing.assert_close(mine_one.grad, theirs_one.grad, atol=1e-10, rtol=0)


def test_with_a_support_of_one_token_nothing_can_be_learned() -> None:
    hidden, weight, targets = problem(4)
    weight.requires_grad_()
    found = predict(hidden, weight, targets, 1.0, PackedSupport(torch.ones(4, dtype=torch.long), targets.int()))
    (found.logprobs.sum() + found.entropy.sum()).backward()
    assert found.logprobs.tolist() == [0.0] * 4 and found.entropy.tolist() == [0.0] * 4
    assert weight.grad is not None and not weight.grad.any()


def test_under_a_frozen_head_the_gradient_of_the_hidden_states_is_the_same() -> None:
    """An adapter's head: its own gradient is not computed."""
    hidden, weight, targets = problem(CHUNK + 3)
    found = []
    for frozen in (False, True):
        inside, head = hidden.clone().requires_grad_(), weight.clone().requires_grad_(not frozen)
        predict(inside, head, targets, 0.7).logprobs.sum().backward()
        assert (head.grad is None) == frozen
        found.append(inside.grad)
    torch.testing.assert_close(found[0], found[1], atol=0, rtol=0)


def test_the_gradient_passes_gradcheck() -> None:
    hidden, weight, targets = problem(5, vocabulary=7, width=3)
    hidden.requires_grad_()
    weight.requires_grad_()
    # a second backward pass computes anew what the first one had at hand
    leaves = (hidden, weight)
    assert torch.autograd.gradcheck(lambda h, w: predict(h, w, targets, 0.8).logprobs, leaves, nondet_tol=1e-12)


def test_entropy_lies_between_certainty_and_chance() -> None:
    weight = torch.eye(4)
    certain, even = torch.tensor([[100.0, 0, 0, 0]]), torch.zeros(1, 4)
    found = predict(torch.cat([certain, even]), weight, torch.tensor([0, 1]))
    assert found.entropy.tolist() == pytest.approx([0.0, torch.tensor(4.0).log().item()], abs=1e-5)
    assert found.logprobs.tolist() == pytest.approx([0.0, -torch.tensor(4.0).log().item()], abs=1e-5)


def test_huge_logits_overflow_nothing() -> None:
    weight = torch.eye(3)
    hidden = torch.tensor([[1e4, 0.0, -1e4]], requires_grad=True)
    found = predict(hidden, weight, torch.tensor([2]))
    found.logprobs.sum().backward()
    assert found.logprobs.tolist() == [-2e4]
    assert hidden.grad is not None and hidden.grad.tolist() == [[-1.0, 0.0, 1.0]]


def test_bfloat16_weights_give_float32_logprobs_of_the_same_hidden_states() -> None:
    """The product is computed in float32: only the weights are rounded, not the logits."""
    hidden, weight, targets = (part for part in problem(700, vocabulary=300, width=64))
    hidden, rounded = hidden.float(), weight.bfloat16()
    found = predict(hidden, rounded, targets)
    expected = predict(hidden, rounded.float(), targets)
    assert found.logprobs.dtype == torch.float32
    assert float((found.logprobs - expected.logprobs).abs().max()) < 1e-3


def test_bfloat16_gradients_point_where_float32_ones_do() -> None:
    hidden, weight, targets = problem(600, vocabulary=300, width=64)
    gradients = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [hidden.float().requires_grad_(), (0.1 * weight).bfloat16().to(dtype).requires_grad_()]
        predict(leaves[0], leaves[1], targets).logprobs.sum().backward()
        gradients.append([leaf.grad.float() for leaf in leaves if leaf.grad is not None])
    for rounded, exact in zip(*gradients, strict=True):
        assert float((rounded - exact).norm() / exact.norm()) < 0.02


def test_tokens_the_model_is_certain_of_pull_hardly_even_in_bfloat16() -> None:
    """Logits of 20 are off by 0.06 there: against the exact normaliser, certain tokens would pull 6 % of the full."""
    generator = torch.Generator().manual_seed(0)
    weight = (0.5 * torch.randn(2000, 256, generator=generator)).bfloat16()
    hidden = torch.randn(600, 256, generator=generator)
    chances = (hidden @ weight.float().T).softmax(-1)
    targets = torch.multinomial(chances, 1, generator=generator)[:, 0]
    rows = chances.gather(1, targets[:, None])[:, 0] > 0.99
    assert int(rows.sum()) > 20
    pulls = []
    for dtype in (torch.bfloat16, torch.float32):
        leaf = hidden.clone().requires_grad_()
        predict(leaf, weight.to(dtype), targets).logprobs.sum().backward()
        assert leaf.grad is not None
        pulls.append(leaf.grad[rows])
    assert float((pulls[0] - pulls[1]).norm() / pulls[1].norm()) < 0.2


def test_logits_of_bfloat16_weights_are_float32_wherever_they_matter() -> None:
    """Tokens that are not a hundred times less likely than the likeliest have logits of a float64 product."""
    generator = torch.Generator().manual_seed(5)
    hidden, weight = torch.randn(40, 64, generator=generator), torch.randn(3000, 64, generator=generator).bfloat16()
    for temperature in (1.0, 0.5):
        scores, peak = Head(weight).shifted(hidden, temperature)
        whole = hidden.double() @ weight.double().T / temperature
        likely = whole > whole.amax(-1, keepdim=True) - 4.6
        assert 40 < int(likely.sum()) < 20_000
        assert float((scores + peak - whole).abs()[likely].max()) < 1e-4
        assert float((scores + peak - whole).abs().max()) < 0.5
    tokens = torch.randint(0, 3000, (40,), generator=generator)
    found = Head(weight).exact(hidden, tokens) / 0.5
    torch.testing.assert_close(found.double(), whole.gather(-1, tokens[:, None])[:, 0], atol=1e-4, rtol=0)
