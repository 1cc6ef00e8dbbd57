"""How an answer is scored: 1 is right, 0 is wrong, and anything between is partly right. Change it as you like.

`grade` is called for every answer, in evaluation and in an RFT stage. It has OpenAI's signature:
`sample["output_text"]` is what the model said, `item` is the row, so `item["answer"]` is the right JSON.
"""

import json
from typing import Any


def grade(sample: dict[str, Any], item: dict[str, Any]) -> float:
    """The share of fields that are right, of all that are wanted or given; 1 only where nothing is wrong."""
    said, wanted = read(sample["output_text"]), read(item["answer"])
    if not (isinstance(said, dict) and isinstance(wanted, dict) and wanted):
        return float(said is not None and said == wanted)
    names = {*said, *wanted}
    right = [name for name in names if name in said and name in wanted and same(said[name], wanted[name])]
    return len(right) / len(names)


def read(text: str) -> Any:
    """The value of a JSON text, which may stand in a ```json block; None where it is no JSON."""
    try:
        return json.loads(text.strip().removeprefix("```json").removesuffix("```"))
    except (ValueError, RecursionError):
        return None


def same(said: Any, wanted: Any) -> bool:
    """Whether two values are equal; in texts, case and spare white space do not count."""
    if isinstance(said, str) and isinstance(wanted, str):
        return said.casefold().split() == wanted.casefold().split()
    return bool(said == wanted) and isinstance(said, bool) == isinstance(wanted, bool)
