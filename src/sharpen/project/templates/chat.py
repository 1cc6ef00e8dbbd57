"""How an answer is scored: 1 is good, 0 is bad, and anything between is partly good. Change it as you like.

`grade` is called for every answer in evaluation. It has OpenAI's signature: `sample["output_text"]` is what the model
said, `item` is the row, so `item["answer"]` is the answer that the row has.

These rules are a beginning: they count words, and know nothing of meaning. Add what your answers must have (a
greeting, a link, a word that is forbidden). A model can judge them too: `type: score_model` in the recipe.
"""

import re
from typing import Any

ENOUGH = 0.5
"""The share of the row's longer words that a good answer has."""

LONGEST = 1.5
"""A good answer has at most so many times the words of the row's, and 10 more."""


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """1 where the answer is as brief as the row's and has enough of its longer words; with fewer words it is less."""
    said, wanted = words(sample["output_text"]), words(item["answer"])
    if not wanted:  # such as a smile
        return float(sample["output_text"].strip() == item["answer"].strip())
    if not said or len(said) > LONGEST * len(wanted) + 10:
        return 0.0
    telling = {word for word in wanted if len(word) >= 5} or set(wanted)
    return min(1.0, len(telling.intersection(said)) / len(telling) / ENOUGH)


def words(text: str) -> list[str]:
    """The words of a text, without case."""
    return re.findall(r"\w+", text.casefold())
