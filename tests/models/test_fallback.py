"""The slow path: what our attention does not know computes as transformers computes it, or is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from torch import Tensor

from sharpen.config.optim import Optim
from sharpen.errors import ModelError
from sharpen.models import adapters, plain
from sharpen.models.fallback import fall_back
from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.engine import Engine, score
from sharpen.train.losses import CrossEntropy, Loss
from sharpen.types import Segment
from sharpen.types import Sequence as Row
from tests.core.test_gradients import OPTIM, SEVERAL, Watched, cut_rows, groups, near, several_loss
from tests.tiny import SLOW_ARCHITECTURES, tiny_model

OTHERS = ("phi", "granite", "rwkv", "recurrent_gemma", "lfm2")
ONE_BY_ONE = ("mamba", "rwkv")


@pytest.fixture(scope="module", params=SLOW_ARCHITECTURES + OTHERS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / request.param, request.param)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(folder, torch.float32)


@pytest.fixture(scope="module")
def own(folder: Path) -> Any:
    """As transformers loads it."""
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
    model.config.use_cache = False  # rwkv's backward pass fails with it; `generate` does not look here
    return model.eval()


def prompts() -> list[tuple[int, ...]]:
    """Some longer than a window of 8; neighbours share theirs."""
    generator = torch.Generator().manual_seed(5)
    made = [tuple(torch.randint(4, 100, (length,), generator=generator).tolist()) for length in (3, 14, 8, 1)]
    return [made[0], made[1], made[1], made[1], made[2], made[3]]


def sample(loaded: Loaded, params: Params, **settings: Any) -> list[Segment]:
    requests = [Request(prompt, (7, place)) for place, prompt in enumerate(prompts())]
    return asyncio.run(LocalSampler(loaded.model, loaded.stop, **settings).sample(requests, params))


@torch.no_grad()
def logprobs(own: Any, tokens: tuple[int, ...]) -> Tensor:
    """Of each token but the first, by the model's own forward pass on the sequence alone."""
    found: Tensor = own(input_ids=torch.tensor(tokens)[None]).logits[0].float().log_softmax(-1)
    return found[:-1].gather(-1, torch.tensor(tokens)[1:, None])[:, 0]


def test_it_loads_with_a_notice_and_the_way_it_is_called(loaded: Loaded, folder: Path) -> None:
    assert f"the fast path does not know this model ({folder.name})" in loaded.notice
    how = plain.how(loaded.model)
    assert how and how.padded and how.cache == ("row" if folder.name in ONE_BY_ONE else "batch")


@pytest.mark.parametrize("settings", [{}, {"max_rows": 4, "prefill_tokens": 16}], ids=["at once", "in parts"])
def test_greedy_answers_are_those_of_generate(loaded: Loaded, own: Any, settings: dict[str, Any]) -> None:
    for prompt, segment in zip(prompts(), sample(loaded, Params(20, 0.0), **settings), strict=True):
        whole = own.generate(
            torch.tensor(prompt)[None],
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=sorted(loaded.stop),
            pad_token_id=0,
        )
        assert segment.tokens == tuple(whole[0].tolist())


def test_sampler_and_trainer_give_the_logprobs_of_the_models_own_forward(loaded: Loaded, own: Any) -> None:
    segments = sample(replace(loaded, stop=frozenset(range(2, 12))), Params(24))
    assert len({segment.sampled for segment in segments}) > 1, "rows leave at different times"
    rows = [
        Row(segment.tokens, segment.mask, atom=str(prompt), shared=len(prompt))
        for prompt, segment in zip(prompts(), segments, strict=True)
    ]
    for budget in (1, 100, 1000):
        for row, segment in zip(score(loaded.model, rows, budget), segments, strict=True):
            expected = logprobs(own, segment.tokens)[-segment.sampled :].tolist()
            assert list(row.old_logprobs[-segment.sampled :]) == pytest.approx(expected, abs=1e-4)
            assert list(segment.logprobs[-segment.sampled :]) == pytest.approx(expected, abs=1e-4)


def test_a_steps_gradient_is_that_of_plain_transformers_on_whole_sequences(folder: Path, own: Any) -> None:
    """Cross-entropy; then a ratio over rollouts, KL, entropy and supports at a temperature."""
    ours = load(folder, torch.float32).model
    rows = [replace(row, old_logprobs=()) for row in groups()]
    cases: list[tuple[Loss, list[Row], float]] = [(CrossEntropy(), rows, 1.0), (SEVERAL, cut_rows(), 0.8)]
    for loss, batch, temperature in cases:
        own.zero_grad()
        if isinstance(loss, CrossEntropy):
            total = -torch.cat([_trained(own, row) for row in batch]).mean()
        else:
            total = several_loss(own, batch, temperature)
        total.backward()
        expected = {name: weight.grad for name, weight in own.named_parameters() if weight.grad is not None}
        for budget in (1, 60, 1000):
            engine = Watched(ours, OPTIM, 10, budget)
            result = engine.step(batch, loss, temperature)
            assert result.loss == pytest.approx(float(total.detach()), rel=1e-4, abs=1e-5)
            assert near(engine.gradients, list(expected.values()))


