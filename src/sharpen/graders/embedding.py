"""`text_similarity` by `cosine`: how near two texts are to an encoder, which is held in this process.

A text's embedding is the mean of the encoder's last hidden states over all tokens, scaled to length 1, as
sentence-transformers' mean pooling has it. Each text is computed alone: its bits do not depend on its neighbours.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from sharpen.config.graders import TextSimilarity
from sharpen.errors import GraderError, ModelError
from sharpen.graders.base import grader_fault, passed
from sharpen.graders.template import InvalidVariable, render
from sharpen.models import folder
from sharpen.models.proof import brief
from sharpen.models.quiet import quiet
from sharpen.types import Example, Grade, Sample

UNSAID = 512
"""Tokens that an encoder reads where neither its tokenizer nor its configuration says how many."""


class CosineGrader:
    """The cosine of the two embeddings, from 0 (where it is less) to 1."""

    def __init__(self, config: TextSimilarity) -> None:
        self._config = config
        self._encoder: Encoder | None = None
        self._loading = asyncio.Lock()

    async def start(self) -> None:
        """Load the encoder. Raises GraderError."""
        await self._load()

    async def grade_many(self, pairs: Sequence[tuple[Example, Sample]]) -> list[Grade]:
        """Embed every different text once, and compare."""
        rendered = [self._render(*pair) for pair in pairs]
        encoder = await self._load()
        texts = {text for pair in rendered if not isinstance(pair, Grade) for text in pair}
        found = await asyncio.to_thread(lambda: {text: encoder.embed(text) for text in texts})
        threshold = self._config.pass_threshold
        return [
            pair if isinstance(pair, Grade) else passed(_compared(encoder, found[pair[0]], found[pair[1]]), threshold)
            for pair in rendered
        ]

    def close(self) -> None:
        """Let go of the encoder."""
        self._encoder = None

    def _render(self, example: Example, sample: Sample) -> tuple[str, str] | Grade:
        try:
            text = render(self._config.input, example, sample)
            reference = render(self._config.reference, example, sample)
        except InvalidVariable as error:
            return error.grade()
        if not reference.strip():
            return grader_fault("invalid_variable_error", "the reference is empty")
        return text, reference

    async def _load(self) -> Encoder:
        async with self._loading:
            if self._encoder is None:
                try:
                    self._encoder = await asyncio.to_thread(Encoder, self._config.embedding_model)
                except ModelError as error:
                    raise GraderError(
                        f"cosine's embedding_model: {error.fact}", value=error.value, remedy=error.remedy
                    ) from error
            return self._encoder


class Embedding(NamedTuple):
    """A text as an encoder sees it."""

    vector: torch.Tensor
    """(hidden,), of length 1, or of 0 where the text has no token."""

    cut: bool
    """Whether only the beginning of the text was read."""


class Encoder:
    """A model of transformers that turns a text into a vector."""

    def __init__(self, name: str) -> None:
        """Load it, and try it out. Raises ModelError where it cannot be found, trusted, read, or used so."""
        path = folder.trusted(name, report=lambda said: None)
        from transformers import AutoModel, AutoTokenizer  # takes seconds to import

        loader: Any = AutoModel  # its annotations leave out `output_loading_info`
        try:
            with quiet():
                self._tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
                model, info = loader.from_pretrained(
                    path, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, output_loading_info=True
                )
            self._model = model.eval()
            self.longest = _longest(self._tokenizer, model.config)
            self.embed("text")
        except Exception as error:  # a foreign boundary: safetensors, JSON, shapes, models that are no encoders
            raise ModelError(
                f"the encoder cannot be loaded or used: {brief(error)}",
                value=name,
                remedy="Use a text encoder that transformers' AutoModel reads, such as a BERT",
            ) from error
        missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)  # pooling is done here
        if missing:
            raise ModelError(
                "weights are missing from the encoder's files", value=missing[:3], remedy="Fetch the model again"
            )

    def embed(self, text: str) -> Embedding:
        """The text's embedding."""
        tokens = self._tokenizer(text, truncation=True, max_length=self.longest, return_tensors="pt")
        read = tokens["input_ids"].shape[1]
        if not read:
            return Embedding(torch.zeros(self._model.config.hidden_size), False)
        with torch.inference_mode():
            states = self._model(**tokens).last_hidden_state[0]  # (tokens, hidden)
        cut = len(self._tokenizer(text, verbose=False)["input_ids"]) > read
        return Embedding(torch.nn.functional.normalize(states.mean(0), dim=0), cut)


def _longest(tokenizer: Any, config: Any) -> int:
    """How many tokens an encoder reads; RoBERTa's first two positions are taken."""
    positions = getattr(config, "max_position_embeddings", UNSAID + 2)
    return int(min(tokenizer.model_max_length, positions - 2))


def _compared(encoder: Encoder, text: Embedding, reference: Embedding) -> Grade:
    cosine = float(text.vector @ reference.vector)
    cut = text.cut or reference.cut
    said = f" (only the first {encoder.longest} tokens were read)" if cut else ""
    return Grade(min(max(cosine, 0.0), 1.0), {"cut": float(cut)}, f"cosine {cosine:.4g}{said}")
