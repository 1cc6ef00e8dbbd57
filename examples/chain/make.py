"""Write pairs.jsonl: to each question the name that is right, and another of the text's names.

python examples/chain/make.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import reasoning_gym

FIRST, COUNT = 3000, 240
"""Indices that no other part of the recipe draws from."""


def pairs() -> list[dict[str, str]]:
    """The same rows at every call."""
    found = []
    for index in range(FIRST, FIRST + COUNT):
        made = reasoning_gym.create_dataset(
            "needle_haystack", size=1, seed=index, min_num_statements=3, max_num_statements=6
        )
        question, answer = made[0]["question"], made[0]["answer"]
        names = [sentence.split()[0] for sentence in question.splitlines()[0].split(". ") if sentence.strip()]
        others = sorted({name for name in names if name and name != answer and not answer.startswith(name)})
        if others:
            found.append({"prompt": question, "chosen": answer, "rejected": random.Random(index).choice(others)})
    return found


if __name__ == "__main__":
    rows = pairs()
    path = Path(__file__).with_name("pairs.jsonl")
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    print(f"{path}: {len(rows)} pairs")
