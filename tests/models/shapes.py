"""transformers' configurations of the registry's shapes."""

from __future__ import annotations

from typing import Any

from sharpen.models.bases import Shape


def config_of(shape: Shape) -> Any:
    """A configuration that makes a model of this shape."""
    from transformers import AutoConfig

    settings: dict[str, Any] = {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.inner,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.shared_heads,
        "tie_word_embeddings": shape.tied,
    }
    if shape.head_size * shape.heads != shape.width:
        settings["head_dim"] = shape.head_size
    if shape.experts > 1:
        settings |= {"num_local_experts": shape.experts, "num_experts_per_tok": shape.active}
    return AutoConfig.for_model(shape.kind, **settings)
