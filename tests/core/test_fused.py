"""Our own layers: values and gradients of the model's own code, and weights that stay where their names say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from sharpen.models import fused
from sharpen.models.attention import Packed, Span, layout
from sharpen.models.joined import join, linear, together, whole
from sharpen.models.load import load
from tests.tiny import tiny_model

KNOWN = ("llama", "qwen2", "qwen3", "mistral")


def gradients(model: Any, how: Any, tokens: torch.Tensor) -> dict[str, torch.Tensor]:
    """Of a fixed weighting of the last hidden states, by parameter."""
    model.zero_grad()
    positions = torch.cat([torch.arange(9), torch.arange(len(tokens) - 9)])
    with layout(Packed([Span(0, 9), Span(9, len(tokens) - 9)])):
        found = how(model, tokens, positions)
    (found * torch.randn(found.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("architecture", KNOWN)
def test_states_and_gradients_are_those_of_the_models_own_code(
    architecture: str, recompute: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if recompute:
        monkeypatch.setattr(fused, "HELD_BYTES", 0)
    model = load(tiny_model(tmp_path, architecture), torch.float32).model
    assert fused.adopted(model)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # norms and biases start as ones and zeros
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
    tokens = torch.randint(4, 100, (30,), generator=torch.Generator().manual_seed(1))
    ours, theirs = gradients(model, fused.hidden, tokens), gradients(model, fused.plain_hidden, tokens)
    assert ours.keys() == theirs.keys() and len(ours) > 15
    for name, gradient in ours.items():
        torch.testing.assert_close(gradient, theirs[name], atol=2e-4, rtol=1e-4)


def test_a_model_that_computes_otherwise_than_its_kind_is_left_to_its_own_code(tmp_path: Path) -> None:
    from sharpen.models.proof import quicken

    model = load(tiny_model(tmp_path), torch.float32).model
    del model.sharpen_decoder
    model.base_model.layers[1].mlp.act_fn = nn.ReLU()  # taken from the layer: still the same
    quicken(model, torch.float32)
    assert fused.adopted(model)
    del model.sharpen_decoder
    forward = model.base_model.layers[0].mlp.forward
    model.base_model.layers[0].mlp.forward = lambda x: 2 * forward(x)
    quicken(model, torch.float32)
    assert not fused.adopted(model)


def test_joined_layers_are_one_tensor_whose_parts_keep_their_names() -> None:
    layers = [nn.Linear(5, size, bias=size == 3) for size in (4, 3, 2)]
    before = [layer.weight.detach().clone() for layer in layers]
    join(layers)
    weights = [layer.weight for layer in layers]
    one = whole(weights)
    assert one is not None and torch.equal(one, torch.cat(before))
    with torch.no_grad():
        layers[1].weight.fill_(7.0)
    assert torch.equal(one[4:7], torch.full((3, 5), 7.0)), "a view, not a copy"
    assert whole(weights[::-1]) is None and whole([weights[0], weights[2]]) is None
    layers[1].weight.data = layers[1].weight.data.clone()
    assert whole(weights) is None and torch.equal(together(weights), torch.cat([weight for weight in weights]))


@pytest.mark.parametrize("joins", [True, False])
def test_a_joined_product_has_the_values_and_gradients_of_its_parts(joins: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    layers = [nn.Linear(5, size, bias=size != 2).double() for size in (4, 3, 2)]
    if joins:
        join(layers)
    inputs = torch.randn(6, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    pull = torch.randn(6, 9, dtype=torch.float64, generator=generator)
    layers[2].weight.requires_grad_(False)
    leaves = [inputs, *(p for layer in layers for p in layer.parameters() if p.requires_grad)]
    found = linear(inputs, [layer.weight for layer in layers], [layer.bias for layer in layers])
    expected = torch.cat([layer(inputs) for layer in layers], -1)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    mine = torch.autograd.grad((found * pull).sum(), leaves)
    theirs = torch.autograd.grad((expected * pull).sum(), leaves)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=0)


def test_layers_that_are_computed_again_hold_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(tiny_model(tmp_path, num_hidden_layers=4), torch.float32).model

    def held(limit: int) -> int:
        """Bytes that the forward pass saves for the backward pass."""
        monkeypatch.setattr(fused, "HELD_BYTES", limit)
        sizes: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            with layout(Packed([Span(0, 200)])):
                kept = fused.hidden(model, torch.arange(200) % 100, torch.arange(200))
        assert kept.requires_grad
        return sum(sizes.values())

    assert held(0) < held(2**40) / 3
