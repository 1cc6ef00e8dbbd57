"""A reward model on a policy's body: in the place of the head one number a text, as transformers' classifiers have it.

The class is transformers' own `...ForSequenceClassification` of the policy's architecture, so what is saved is what
`AutoModelForSequenceClassification` loads. Body, adapters and the way it is computed are those of the policy.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sharpen.errors import ModelError
from sharpen.models import plain
from sharpen.models.adapters import seeded
from sharpen.models.fused import adopt, adopted
from sharpen.models.load import Loaded
from sharpen.models.quiet import quiet

HEAD = "score"
"""What transformers calls the head."""


def is_scorer(model: Any) -> bool:
    """Whether the model gives scores in the place of tokens."""
    return type(model).__name__.endswith("ForSequenceClassification")


def check(model: Any) -> None:
    """Raise ModelError where transformers has no classifier of the model's architecture, with a head as this one."""
    _empty(model, pad=0)


def become(loaded: Loaded, seed: int) -> None:
    """Put a new head, from random numbers that start from `seed`, on the body of the loaded policy.

    The policy is gone: what trains from now on are its weights. Where it has an adapter, that and the head are trained.
    """
    policy: Any = loaded.model
    scorer = _empty(policy, pad_token(loaded))
    setattr(scorer, scorer.base_model_prefix, policy.base_model)
    config = scorer.config.get_text_config()
    with seeded(seed):
        weight = torch.randn(scorer.score.weight.shape) * getattr(config, "initializer_range", 0.02)
    scorer.score.weight = nn.Parameter(weight.to(loaded.dtype))
    if how := plain.how(policy):
        plain.note(scorer, how)
    if decoder := adopted(policy):
        adopt(scorer, decoder)
    if hasattr(policy, "peft_config"):
        scorer.peft_config = policy.peft_config
    loaded.model = scorer.eval()


def pad_token(loaded: Loaded) -> int:
    """The token that such a model takes for padding: a score is that of the last one which is another."""
    tokenizer = loaded.tokenizer
    named = (tokenizer.pad_token_id, tokenizer.eos_token_id, min(loaded.stop))
    return next(int(token) for token in named if token is not None)


def read(tokens: Sequence[int], pad: int) -> tuple[int, ...]:
    """The tokens up to the one that is scored; empty where all are padding."""
    last = max((place for place, token in enumerate(tokens) if token != pad), default=-1)
    return tuple(tokens[: last + 1])


def scores(model: Any, states: Tensor) -> Tensor:
    """The scores (N,) of hidden states (N, W), in float32 at least."""
    wide = torch.promote_types(states.dtype, torch.float32)
    return F.linear(states.to(wide), model.score.weight.to(wide))[:, 0]


def add_head(model: Any, folder: Path) -> None:
    """Add the head to an adapter that was saved there, as PEFT keeps a classifier's."""
    from safetensors.torch import load_file, save_file

    path, settings = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    head = model.score.weight.detach().clone()
    save_file(load_file(path) | {f"base_model.model.{HEAD}.weight": head}, path, metadata={"format": "pt"})
    content = json.loads(settings.read_text("utf-8")) | {"task_type": "SEQ_CLS", "modules_to_save": [HEAD]}
    settings.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", "utf-8")


def weights(folder: Path, dtype: torch.dtype) -> dict[str, Tensor]:
    """Those of a reward model that `save` wrote."""
    from transformers import AutoModelForSequenceClassification

    with quiet():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype, use_safetensors=True)
    state: dict[str, Tensor] = model.state_dict()
    return state


def _empty(model: Any, pad: int) -> Any:
    """A classifier of the model's architecture, without weights."""
    from transformers import AutoModelForSequenceClassification

    config = deepcopy(model.config)
    config.num_labels = 1
    for part in (config, config.get_text_config()):
        part.pad_token_id = pad
    config._attn_implementation = "eager"  # its body is not used
    classes: Any = AutoModelForSequenceClassification
    kind = type(model).__name__
    if type(config) not in classes._model_mapping:
        raise _unfit(kind, "transformers has no sequence classifier of this architecture")
    with quiet(), torch.device("meta"):
        empty = classes.from_config(config)
    head = getattr(empty, HEAD, None)
    parts = {name for name, _ in empty.named_children()}
    same = type(empty.base_model) is type(model.base_model) and parts == {empty.base_model_prefix, HEAD}
    if not same or type(head) is not nn.Linear or head.bias is not None:
        raise _unfit(kind, f"transformers' {type(empty).__name__} is no body of this model with one linear `score`")
    return empty


def _unfit(kind: str, fact: str) -> ModelError:
    return ModelError(
        f"the model cannot become a reward model: {fact}",
        value=kind,
        remedy="Use a model of another architecture (Llama, Mistral, Qwen, Gemma, GPT-2 and others have one)",
    )
