"""A short invoice, in one of four layouts, becomes JSON with four fields.

Sellers, goods and layouts' amounts of held-out invoices: the sellers and goods occur in no trained one.
"""

from __future__ import annotations

import json
import random
from typing import Any

COUNTS = {"sft": 48, "rft": 64, "validation": 16, "test": 90}

FIRST = ("Alder", "Birch", "Cedar", "Elm", "Hazel", "Maple", "Oak", "Pine", "Rowan", "Willow", "Ash", "Beech")
SECOND = ("Tools", "Paper", "Foods", "Garden", "Books", "Textiles", "Lighting", "Ceramics")
HELD_OUT_FIRST = ("Juniper", "Larch", "Poplar", "Spruce")
HELD_OUT_SECOND = ("Motors", "Optics", "Bakery", "Toys")
GOODS = ("hammer", "notebook", "lamp", "chair", "kettle", "rope", "brush", "vase", "shelf", "mug")
HELD_OUT_GOODS = ("wrench", "candle", "basket", "mirror")
LAYOUTS = (
    "INVOICE {number}\n{seller}\n{items}\nTotal: {total} {currency}\nDue: {due}",
    "{seller} - invoice no. {number}\n{items}\nPay {total} {currency} by {due}.",
    "From: {seller}\nDue date: {due}\nInvoice: {number}\n{items}\nAmount due: {currency} {total}",
    "No. {number}, due {due}\nSeller: {seller}\n{items}\nSum {total} {currency}",
)


def row(draw: random.Random, held_out: bool) -> dict[str, Any]:
    """One invoice of one or two lines, and its fields."""
    first = draw.choice(HELD_OUT_FIRST if held_out else FIRST)
    second = draw.choice(HELD_OUT_SECOND if held_out else SECOND)
    lines, cents = [], 0
    for goods in draw.sample(HELD_OUT_GOODS if held_out else GOODS, draw.randint(1, 2)):
        count, price = draw.randint(1, 9), draw.randint(4, 60) * 50
        lines.append(f"{count} {goods} {price / 100:.2f}")
        cents += count * price
    currency = draw.choice(("EUR", "USD", "GBP"))
    fields = {
        "number": draw.randint(1000, 9999),
        "seller": f"{first} {second}",
        "total": f"{cents / 100:.2f} {currency}",
        "due": f"2026-{draw.randint(1, 12):02}-{draw.randint(1, 28):02}",
    }
    text = draw.choice(LAYOUTS).format(
        items="\n".join(lines), **{**fields, "total": f"{cents / 100:.2f}", "currency": currency}
    )
    return {
        "prompt": f"Read this invoice as JSON: number, seller, total, due.\n{text}",
        "completion": json.dumps(fields),
        "answer": fields,
    }
