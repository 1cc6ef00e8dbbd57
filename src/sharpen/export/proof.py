"""What an export computes beside what its original does, and the thresholds that it has to keep.

Both are loaded anew by plain transformers, in float32, one after the other. Full-precision exports must choose the
tokens that the original chooses, greedily, but where its two likeliest are closer than `GAP`. Quantised ones are
compared at every position of the same texts: how often the likeliest token is the same, and the mean KL from the
original's distribution.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sharpen.runs.manifest import digest

GAP = 1e-4
"""Logits of the two likeliest tokens that are closer than this may change places by rounding alone."""

NEW_TOKENS = 48

PROMPTS = (
    "What is the capital of France?",
    "List three prime numbers above 10.",
    "Write a haiku about rain.",
    "Explain photosynthesis in one sentence.",
    "Translate into German: The house is small.",
    "Write a Python function that adds two numbers.",
    "Tom has 3 apples and buys 4 more. How many has he?",
    "Which is larger, 0.9 or 0.11? Answer with the number alone.",
)

TEXTS = (
    "The quick brown fox, 12 345 times; it's 6  apples.",
    "def f(x):\n\treturn x**2  # squared\n\n\n",
    "Grüße, 你好, здравствуйте 🙂 naïve don't I'LL",
    '{"a": [1, 2.5, null], "b": "c\\n"}   ',
    "<|im_start|>user\nHi<|im_end|>\n<think>no</think></s>",
)
"""Whose tokens must be the same after a tokenizer was loaded again."""


class Limits(NamedTuple):
    """What a GGUF must keep: the least agreement of the likeliest token, and the most KL in nats."""

    agreement: float
    kl: float


LIMITS = {"f16": Limits(0.99, 1e-4), "q8_0": Limits(0.96, 1e-2)}
"""By what matrices are held as. docs/export.md has the measurements behind them."""


class Check(NamedTuple):
    """One thing that was compared: its value, of how many, and what it has to be."""

    name: str
    value: float | str
    rule: Literal["at most", "at least", "equal to", "noted"]
    limit: float | str = ""
    of: int | None = None

    @property
    def passed(self) -> bool:
        """Whether the value keeps its limit; one that is no number does not."""
        match self.rule, self.value, self.limit:
            case "at most", float() | int() as value, float() | int() as limit:
                return value <= limit
            case "at least", float() | int() as value, float() | int() as limit:
                return value >= limit
            case "equal to", value, limit:
                return value == limit
        return True

    @property
    def found(self) -> str:
        """`0 of 180`, `0.00214`, the beginning of a hash."""
        value = f"{self.value:.4g}" if isinstance(self.value, float) else str(self.value)[:12]
        return f"{value} of {self.of}" if self.of else value

    @property
    def wanted(self) -> str:
        """`at most 0.005`."""
        limit = f"{self.limit:g}" if isinstance(self.limit, float | int) else self.limit[:12]
        return f"{self.rule} {limit}".strip()


@dataclass(frozen=True, slots=True)
class Reference:
    """The original's greedy answers to the prompts, and its logits at every position of prompt and answer."""

    prompts: tuple[Tensor, ...]  # each (tokens,)
    texts: tuple[Tensor, ...]  # each (tokens,), prompt and answer
    logits: tuple[Tensor, ...]  # each (tokens, vocabulary)

    @property
    def steps(self) -> int:
        """How many tokens were chosen."""
        return sum(len(text) - len(prompt) for text, prompt in zip(self.texts, self.prompts, strict=True))

    @property
    def positions(self) -> int:
        """How many distributions there are."""
        return sum(map(len, self.logits))


@torch.no_grad()
def reference(model: Any, tokenizer: Any, stop: frozenset[int]) -> Reference:
    """What the original does with the built-in prompts."""
    told = getattr(tokenizer, "chat_template_kwargs", {})
    prompts, texts = [], []
    for words in PROMPTS:
        messages = [{"role": "user", "content": words}]
        ids = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **told
        )
        prompt = torch.tensor([ids])
        text = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            max_new_tokens=NEW_TOKENS,
            eos_token_id=sorted(stop),
            pad_token_id=min(stop),
        )
        prompts.append(prompt[0])
        texts.append(text[0])
    return Reference(tuple(prompts), tuple(texts), tuple(logits(model, texts)))


@torch.no_grad()
def logits(model: Any, texts: Sequence[Tensor]) -> list[Tensor]:
    """A model's logits at every position of each text, in float32."""
    return [model(text[None]).logits[0].float() for text in texts]


def same_choices(original: Reference, found: Sequence[Tensor]) -> list[Check]:
    """Whether greedy answers are the same: at each step of the original's the same token is the likeliest.

    Steps at which the original's two likeliest are closer than `GAP` do not count.
    """
    differing = close = 0
    for prompt, wanted, other in zip(original.prompts, original.logits, found, strict=True):
        chosen = slice(len(prompt) - 1, len(wanted) - 1)
        top = wanted[chosen].topk(2).values
        differs = wanted[chosen].argmax(-1) != other[chosen].argmax(-1)
        near = top[:, 0] - top[:, 1] < GAP
        differing += int((differs & ~near).sum())
        close += int((differs & near).sum())
    return [
        Check("greedy steps that differ", differing, "at most", 0, original.steps),
        Check(f"others, where the two likeliest are within {GAP:g}", close, "noted"),
    ]


def alike(original: Reference, found: Sequence[Tensor], limits: Limits) -> list[Check]:
    """How close the distributions are, over all positions of the original's texts."""
    same, apart = [], []
    for wanted, other in zip(original.logits, found, strict=True):
        ours, theirs = wanted.double().log_softmax(-1), other.double().log_softmax(-1)
        same.append(wanted.argmax(-1) == other.argmax(-1))
        apart.append((ours.exp() * (ours - theirs)).sum(-1))
    agreement, kl = float(torch.cat(same).double().mean()), float(torch.cat(apart).mean())
    return [
        Check("share with the same likeliest token", agreement, "at least", limits.agreement, original.positions),
        Check("mean KL in nats", kl, "at most", limits.kl),
    ]


def same_language(wanted: Any, found: Any) -> list[Check]:
    """Whether a tokenizer that was loaded again has the same chat template and the same tokens for texts."""
    before, after = (template_hash(tokenizer) for tokenizer in (wanted, found))
    differing = sum(_tokens(wanted, text) != _tokens(found, text) for text in TEXTS)
    return [
        Check("sha256 of the chat template", after, "equal to", before),
        Check("texts with other tokens", differing, "at most", 0, len(TEXTS)),
    ]


def template_hash(tokenizer: Any) -> str:
    """Of the chat template, the default one where there are several."""
    template = tokenizer.chat_template or ""
    text = template if isinstance(template, str) else template.get("default", "")
    return hashlib.sha256(text.encode()).hexdigest()


def same_scores(wanted: Tensor, found: Tensor) -> list[Check]:
    """Whether a reward model gives texts the scores (N, 1) that the original gives."""
    apart = float((wanted - found).abs().max())
    return [Check("largest difference of scores", apart, "at most", GAP)]


def record(checks: Sequence[Check], folder: Path, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The content of proof.json for an export that stands in `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    names = ("sharpen", "torch", "transformers", "peft", "gguf", "tokenizers")
    return {
        "schema_version": 1,
        **facts,
        "prompts": list(PROMPTS),
        "checks": [{**check._asdict(), "passed": check.passed} for check in checks],
        "passed": all(check.passed for check in checks),
        "versions": {name: _version(name) for name in names},
        "files": {path.relative_to(folder).as_posix(): digest(path) for path in files},
    }


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False))


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
