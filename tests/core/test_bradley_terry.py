"""Reward models compute what transformers' classifiers do; the loss and its gradient are by hand, and TRL's formula."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from sharpen.config.optim import Optim
from sharpen.data.pack import pack
from sharpen.errors import ModelError
from sharpen.models import scorer
from sharpen.models.load import Loaded, load, save
from sharpen.train.backward import Backward, Errand, said
from sharpen.train.bradley_terry import BradleyTerry
from sharpen.train.engine import Engine
from sharpen.train.rate import auto_lr
from sharpen.types import Sequence as Row
from tests.tiny import tiny_model

PAD = 0
TEXTS = [
    ((5, 9, 17, 30, 41, 8), (5, 9, 17, 30, 22, 11, 60)),
    ((7, 7, 19), (7, 7, 19, 50, 51, 33, 12, 90, 13)),  # the better one begins the worse
    ((88, 14, 15, 16), (23, 14)),
]
"""Token ids of three pairs: with a shared beginning, with one text that begins the other, and with nothing shared."""


def rows_of(texts: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> list[Row]:
    """As the stage makes them."""
    rows = []
    for number, pair in enumerate(texts):
        shared = next((i for i, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), min(map(len, pair)))
        rows += [Row((*text, PAD), (*[False] * len(text), True), str(number), shared) for text in pair]
    return rows


def trl(scores: Tensor, center: float) -> Tensor:
    """`RewardTrainer.compute_loss` of TRL 1.16, of scores (P, 2): better and worse."""
    rewards_chosen, rewards_rejected = scores.unbind(1)
    loss = -torch.nn.functional.logsigmoid(rewards_chosen - rewards_rejected).mean()
    return loss + center * torch.mean((rewards_chosen + rewards_rejected) ** 2)


def test_the_loss_of_two_pairs_is_what_a_hand_works_out() -> None:
    batch = next(pack(rows_of(TEXTS[:2]), 100, whole=True))
    found = BradleyTerry()(torch.tensor([1.0, 0.0, -0.5, 1.5]), batch)
    assert float(found.total) == pytest.approx(math.log(1 + math.exp(-1)) + math.log(1 + math.exp(2)))
    assert {name: float(value) for name, value in found.sums.items()} == {
        "rewards/chosen": 0.5,
        "rewards/rejected": 1.5,
        "rewards/margins": -1.0,
        "rewards/accuracies": 1.0,
    }
    assert set(found.counts.values()) == {2.0}
    centred = BradleyTerry(center=0.1)(torch.tensor([1.0, 0.0, -0.5, 1.5]), batch)
    assert float(centred.total) == pytest.approx(float(found.total) + 0.1 * (1.0 + 1.0))


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(-8, 8)] * 2), min_size=1, max_size=5), st.sampled_from([0.0, 0.01, 0.7]))
def test_loss_and_gradient_are_trls(pairs: list[tuple[float, float]], center: float) -> None:
    ours = torch.tensor(pairs, dtype=torch.float64, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    loss = BradleyTerry(center)
    (loss(ours.flatten(), None).total / len(pairs)).backward()  # type: ignore[arg-type]
    trl(theirs, center).backward()
    assert ours.grad is not None and theirs.grad is not None
    torch.testing.assert_close(ours.grad, theirs.grad)


def made(folder: Path, architecture: str) -> Loaded:
    loaded = load(tiny_model(folder / "policy", architecture), torch.float32)
    scorer.become(loaded, seed=11)
    return loaded


def reference(loaded: Loaded, folder: Path) -> Any:
    """What transformers loads of the model, on its own attention."""
    save(loaded.model, loaded.tokenizer, folder, torch.float32)
    return AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")


def padded(model: Any) -> Tensor:
    """transformers' scores (P, 2) of the pairs, all in one padded batch."""
    texts = [torch.tensor(text) for pair in TEXTS for text in pair]
    ids = torch.nn.utils.rnn.pad_sequence(texts, batch_first=True, padding_value=PAD)
    logits: Tensor = model(input_ids=ids, attention_mask=(ids != PAD).long()).logits
    return logits.view(-1, 2)


