"""How near a text is to a reference."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from sharpen.config.graders.base import Place, SingleGrader, Template

Metric = Literal[
    "fuzzy_match",
    "bleu",
    "gleu",
    "meteor",
    "cosine",
    "rouge_1",
    "rouge_2",
    "rouge_3",
    "rouge_4",
    "rouge_5",
    "rouge_l",
]


class TextSimilarity(SingleGrader):
    """OpenAI's `text_similarity`: how near a text is to a reference, from 0 to 1, by one of several metrics."""

    type: Literal["text_similarity"] = "text_similarity"

    input: Template = "{{ sample.output_text }}"
    """What is graded."""

    reference: Template = "{{ item.answer }}"
    """What it is compared with; it must have a word that the metric reads."""

    evaluation_metric: Metric
    """`fuzzy_match` (rapidfuzz), `bleu` (sacreBLEU), `gleu`, `meteor` (NLTK, without synonyms), `rouge_1` to
    `rouge_5` and `rouge_l` (rouge-score, F-measure), `cosine` (of embeddings)."""

    pass_threshold: float | None = None
    """From which score on `metrics["passed"]` is 1."""

    embedding_model: str = ""
    """The encoder that `cosine` needs: a folder in transformers' format, or a hub id `org/name[@revision]`."""

    # Both depend on the metric: `cosine` holds a model, which a jail can neither read nor share.
    @property
    def runtime(self) -> str:  # type: ignore[override]
        """The code of the metric."""
        light = self.evaluation_metric in ("fuzzy_match", "bleu")
        if self.evaluation_metric == "cosine":
            return "sharpen.graders.embedding:CosineGrader"
        return "sharpen.graders.similarity:build" if light else "sharpen.graders.overlap:build"

    @property
    def place(self) -> Place:  # type: ignore[override]
        """`here` for `cosine`, else in a jail."""
        return "here" if self.evaluation_metric == "cosine" else "jail"

    @model_validator(mode="after")
    def _has_a_model_for_cosine_alone(self) -> Self:
        if self.evaluation_metric == "cosine" and not self.embedding_model:
            raise ValueError(
                "cosine needs an `embedding_model`, a folder or hub id of an encoder, such as "
                "sentence-transformers/all-MiniLM-L6-v2: OpenAI's own, text-embedding-3-large, is not to be had"
            )
        if self.embedding_model and self.evaluation_metric != "cosine":
            raise ValueError(f"only cosine takes an `embedding_model` (evaluation_metric is {self.evaluation_metric})")
        return self
