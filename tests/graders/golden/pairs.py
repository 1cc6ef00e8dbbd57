"""Pairs of texts, and what the libraries themselves say of them: called here as anybody would, not through our code."""

from __future__ import annotations

import sacrebleu
from nltk.translate.gleu_score import sentence_gleu  # type: ignore[import-untyped]
from nltk.translate.meteor_score import single_meteor_score  # type: ignore[import-untyped]
from rapidfuzz import fuzz, utils
from rouge_score.rouge_scorer import RougeScorer  # type: ignore[import-untyped]
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

LONG = "A heap of tales is told of the sea, and each of them, they say, is older than the ship that brought it here. "
OTHER = "Many tales are told about the sea; they say that each one is older than the ships which brought them here. "

PAIRS: dict[str, tuple[str, str]] = {
    "identical": ("The cat sat on the mat.", "The cat sat on the mat."),
    "empty": ("", "The cat sat on the mat."),
    "white space": (" \n\t ", "The cat sat on the mat."),
    "one word": ("Paris", "Paris"),
    "another word": ("London", "Paris"),
    "shuffled": ("mat the on sat cat the", "the cat sat on the mat"),
    "contained": ("I think that the capital of France is Paris, of course.", "Paris"),
    "case and punctuation": ("THE CAT -- SAT ON THE MAT!!!", "the cat sat on the mat"),
    "stems": ("The cats were sitting on mats", "The cat sits on a mat"),
    "repeated": ("the the the the the the the", "the cat is on the mat"),
    "unicode": ("Zoë’s naïve café – 25 €", "Zoe's naive café - 25 €"),
    "emoji": ("great 👍🏽 work", "great work 👍🏽"),
    "numbers": ("It costs 1,234.50 dollars", "It costs 1234.5 dollars"),
    "markup": ("<b>Paris</b> &amp; Rome", "Paris & Rome"),
    "long": (OTHER * 20, LONG * 20),
    "long against short": (LONG * 40, "the sea"),
    "lines": ("first line\nsecond line\n", "first line second line"),
}
"""Completion and reference, each reference with a word that every metric reads."""


class NoSynonyms:
    """What NLTK's WordNet says where it knows no word."""

    def synsets(self, word: str) -> list[str]:
        return []


def said(text: str, reference: str) -> dict[str, float]:
    """Each metric's score by its library."""
    tokens = Tokenizer13a()  # type: ignore[no-untyped-call]
    left, right = (tokens(side).split() for side in (text, reference))
    kinds = [f"rouge{kind}" for kind in "12345L"]
    rouge = RougeScorer(kinds, use_stemmer=False).score(reference, text)
    return {
        "fuzzy_match": fuzz.WRatio(text, reference, processor=utils.default_process) / 100,
        "bleu": sacrebleu.sentence_bleu(text, [reference]).score / 100,
        "gleu": sentence_gleu([right], left),
        "meteor": single_meteor_score(right, left, wordnet=NoSynonyms()),
        **{f"rouge_{kind[5:].lower()}": rouge[kind].fmeasure for kind in kinds},
    }
