"""`reward_model`: a sequence classifier of transformers reads prompt and completion, and its logit is the score.

It computes in this process, in float32 and without gradients, many texts at a time, padded on the right. A score does
not depend on the texts beside it but for rounding: padding is masked, and a model that takes the last token which is no
padding (as causal ones do) is given a padding token that ends none of the texts, where it names none itself.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

from sharpen.config.graders.adapters import RewardModel
from sharpen.errors import ModelError
from sharpen.graders.base import grader_fault
from sharpen.graders.batches import split
from sharpen.graders.foreign import said, text_of
from sharpen.graders.template import InvalidVariable, render
from sharpen.models import folder
from sharpen.types import Example, Grade, Message, Sample, Tool

Pair = tuple[Example, Sample]
Encoded = Mapping[str, list[int]]
"""A text's `input_ids`, and what else the tokenizer says of each token."""


@dataclass
class _Loaded:
    """A classifier with its tokenizer."""

    model: Any
    tokenizer: Any
    special: re.Pattern[str]
    """The texts of its control tokens."""


class RewardModelGrader:
    """The model is loaded once, at the start or when first needed."""

    def __init__(self, config: RewardModel) -> None:
        self._config = config
        self._loaded: _Loaded | None = None
        self._lock = threading.Lock()

    async def start(self) -> None:
        """Load the model. Raises ModelError when it cannot be found, trusted or read, or has not the labels named."""
        await asyncio.to_thread(self._ready)

    def close(self) -> None:
        """Forget the model."""
        self._loaded = None

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """The model's scores, in order. Raises ModelError as `start`."""
        return await asyncio.to_thread(self._grades, pairs)

    def _ready(self) -> _Loaded:
        with self._lock:
            if self._loaded is None:
                self._loaded = load(self._config)
            return self._loaded

    def _grades(self, pairs: Sequence[Pair]) -> list[Grade]:
        loaded = self._ready()
        deadline = time.monotonic() + self._config.time_limit
        grades: dict[int, Grade] = {}
        texts: dict[int, Encoded] = {}
        with self._lock:  # the tokenizer's and the model's settings are changed
            for place, pair in enumerate(pairs):
                try:
                    texts[place] = self._encode(loaded, *pair)
                except InvalidVariable as error:
                    grades[place] = error.grade()
                except ValueError as error:
                    grades[place] = grader_fault("other_error", str(error))
            by_length = sorted(texts, key=lambda place: len(texts[place]["input_ids"]))
            for places in split(by_length, self._config.batch_size):
                if time.monotonic() > deadline:
                    fault = grader_fault("other_error", f"not begun after {self._config.time_limit:g} s")
                    grades |= dict.fromkeys(places, fault)
                    continue
                try:
                    scores = self._scores(loaded.model, [texts[place] for place in places])
                except Exception as error:  # a foreign boundary: what a model of any architecture may raise
                    fault = grader_fault("other_error", f"the reward model failed: {type(error).__name__}: {error}")
                    grades |= dict.fromkeys(places, fault)
                else:
                    grades |= {place: Grade(score) for place, score in zip(places, scores, strict=True)}
        return [grades[place] for place in range(len(pairs))]

    def _encode(self, loaded: _Loaded, example: Example, sample: Sample) -> Encoded:
        """The tokens of what the model reads. Raises InvalidVariable, and ValueError where it cannot read that."""
        config, tokenizer = self._config, loaded.tokenizer
        texts, own = self._texts(loaded, example, sample)
        longest = _longest(config, loaded)
        cut: dict[str, Any] = {}
        if config.truncation != "none":
            tokenizer.truncation_side = config.truncation
            cut = {"truncation": True, "max_length": longest}
        encoded: Encoded = tokenizer(*texts, add_special_tokens=own, verbose=False, **cut)
        length = len(encoded["input_ids"])
        if not length:
            raise ValueError("there is nothing to read")
        if length > longest:
            raise ValueError(f"{length:,} tokens, and the reward model reads {longest:,}; `truncation` may cut them")
        return {name: values for name, values in encoded.items() if name != "attention_mask"}

    def _texts(self, loaded: _Loaded, example: Example, sample: Sample) -> tuple[list[str], bool]:
        """One text or two, and whether the tokenizer puts its own tokens around them, which templates bring along."""
        config = self._config
        if config.input == "chat" or (config.input == "auto" and loaded.tokenizer.chat_template):
            messages = [*example.messages, *shown_turns(said(sample), loaded.special)]
            return [conversation(loaded.tokenizer, messages, example.tools)], False

        def shown(path: str, text: str) -> str:
            return plain(text, loaded.special) if path.startswith("sample") else text

        item = {"prompt": text_of(example.messages), **example.item}
        templates = [config.text, config.pair] if config.pair else [config.text]
        return [render(template, replace(example, item=item), sample, shown) for template in templates], True

    def _scores(self, model: Any, texts: Sequence[Encoded]) -> list[float]:
        """A score for each text."""
        import torch  # takes seconds to import

        settings = model.config.get_text_config()
        given = settings.pad_token_id if (settings.pad_token_id or 0) >= 0 else None
        last = {text["input_ids"][-1] for text in texts}
        pad = given if given is not None else next(token for token in count() if token not in last)
        width = max(len(text["input_ids"]) for text in texts)
        batch = {
            name: torch.tensor([_padded(text[name], width, pad if name == "input_ids" else 0) for text in texts])
            for name in texts[0]
        }
        batch["attention_mask"] = torch.tensor([_padded([1] * len(text["input_ids"]), width, 0) for text in texts])
        settings.pad_token_id = pad
        try:
            with torch.inference_mode():
                logits = model(**batch).logits  # (texts, labels)
        finally:
            settings.pad_token_id = given
        return [float(score) for score in self._read(logits, model.config)]

    def _read(self, logits: Any, settings: Any) -> Any:
        if self._config.label is None:
            return logits[:, 0].sigmoid() if self._config.transform == "sigmoid" else logits[:, 0]
        several = settings.problem_type == "multi_label_classification"
        return (logits.sigmoid() if several else logits.softmax(-1))[:, self._config.label]


