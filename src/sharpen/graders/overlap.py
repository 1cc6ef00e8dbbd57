"""`text_similarity` by the n-grams, stems and sequences that two texts share: GLEU, METEOR, ROUGE.

GLEU (arXiv:1609.08144) and METEOR are NLTK's, over the words that BLEU reads too. METEOR matches words and stems, but
no synonyms: those are in WordNet, which does not come with NLTK, and a score must not depend on whether a machine has
it. ROUGE is rouge-score's F-measure without stemming, which reads the letters a to z and digits.
"""

from __future__ import annotations

from functools import partial

from nltk.translate.gleu_score import sentence_gleu  # type: ignore[import-untyped]
from nltk.translate.meteor_score import single_meteor_score  # type: ignore[import-untyped]
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
from rouge_score.tokenizers import DefaultTokenizer  # type: ignore[import-untyped]

from sharpen.config.graders import TextSimilarity
from sharpen.graders.similarity import Metric, TextSimilarityGrader, words


class _NoSynonyms:
    """In the place of NLTK's WordNet."""

    def synsets(self, word: str) -> list[str]:
        return []


_ROUGE_WORDS = DefaultTokenizer()


def _gleu(text: str, reference: str) -> float:
    return float(sentence_gleu([words(reference)], words(text)))


def _meteor(text: str, reference: str) -> float:
    return float(single_meteor_score(words(reference), words(text), wordnet=_NoSynonyms()))


def _rouge(kind: str, text: str, reference: str) -> float:
    return float(RougeScorer([kind], tokenizer=_ROUGE_WORDS).score(reference, text)[kind].fmeasure)


METRICS = {
    "gleu": Metric(words, _gleu),
    "meteor": Metric(words, _meteor, " (without synonyms)"),
    **{
        f"rouge_{kind.lower()}": Metric(_ROUGE_WORDS.tokenize, partial(_rouge, f"rouge{kind}"), " (F-measure)")
        for kind in "12345L"
    },
}


def build(config: TextSimilarity) -> TextSimilarityGrader:
    """The grader of a metric that stands here."""
    return TextSimilarityGrader(config, METRICS[config.evaluation_metric])