def _trained(own: Any, row: Row) -> Tensor:
    tokens = torch.tensor(row.tokens)
    found: Tensor = own(input_ids=tokens[None]).logits[0].log_softmax(-1)[:-1].gather(-1, tokens[1:, None])[:, 0]
    return found[torch.tensor(row.mask[1:])]


def test_where_padding_is_unsafe_each_sequence_is_computed_alone_to_the_same_result(loaded: Loaded, own: Any) -> None:
    how = plain.how(loaded.model)
    assert how
    rows = [replace(row, old_logprobs=()) for row in groups()]
    before = score(loaded.model, rows, 1000)
    plain.note(loaded.model, replace(how, padded=False, cache="none"))
    try:
        for one, other in zip(score(loaded.model, rows, 1000), before, strict=True):
            assert one.old_logprobs == pytest.approx(other.old_logprobs, abs=1e-4)
        assert [one.tokens for one in sample(loaded, Params(6))]
    finally:
        plain.note(loaded.model, how)


@pytest.mark.parametrize("architecture", SLOW_ARCHITECTURES)
def test_in_bfloat16_it_learns_and_samples(tmp_path: Path, architecture: str) -> None:
    loaded = load(tiny_model(tmp_path, architecture, initializer_range=0.1), torch.bfloat16)
    assert loaded.notice and loaded.model.dtype == torch.bfloat16
    rows = [replace(row, old_logprobs=()) for row in groups()]
    engine = Engine(loaded.model, Optim(lr=3e-3, schedule="constant", warmup_ratio=0.0), 10, 1000)
    losses = [engine.step(rows, CrossEntropy()).loss for _ in range(6)]
    assert losses[-1] < 0.95 * losses[0]
    assert all(segment.sampled for segment in sample(loaded, Params(5)))


@pytest.mark.parametrize("architecture", ["gemma2", "bloom"])
def test_adapters_train_and_merge(tmp_path: Path, architecture: str) -> None:
    loaded = load(tiny_model(tmp_path, architecture), torch.float32)
    names = adapters.target_names(loaded.model, "all-linear")
    adapters.attach(loaded.model, LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=names), 1)
    rows = [replace(row, old_logprobs=()) for row in groups()]
    engine = Engine(loaded.model, Optim(lr=1e-2, schedule="constant", warmup_ratio=0.0), 10, 1000)
    losses = [engine.step(rows, CrossEntropy()).loss for _ in range(6)]
    assert losses[-1] < losses[0]
    before = [row.old_logprobs for row in score(loaded.model, rows, 1000)]
    adapters.merge(loaded.model)
    after = [row.old_logprobs for row in score(loaded.model, rows, 1000)]
    for one, other in zip(after, before, strict=True):
        assert one == pytest.approx(other, abs=1e-3)


def overwrite(folder: Path, shape: Any) -> Path:
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_config(shape).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda hidden: hidden + hidden.mean(1, keepdim=True), "does not predict a token from those before it alone"),
        (lambda hidden: hidden.detach(), "cannot be trained"),
        (lambda hidden: hidden / 0, "not finite"),
    ],
    ids=["sees what comes after", "gives no gradients", "computes no numbers"],
)
def test_what_runs_but_cannot_be_trained_is_refused(
    tmp_path: Path, spoil: Callable[[Tensor], Tensor], reason: str
) -> None:
    model = load(tiny_model(tmp_path, "bloom"), torch.float32).model

    def hook(module: Any, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = spoil(output.last_hidden_state)
        return output

    model.base_model.register_forward_hook(hook)
    with pytest.raises(ModelError, match=reason):
        fall_back(model, torch.float32)


def test_a_model_that_changes_its_own_weights_is_refused(tmp_path: Path) -> None:
    """RWKV divides the weights of later layers when it is in eval mode, every so many layers."""
    folder = tiny_model(tmp_path, "rwkv", rescale_every=1)
    with pytest.raises(ModelError, match="changes its own weights when it computes"):
        load(folder, torch.float32)


def test_logits_of_another_kind_are_refused(tmp_path: Path) -> None:
    from transformers import BertConfig

    shape = BertConfig(
        vocab_size=128,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        is_decoder=True,
    )
    with pytest.raises(ModelError, match="makes logits in another way than a linear head"):
        load(overwrite(tiny_model(tmp_path), shape), torch.float32)
