"""A model small enough to differentiate by hand: the next token depends on the present one alone."""

from __future__ import annotations

from types import SimpleNamespace

import torch
from torch import Tensor, nn


class Bigram(nn.Module):
    """An embedding and a head, in the shape the engine expects of a causal LM."""

    def __init__(self, vocabulary: int = 11, width: int = 5, dtype: torch.dtype = torch.float32, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.embedding = nn.Parameter(torch.randn(vocabulary, width, generator=generator).to(dtype))
        self.lm_head = nn.Linear(width, vocabulary, bias=False, dtype=dtype)
        with torch.no_grad():
            self.lm_head.weight.copy_(torch.randn(vocabulary, width, generator=generator))

    def base_model(self, input_ids: Tensor, position_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        return SimpleNamespace(last_hidden_state=self.embedding[input_ids])
