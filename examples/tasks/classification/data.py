"""Messages of a shop's customers, to be sorted into six kinds.

A third of the messages speak of another matter first, in passing ("The delivery was quick, but ..."), so that single
words do not tell the kind. Core sentences, products and names of held-out messages occur in no trained one.
"""

from __future__ import annotations

import random
from typing import Any

COUNTS = {"sft": 48, "rft": 120, "validation": 16, "test": 150}

KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "billing": (
        (
            "I was charged twice for the {product}",
            "my card was billed the wrong amount",
            "the invoice shows a price I never agreed to",
            "you took the money for the {product} two times",
            "there is a fee on my bill that I do not know",
            "the discount is missing from my invoice",
        ),
        (
            "my card was charged three times",
            "the bill for the {product} shows the wrong price",
            "you billed me for a {product} that I did not buy",
            "there is a wrong amount on my bill",
        ),
    ),
    "delivery": (
        (
            "my {product} has not arrived yet",
            "the parcel is a week late",
            "when will the {product} be delivered",
            "the courier left my parcel in the rain",
            "tracking has not moved for days",
            "the parcel went to the wrong address",
        ),
        (
            "the courier never came with my {product}",
            "my parcel has still not arrived",
            "the {product} should have been here last week",
            "is my parcel lost",
        ),
    ),
    "returns": (
        (
            "I want to send the {product} back",
            "how do I return the {product}",
            "please take the {product} back, I do not need it",
            "I would like to exchange the {product} for another size",
            "where is the label for my return",
            "the {product} does not suit me and goes back to you",
        ),
        (
            "how can I send back this {product}",
            "I would like to exchange it for a smaller one",
            "the {product} was a gift that I do not want, may it go back",
            "I need a label to return the {product}",
        ),
    ),
    "account": (
        (
            "I cannot log in",
            "I forgot my password",
            "please change the e-mail address of my account",
            "the site says that my account is locked",
            "how do I delete my account",
            "the code for logging in never comes",
        ),
        (
            "my password is not accepted",
            "please unlock my account",
            "I have a new e-mail address, where do I change it",
            "I cannot get into my account",
        ),
    ),
    "fault": (
        (
            "the {product} does not switch on",
            "the {product} broke after one day",
            "the {product} makes a strange noise",
            "my {product} has a crack",
            "the {product} stops after a minute",
            "a part of the {product} fell off",
        ),
        (
            "the {product} does not start any more",
            "there is a crack in the {product}",
            "the {product} smells of smoke",
            "the handle of the {product} broke",
        ),
    ),
    "praise": (
        (
            "I love my new {product}",
            "the {product} works perfectly",
            "your team was so kind to me",
            "best shop I know",
            "thank you for the wonderful {product}",
            "the {product} is even better than I hoped",
        ),
        (
            "thank you, I am so happy with the {product}",
            "the {product} is simply wonderful",
            "the kind lady on the phone helped me at once",
            "I would buy the {product} again any time",
        ),
    ),
}
"""Kind: trained and held-out core sentences."""

PASSING = {
    "billing": "the price was fair",
    "delivery": "the delivery was quick",
    "returns": "your rules for returns are clear",
    "account": "logging in was easy",
    "fault": "nothing else is broken",
    "praise": "I usually love your shop",
}
"""Of another kind, and no reason to write."""

TRAINED_PRODUCTS = ("kettle", "lamp", "toaster", "radio", "blender", "fan", "heater", "clock", "mixer", "scale", "iron")
HELD_OUT_PRODUCTS = ("drill", "printer", "camera", "shaver", "speaker")
TRAINED_NAMES = ("Ann", "Ben", "Carla", "Dan", "Eve", "Finn", "Gina", "Hugo", "Ida", "Jon")
HELD_OUT_NAMES = ("Kira", "Leo", "Mia", "Nils")
OPENINGS = ("Hello, ", "Hi there, ", "Good morning, ", "Dear team, ", "")
CLOSINGS = (" Regards, {name}", " Thanks, {name}", " {name}", " Yours, {name}")


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One message and its kind."""
    kind = draw.choice(tuple(KINDS))
    core = draw.choice(KINDS[kind][held_out])
    if draw.random() < 1 / 3:
        other = draw.choice([other for other in KINDS if other != kind])
        core = f"{PASSING[other]}, but {core}"
    opening = draw.choice(OPENINGS)
    text = core if opening else core[0].upper() + core[1:]
    message = (opening + text + "." + draw.choice(CLOSINGS)).format(
        product=draw.choice(HELD_OUT_PRODUCTS if held_out else TRAINED_PRODUCTS),
        name=draw.choice(HELD_OUT_NAMES if held_out else TRAINED_NAMES),
    )
    return {
        "prompt": f"Sort this message: {', '.join(KINDS)}.\nMessage: {message}",
        "completion": kind,
        "answer": kind,
    }
