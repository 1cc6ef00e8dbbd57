"""Weights laid out once for the matrix units, while a model only reads them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sharpen.models.fused import adopted
from sharpen.models.head import products_in_bfloat16


@contextmanager
def packed_weights(model: nn.Module) -> Iterator[None]:
    """Inside this block linear layers use reordered copies of their present weights.

    oneDNN reorders a bfloat16 weight at every product; with few rows, as in decoding, that costs more than the
    product itself. The copies take as much memory again as the linear weights. Where oneDNN does not do
    bfloat16 products nothing changes, nor do weights of another type: those of adapters.
    """
    decoder = adopted(model)
    if decoder:
        decoder.pack()
        try:
            yield
        finally:
            decoder.unpack()
        return
    head = model.get_output_embeddings()  # type: ignore[operator]
    chosen: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head and products_in_bfloat16(module.weight)
    ]
    for layer in chosen:
        packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        layer.forward = partial(_product, packed, layer.bias)
    try:
        yield
    finally:
        for layer in chosen:
            del layer.forward  # the class's own forward is back


def _product(packed: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    output: Tensor = torch.ops.mkldnn._linear_pointwise(inputs, packed, bias, "none", [], "")
    return output