@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gemma3_text", "qwen3_moe", "gpt_oss", "gemma2", "bloom"])
def test_scores_loss_and_gradients_are_those_of_transformers_on_padded_batches(
    tmp_path: Path, architecture: str
) -> None:
    loaded = made(tmp_path, architecture)
    theirs = reference(loaded, tmp_path / "saved")
    rows, loss = rows_of(TEXTS), BradleyTerry(center=0.3)
    wanted = padded(theirs)
    with torch.no_grad():
        found = torch.cat([said(loaded.model, batch, 1.0) for batch in pack(rows, 12, whole=True)])  # type: ignore[misc]
    torch.testing.assert_close(found, wanted.detach().flatten(), atol=1e-5, rtol=1e-4)

    value = trl(wanted, 0.3)
    value.backward()
    backward = Backward(loaded.model)
    totals = backward.run(Errand(rows, loss, 1.0, loss.count(rows), 12, ()))
    assert totals.total / 3 == pytest.approx(float(value.detach()), rel=1e-5)
    by_name = dict(theirs.named_parameters())
    names = [name for name, parameter in loaded.model.named_parameters() if parameter.requires_grad]
    assert set(names) == set(by_name) and "score.weight" in names
    for name, gradient in zip(names, backward.take(zeros=True), strict=True):
        other = by_name[name].grad
        expected = torch.zeros_like(by_name[name]) if other is None else other
        assert gradient is not None and torch.allclose(gradient, expected, atol=2e-5, rtol=1e-3), name


def test_splitting_a_step_into_microbatches_changes_nothing(tmp_path: Path) -> None:
    results = []
    for budget in (1, 1000):
        loaded = made(tmp_path / str(budget), "llama")
        engine = Engine(loaded.model, Optim(lr=1e-3), 4, budget)
        results.append(engine.step(rows_of(TEXTS), BradleyTerry()).line())
    for name in ("loss", "grad_norm"):
        assert results[0][name] == pytest.approx(results[1][name], rel=1e-5)
    assert results[0]["rewards"] == pytest.approx(results[1]["rewards"], rel=1e-4)


def test_a_head_depends_on_its_seed_alone(tmp_path: Path) -> None:
    folder = tiny_model(tmp_path / "policy")
    heads = []
    for seed in (1, 1, 2):
        loaded = load(folder, torch.float32)
        torch.rand(seed)  # whatever else was drawn before
        scorer.become(loaded, seed)
        heads.append(loaded.model.score.weight.detach())
    assert torch.equal(heads[0], heads[1]) and not torch.equal(heads[0], heads[2])
    assert 0.15 < float(heads[0].std()) < 0.45, "the model's own initializer_range is 0.3"


def test_a_text_is_read_up_to_the_last_token_that_is_no_padding() -> None:
    assert scorer.read([4, 0, 5, 0, 0], 0) == (4, 0, 5)
    assert scorer.read([4, 5], 0) == (4, 5)
    assert scorer.read([0, 0], 0) == ()


@pytest.mark.parametrize("architecture", ["mamba", "granite"])
def test_an_architecture_without_a_classifier_is_refused(tmp_path: Path, architecture: str) -> None:
    loaded = load(tiny_model(tmp_path / "policy", architecture), torch.float32)
    with pytest.raises(ModelError, match="cannot become a reward model: transformers has no sequence classifier"):
        scorer.check(loaded.model)


@pytest.mark.parametrize(("parameters", "lr"), [(6_000_000_000, 9e-6), (70_000_000_000, 5e-6)])
def test_published_rates_of_reward_models_come_out(parameters: int, lr: float) -> None:
    """InstructGPT's, and Llama 2's of 70 B."""
    assert auto_lr("reward_model", parameters, adapter=False).lr == pytest.approx(lr, rel=0.06)