def load(config: RewardModel) -> _Loaded:
    """The model, in float32 and eval mode, and its tokenizer. Raises ModelError."""
    import torch  # these take seconds to import
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from sharpen.models.proof import brief
    from sharpen.models.quiet import quiet

    path = folder.trusted(config.model, report=lambda said: None)
    loader: Any = AutoModelForSequenceClassification  # its annotations leave out `output_loading_info`
    with quiet():
        try:
            tokenizer: Any = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            model, info = loader.from_pretrained(
                path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
            )
        except Exception as error:  # a foreign boundary: safetensors, JSON, shapes, unknown architectures
            raise ModelError(f"the reward model cannot be loaded: {brief(error)}", value=str(path)) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            "weights are missing from the reward model's files",
            value=missing[:3],
            remedy="Use a model trained as a classifier, whose config.json names ...ForSequenceClassification",
        )
    _check_labels(config, model.config)
    if config.input == "chat" and not tokenizer.chat_template:
        raise ModelError("the reward model has no chat template", value=str(path), remedy="Leave out `input: chat`")
    return _Loaded(model.eval(), tokenizer, control_texts(tokenizer))


def control_texts(tokenizer: Any) -> re.Pattern[str]:
    """What the tokenizer reads as control tokens, the longest first."""
    specials = {entry.content for entry in tokenizer.added_tokens_decoder.values() if entry.special and entry.content}
    longest_first = sorted(specials, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")


def conversation(tokenizer: Any, messages: Sequence[Message], tools: Sequence[Tool]) -> str:
    """A whole conversation in the tokenizer's chat template. Raises ValueError where that fails."""
    try:
        rendered: str = tokenizer.apply_chat_template(list(messages), tools=list(tools) or None, tokenize=False)
    except Exception as error:  # a foreign boundary: templates are programs
        raise ValueError(f"the reward model's chat template fails: {type(error).__name__}: {error}") from error
    return rendered


def shown_turns(turns: Sequence[Message], special: re.Pattern[str]) -> list[Message]:
    """The turns of an attempt as a reward model reads them: control tokens as plain text, and without thoughts."""
    return [_mapped(_answered(message), special) for message in turns]


def plain(text: str, special: re.Pattern[str]) -> str:
    """The text, with a space in each control token's text: what the policy writes must not open and close turns."""
    return special.sub(lambda found: f"{found[0][:-1]} {found[0][1:] and found[0][-1]}", text)


def _answered(message: Message) -> Message:
    """The message without the thoughts before it, which are not what is rewarded."""
    return {key: value for key, value in message.items() if key != "reasoning_content"}


def _mapped(message: Message, special: re.Pattern[str]) -> Message:
    content = message.get("content")
    return {**message, "content": plain(content, special)} if isinstance(content, str) else message


def _check_labels(config: RewardModel, settings: Any) -> None:
    """Raises ModelError where the config asks for a label that there is not, or for none of several."""
    labels = settings.num_labels
    if config.label is None and labels != 1:
        raise ModelError(
            f"the reward model has {labels} labels", value=settings.id2label, remedy="Say which with `label`"
        )
    if config.label is not None and (labels == 1 or config.label >= labels):
        raise ModelError(
            f"the reward model has no label {config.label}, whose probability could be taken",
            value=settings.id2label,
            remedy="Leave out `label`" if labels == 1 else f"Give one below {labels}",
        )


def _longest(config: RewardModel, loaded: _Loaded) -> int:
    """The most tokens that are read."""
    limits = [
        config.max_length,
        getattr(loaded.model.config.get_text_config(), "max_position_embeddings", None),
        loaded.tokenizer.model_max_length,
    ]
    return min(int(limit) for limit in limits if limit and limit > 0)


def _padded(values: Sequence[int], width: int, fill: int) -> list[int]:
    return [*values, *[fill] * (width - len(values))]
