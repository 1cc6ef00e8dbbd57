"""How an answer is scored: 1 is right, 0 is wrong, and anything between is partly right. Change it as you like.

`grade` is called for every answer, in evaluation (and in an RFT stage, where there is one). It has OpenAI's signature:
`sample["output_text"]` is what the model said, `item` is the row, so `item["answer"]` is the right label.
"""

from typing import Any


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """1 where the answer is the row's label and nothing else; case, white space and a full stop do not count."""
    return float(plain(sample["output_text"]) == plain(item["answer"]))


def plain(text: str) -> str:
    """The text without case, quotes, full stop and spare white space."""
    return " ".join(text.casefold().split()).strip(" .\"'")
