"""A customer complains; the reply follows the house style of an invented shop.

The prompt states the rules of style. Which remedy belongs to which trouble is not told: it is learned from the replies.
Names, products and the wordings of the trouble are others in held-out messages.
"""

from __future__ import annotations

import random
from typing import Any, NamedTuple

COUNTS = {"sft": 40, "rft": 64, "validation": 16, "test": 90}

PROMPT = """Answer in our house style: greet by name, say sorry, name the product, offer one remedy, close with \
"Kind regards, Oak & Co". At most 35 words.
Customer: {message}"""


class Trouble(NamedTuple):
    """What may be wrong, and what the house does then."""

    said: tuple[str, ...]
    held_out: tuple[str, ...]
    told_back: str
    remedy: str


TROUBLES = {
    "replace": Trouble(
        ("my {product} arrived broken", "the {product} has a crack", "the {product} does not work"),
        ("the {product} came in pieces", "my {product} is damaged", "the {product} broke at once"),
        "is broken",
        "We will send you a new one today.",
    ),
    "refund": Trouble(
        ("my {product} came two weeks late", "the {product} is still not here", "I waited a month for my {product}"),
        ("the {product} took weeks to come", "my {product} was very late", "I waited too long for the {product}"),
        "came so late",
        "We will refund the postage today.",
    ),
    "exchange": Trouble(
        ("you sent a {product} of the wrong colour", "the {product} is too small", "this is not the {product} I chose"),
        ("the {product} has the wrong size", "I got the wrong {product}", "I ordered another {product} than this"),
        "is the wrong one",
        "We will exchange it free of charge.",
    ),
}
"""Keyed by the word of the remedy that the grader looks for."""

TRAINED_NAMES = (
    "Ann",
    "Ben",
    "Carla",
    "Dan",
    "Eve",
    "Finn",
    "Gina",
    "Hugo",
    "Ida",
    "Jon",
    "Lena",
    "Max",
    "Nora",
    "Otto",
)
HELD_OUT_NAMES = ("Kira", "Leo", "Mia", "Paul", "Rosa", "Sam")
TRAINED_PRODUCTS = ("kettle", "lamp", "chair", "radio", "blender", "mirror", "heater", "clock", "mixer", "shelf", "rug")
HELD_OUT_PRODUCTS = ("table", "toaster", "camera", "basket", "speaker")
OPENINGS = (
    "{name} here: {trouble}.",
    "I am {name} and {trouble}.",
    "{Trouble}! {name}",
    "Hi, {trouble}. Yours, {name}",
)


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One message, with a reply that has all the style asks for."""
    remedy = draw.choice(tuple(TROUBLES))
    trouble = TROUBLES[remedy]
    name = draw.choice(HELD_OUT_NAMES if held_out else TRAINED_NAMES)
    product = draw.choice(HELD_OUT_PRODUCTS if held_out else TRAINED_PRODUCTS)
    said = draw.choice(trouble.held_out if held_out else trouble.said).format(product=product)
    days = draw.choice(
        ("", " I ordered on Monday.", " I ordered in May.", " It is for my mother.", " I am not pleased.")
    )
    message = draw.choice(OPENINGS).format(name=name, trouble=said, Trouble=said[0].upper() + said[1:]) + days
    return {
        "prompt": PROMPT.format(message=message),
        "completion": f"Hello {name}, we are sorry that your {product} {trouble.told_back}. {trouble.remedy} "
        "Kind regards, Oak & Co",
        "name": name,
        "product": product,
        "remedy": remedy,
    }
