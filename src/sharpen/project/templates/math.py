"""How an answer is scored: 1 is right, 0 is wrong, and anything between is partly right. Change it as you like.

`grade` is called for every answer, in evaluation and in an RFT stage. It has OpenAI's signature:
`sample["output_text"]` is what the model said, `item` is the row, so `item["answer"]` holds the right number.
"""

import re
from fractions import Fraction
from typing import Any

NUMBER = re.compile(r"(?:(?<!\d)-)?(?:\d[\d,]*(?:\.\d+)?|(?<![\d.])\.\d+)")


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """1 where the last number of the answer equals the last number of the row's."""
    said, wanted = last_number(sample["output_text"]), last_number(item["answer"])
    return float(said is not None and said == wanted)


def last_number(text: str) -> Fraction | None:
    """The last number of a text, such as -7, 1,234 or 0.50; None where there is none."""
    found = NUMBER.findall(text)
    return Fraction(found[-1].replace(",", "")) if found and len(found[-1]) <= 100 else None
