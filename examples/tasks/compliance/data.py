"""Does a short advertisement break one of four stated rules, and which? The rules have names, and "none" is a fifth.

Sentences that come near a rule without breaking it ("ask your doctor first") are among the harmless ones. Products and
the sentences that break rules are others in held-out texts.
"""

from __future__ import annotations

import random
from typing import Any

COUNTS = {"sft": 64, "rft": 96, "validation": 16, "test": 120}

RULES = """cure: no promise of a cure
profit: no promise of profit
contact: no phone number, no e-mail
rush: no hurry, as in "only today\""""

BREAKING: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "cure": (
        (
            "It cures back pain.",
            "It heals every cold in a day.",
            "Your headaches will be gone for good.",
            "It cures asthma without pills.",
            "It makes arthritis disappear.",
            "It heals all skin disease.",
        ),
        ("It cures every headache.", "It heals a bad back.", "Say goodbye to asthma.", "It takes all pain away."),
    ),
    "profit": (
        (
            "You will double your money.",
            "It pays 20% a year, guaranteed.",
            "Buyers earn a sure profit.",
            "You cannot lose money with it.",
            "It brings you a safe income.",
            "Your savings will grow tenfold.",
        ),
        (
            "A profit is guaranteed.",
            "You will earn twice your money.",
            "It makes every buyer rich.",
            "A sure income of 9% a year.",
        ),
    ),
    "contact": (
        (
            "Call 555-{four}.",
            "Write to sales{two}@shop.example.",
            "Phone us on 0800 {four}.",
            "Mail me: info{two}@store.example.",
            "Ring 020 {four} for more.",
            "Text 555-{four} now.",
        ),
        (
            "Ring us on 555-{four}.",
            "Mail us at hello{two}@firm.example.",
            "Our number is 0700 {four}.",
            "Questions? team{two}@mail.example.",
        ),
    ),
    "rush": (
        (
            "Only today!",
            "Buy now, tomorrow it is gone.",
            "Hurry, the last hours.",
            "This offer ends tonight.",
            "Order within the hour.",
            "Do not wait, only {two} left.",
        ),
        (
            "Hurry, it ends today.",
            "Buy within the hour.",
            "Tomorrow will be too late.",
            "The last {two} pieces, be quick.",
        ),
    ),
}
"""Rule: trained and held-out sentences that break it."""

HARMLESS = (
    "It comes in {two} colours.",
    "Made of oak and steel.",
    "It weighs {two} grams.",
    "Ask your doctor before you use it.",
    "It cures nothing, but it tastes good.",
    "Its price may rise or fall.",
    "We promise no profit.",
    "You find us on the market square.",
    "Write to us through our page.",
    "On sale all year.",
    "Take your time to choose.",
    "It has a guarantee of {two} months.",
    "Easy to clean.",
    "It was made in 19{two}.",
    "Good on cold mornings.",
    "Our shop opens at nine.",
)
TRAINED_PRODUCTS = ("tea", "soap", "pillow", "blanket", "honey", "candle", "cream", "mat", "lamp", "coin", "share plan")
HELD_OUT_PRODUCTS = ("juice", "balm", "cushion", "bracelet", "stamp set")


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One text of two to four sentences; each rule is broken, and none, equally often."""
    answer = draw.choice((*BREAKING, "none"))
    sentences = draw.sample(HARMLESS, draw.randint(1, 2) + (answer == "none"))
    if answer != "none":
        sentences.insert(draw.randint(0, len(sentences)), draw.choice(BREAKING[answer][held_out]))
    product = draw.choice(HELD_OUT_PRODUCTS if held_out else TRAINED_PRODUCTS)
    text = " ".join([f"Try our new {product}.", *sentences]).format(
        two=draw.randint(12, 98), four=draw.randint(1000, 9999)
    )
    return {
        "prompt": f"Which rule does the text break, or none?\n{RULES}\nText: {text}",
        "completion": answer,
        "answer": answer,
    }
