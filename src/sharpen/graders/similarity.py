"""`text_similarity`: how near two texts are, each metric by the library that the field uses for it.

Here are `fuzzy_match` and BLEU; `overlap` has those whose libraries take seconds to import, `embedding` has `cosine`.
`fuzzy_match` is rapidfuzz's WRatio, as in OpenAI's own example (https://developers.openai.com/api/docs/guides/graders):
without case and punctuation, and lenient towards words in another order or beside others. BLEU is sacreBLEU's for
sentences.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from rapidfuzz import fuzz, utils
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from sharpen.config.graders import TextSimilarity
from sharpen.graders.base import grader_fault, passed
from sharpen.graders.template import InvalidVariable, render
from sharpen.types import Example, Grade, Sample


class Metric(NamedTuple):
    """How two texts are compared."""

    reads: Callable[[str], str | Sequence[str]]
    """What it sees of a text; nothing, where the text has no word of the kind that it knows."""

    score: Callable[[str, str], float]
    """The score of a text by a reference."""

    said: str = ""
    """What is to be said of the score."""


class TextSimilarityGrader:
    """A metric's score, from 0 to 1."""

    def __init__(self, config: TextSimilarity, metric: Metric) -> None:
        self._config = config
        self._metric = metric

    async def grade(self, example: Example, sample: Sample) -> Grade:
        """Compare the rendered input with the rendered reference."""
        name = self._config.evaluation_metric
        try:
            text = render(self._config.input, example, sample)
            reference = render(self._config.reference, example, sample)
        except InvalidVariable as error:
            return error.grade()
        if not self._metric.reads(reference):  # every completion would score 0
            detail = f"the reference has no word that {name} reads: {reference!r:.200}"
            return grader_fault("invalid_variable_error", detail)
        score = min(max(self._metric.score(text, reference), 0.0), 1.0)  # rounding may leave 1.0000000000000004
        said = f"{score:.4g}, {name}{self._metric.said} of {text!r:.200} by {reference!r:.200}"
        return passed(Grade(score, explanation=said), self._config.pass_threshold)


_WORDS = Tokenizer13a()  # type: ignore[no-untyped-call]
_BLEU = BLEU(effective_order=True)  # as `sacrebleu.sentence_bleu` has it: a short text has no 4-grams to lack


def words(text: str) -> list[str]:
    """The words and signs of a text, as BLEU reads it (mteval-13a)."""
    _forget()
    return str(_WORDS(text)).split()


def _forget() -> None:
    """sacreBLEU remembers 65,536 texts, which here never come again."""
    for tokenizer in (_WORDS, _WORDS._post_tokenizer):
        type(tokenizer).__call__.cache_clear()


def _fuzzy(text: str, reference: str) -> float:
    return fuzz.WRatio(text, reference, processor=utils.default_process) / 100


def _bleu(text: str, reference: str) -> float:
    _forget()
    return _BLEU.sentence_score(text, [reference]).score / 100


METRICS = {"fuzzy_match": Metric(utils.default_process, _fuzzy), "bleu": Metric(words, _bleu)}


def build(config: TextSimilarity) -> TextSimilarityGrader:
    """The grader of a metric that stands here."""
    return TextSimilarityGrader(config, METRICS[config.evaluation_metric])
