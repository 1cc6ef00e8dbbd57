"""Write the rows of this example, the same at every call:

    sft.jsonl         old replies of a shop to its customers, as they were sent: most break a rule of the house
    pairs.jsonl       two replies to a message, of which an editor kept the first
    validation.jsonl  such pairs with names, products and troubles that no training has
    test.jsonl        messages alone, likewise

python examples/dpo/make.py
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
COUNTS = {"sft": 96, "pairs": 192, "validation": 48, "test": 100}


class Words(NamedTuple):
    """What messages and replies are put together from."""

    names: tuple[str, ...]
    products: tuple[str, ...]
    troubles: tuple[tuple[str, str], ...]
    """(what the customer writes, what the shop does)"""
    faults: tuple[tuple[str, str], ...]
    """(where it stands, a wording): `opening` gushes, `closing` promises a day or blames the customer."""


NEW, BACK, SWAP = "We will send you a new one.", "We will refund the price.", "We will exchange it for the right one."
TRAINED = Words(
    tuple("Ida Noah Mia Omar Lena Hugo Priya Jonas Aiko Carla Felix Rosa Emil Nadia Bruno Tess Ravi Greta".split()),
    tuple("mirror,lamp,kettle,rug,clock,toaster,vase,stool,blanket,radio,mug,fan,basket,pan,pillow".split(",")),
    (
        ("arrived broken", NEW),
        ("came with a crack in it", NEW),
        ("stopped working after two days", BACK),
        ("has fallen apart", BACK),
        ("is the wrong colour", SWAP),
        ("is not the size I ordered", SWAP),
    ),
    (
        ("opening", "oh no, we are so very sorry about your {product}!"),
        ("opening", "how awful, we are terribly sorry about your {product}!"),
        ("opening", "wow, we cannot believe what happened to your {product}!"),
        ("closing", "You will have it by tomorrow."),
        ("closing", "We promise that it takes two days."),
        ("closing", "Please handle it with more care next time."),
        ("closing", "You may have used it wrongly."),
    ),
)
HELD_OUT = Words(
    tuple("Otto Leila Stella Viktor Wanda Yusuf Clara Dario".split()),
    tuple("teapot,chair,curtain,bowl,shelf,torch,scale".split(",")),
    (
        ("was in pieces when I opened the box", NEW),
        ("does not switch on any more", BACK),
        ("is green, and I wanted blue", SWAP),
    ),
    TRAINED.faults,
)
ASKED = (
    "My {product} {trouble}. What now?",
    "I am {name}. The {product} {trouble}.",
    "Hello, the {product} {trouble}. {name}",
)


class Case(NamedTuple):
    """A customer's message, and what a reply to it is made of."""

    message: str
    name: str
    product: str
    remedy: str

    def reply(self, *faults: tuple[str, str]) -> str:
        """A reply with these faults; without any it keeps the rules of the house."""
        told = {where: words.format(product=self.product) for where, words in faults}
        opening = told.get("opening", f"we are sorry about your {self.product}.")
        parts = [f"Hello {self.name}, {opening}", self.remedy, told.get("closing", "")]
        return " ".join(part for part in parts if part)


def cases(words: Words, count: int, draw: random.Random, taken: set[str]) -> list[Case]:
    """So many messages that are not `taken`."""
    found: list[Case] = []
    while len(found) < count:
        name, product = draw.choice(words.names), draw.choice(words.products)
        trouble, remedy = draw.choice(words.troubles)
        wording = draw.choice(ASKED)
        message = wording.format(name=name, product=product, trouble=trouble)
        if "{name}" not in wording:
            message += f" {name}"
        if message not in taken:
            taken.add(message)
            found.append(Case(message, name, product, remedy))
    return found


def faults_of(words: Words, draw: random.Random, opening: float, closing: float) -> list[tuple[str, str]]:
    """Faults drawn at these rates, at most one at each place."""
    rates = {"opening": opening, "closing": closing}
    return [
        draw.choice([fault for fault in words.faults if fault[0] == where])
        for where, rate in rates.items()
        if draw.random() < rate
    ]


def pair(case: Case, words: Words, draw: random.Random) -> dict[str, str]:
    """A reply that keeps the rules, and one that does not."""
    faults: list[tuple[str, str]] = []
    while not faults:
        faults = faults_of(words, draw, 0.5, 0.5)
    return {"prompt": case.message, "chosen": case.reply(), "rejected": case.reply(*faults)}


def rows(seed: int = 1) -> dict[str, list[dict[str, str]]]:
    """The rows by the name of their file."""
    draw, taken = random.Random(seed), set[str]()
    made = {
        part: cases(TRAINED if part in ("sft", "pairs") else HELD_OUT, count, draw, taken)
        for part, count in COUNTS.items()
    }
    return {
        "sft": [
            {"prompt": case.message, "completion": case.reply(*faults_of(TRAINED, draw, 0.65, 0.65))}
            for case in made["sft"]
        ],
        "pairs": [pair(case, TRAINED, draw) for case in made["pairs"]],
        "validation": [pair(case, HELD_OUT, draw) for case in made["validation"]],
        "test": [
            {"prompt": case.message, "name": case.name, "product": case.product, "remedy": case.remedy}
            for case in made["test"]
        ],
    }


if __name__ == "__main__":
    for part, made in rows().items():
        path = HERE / f"{part}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in made), "utf-8")
        print(f"{path}: {len(made)} rows")
