"""Rows made by us, so that a project without data runs at once; each set is drawn anew from the same seed.

They are put together from parts, and show that everything works. What a model learns from them serves nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any

ROWS = 200
"""Rows of an example, less those that were drawn twice."""

Example = dict[str, Any]

_NAMES = (
    "Ana Ben Chloe David Elena Farid Grace Hugo Ines Jonas Kavya Liam Mei Noah Olga Pablo Rosa Sven Tara Yusuf".split()
)
_CITIES = "Oslo Porto Lyon Graz Turin Bergen Leeds Ghent Malmo Basel Cork Riga Vigo Bonn Split".split()
_ITEMS = "green tea,olive oil,rye bread,soap,honey,candles,blue pens,wool socks,paper bags,desk lamps".split(",")
_DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday".split()


def rows(task: str) -> list[Example]:
    """The example of a task: `prompt`, `completion`, and for code `tests`; no prompt occurs twice."""
    draw = Random(f"sharpen init {task}")
    drawn = [_MAKERS[task](draw) for _ in range(ROWS)]
    return list({row["prompt"]: row for row in drawn}.values())


_TICKETS = {
    "billing": (
        "I was charged twice for {item}",
        "the invoice for {item} shows the wrong amount",
        "my card was declined when I paid for {item}",
        "please explain the extra fee of {number} euros on my bill",
        "I need a receipt for the {number} euros I paid on {day}",
        "can I pay for {item} in instalments",
        "the discount of {number} percent is missing from my invoice",
    ),
    "delivery": (
        "my {item} should have arrived on {day}",
        "the courier left {item} at the wrong house in {city}",
        "where is my parcel with {item}",
        "can you deliver {item} to {city} by {day}",
        "the tracking number has not moved since {day}",
        "how long does a parcel to {city} take",
        "nobody rang the bell, and the driver took {item} back to the depot",
    ),
    "returns": (
        "the {item} I got are damaged and I want to send them back",
        "how do I return {item} that I do not like",
        "I ordered {item} and got the wrong colour, please exchange them",
        "until when can I send back what I bought on {day}",
        "I posted the broken {item} back on {day} and wait for my refund",
        "who pays the postage when I return {item}",
        "the box was open and {number} pieces of {item} are missing, I want my money back",
    ),
    "account": (
        "I cannot log in since {day}",
        "please change my e-mail address, I am {name} from {city}",
        "how do I reset my password",
        "please delete the profile of {name}",
        "the app says that my user name is taken",
        "I moved to {city}, where do I change my address",
        "the code for signing in never reaches my phone, I have tried {number} times",
    ),
    "product": (
        "are the {item} made in {city}",
        "do you have {item} in a larger size",
        "what are the {item} made of",
        "will {item} be in stock again by {day}",
        "which {item} do you recommend for a family of {number}",
        "how should I store the {item}",
        "is there a guarantee on {item}, and for how long",
    ),
}
_OPENINGS = ("", "Hello, ", "Hi there, ", "Good morning, ", "Sorry to bother you, ", "This is {name}. ", "Dear team, ")
_CLOSINGS = ("", ".", "!", ", thanks.", ". Please help.", ". Regards, {name}", ", can you look into it?")


def _classify(draw: Random) -> Example:
    label = draw.choice(list(_TICKETS))
    said = draw.choice(_OPENINGS) + draw.choice(_TICKETS[label]) + draw.choice(_CLOSINGS)
    return {"prompt": _filled(draw, said), "completion": label}


_ORDERS = (
    "{name} from {city} would like {number} boxes of {item} by {day}.",
    "Please send {number} packs of {item} to {name} in {city}. They are needed on {day}.",
    "On {day} we deliver to {city}: {item}, {number} pieces, for {name}.",
    "Order for {name}. {number} times {item}, to be in {city} on {day}.",
    "Hi, it's {name}. Could I have {number} of your {item} here in {city} before {day}?",
    "{day}, {city}. Customer: {name}. Goods: {item} ({number}).",
)


def _extract(draw: Random) -> Example:
    fields = _fields(draw)
    answer = {key: fields[key] for key in ("name", "city", "item", "day")} | {"quantity": int(fields["number"])}
    return {"prompt": draw.choice(_ORDERS).format(**fields), "completion": json.dumps(answer)}


_QUESTIONS = (
    ("When will my {item} reach {city}?", "Your {item} will reach {city} on {day}"),
    ("Do you sell {item}?", "Yes, we have {number} kinds of {item} in our shop"),
    ("Can I return {item}?", "Of course, you may return {item} within {number} days"),
    ("Is the shop in {city} open on {day}?", "Yes, our shop in {city} is open on {day} until {number}"),
    ("Who can tell me more about {item}?", "Please ask {name}, who knows everything about {item}"),
    ("Do you deliver {item} to {city}?", "Yes, we deliver {item} to {city} every {day}"),
)


def _chat(draw: Random) -> Example:
    fields = _fields(draw)
    question, answer = draw.choice(_QUESTIONS)
    asked = f"{draw.choice(('', 'Hello! ', 'Hi, I am ' + fields['name'] + '. '))}{question.format(**fields)}"
    return {"prompt": asked, "completion": f"{answer.format(**fields)}. Kind regards, your Corner Shop"}


def _math(draw: Random) -> Example:
    name, item = draw.choice(_NAMES), draw.choice(_ITEMS)
    many, few, third = draw.randint(10, 60), draw.randint(2, 9), draw.randint(2, 9)
    question, answer = draw.choice(
        (
            (f"{name} has {many} {item} and gets {few} more. How many are there now?", many + few),
            (f"{name} had {many} {item} and sold {few}. How many are left?", many - few),
            (f"{name} packs {few} boxes with {third} {item} each. How many {item} are that?", few * third),
            (f"A shop has {many} {item}. It sells {few}, then {third} arrive. How many are there?", many - few + third),
        )
    )
    return {"prompt": question, "completion": str(answer)}


def _code(draw: Random) -> Example:
    a, b = draw.randint(2, 60), draw.randint(2, 20)
    numbers, texts = (0, 1, -7, 100), ("", "ab", "abcde" * 15)
    lists: tuple[list[int], ...] = ([], [a, a + 1], [*range(70)])
    kinds: tuple[tuple[str, str, str, str, Callable[[Any], Any], tuple[Any, ...]], ...] = (
        (f"add_{a}", "x", f"adds {a} to the number x", f"x + {a}", lambda x: x + a, numbers),
        (f"times_{a}_plus_{b}", "x", f"multiplies x by {a}, adds {b}", f"x * {a} + {b}", lambda x: x * a + b, numbers),
        (f"squared_minus_{a}", "x", f"squares x and subtracts {a}", f"x * x - {a}", lambda x: x * x - a, numbers),
        (f"first_{a}", "text", f"gives the first {a} signs of text", f"text[:{a}]", lambda text: text[:a], texts),
        (f"last_{a}", "items", f"gives the last {a} elements of items", f"items[-{a}:]", lambda it: it[-a:], lists),
        (f"without_{a}", "items", f"removes {a} from the list items", f"[x for x in items if x != {a}]",
         lambda it: [x for x in it if x != a], lists),
    )  # fmt: skip
    name, given, task, result, function, inputs = draw.choice(kinds)
    return {
        "prompt": f"Write a Python function {name}({given}) that {task}.",
        "completion": f"def {name}({given}):\n    return {result}",
        "tests": [{"args": [value], "expected": function(value)} for value in inputs],
    }


def _fields(draw: Random) -> dict[str, str]:
    return {
        "name": draw.choice(_NAMES),
        "city": draw.choice(_CITIES),
        "item": draw.choice(_ITEMS),
        "day": draw.choice(_DAYS),
        "number": str(draw.randint(2, 40)),
    }


def _filled(draw: Random, text: str) -> str:
    filled = text.format(**_fields(draw))
    return filled[0].upper() + filled[1:]


_MAKERS: dict[str, Callable[[Random], Example]] = {
    "classify": _classify,
    "extract": _extract,
    "chat": _chat,
    "math": _math,
    "code": _code,
}
