"""Likely personal data and secrets in a text, by their form and, where they have one, their checksum.

What is found is likely, not certain, and what has no form (names, addresses) is not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from sharpen.data.read import Record


class Finding(NamedTuple):
    """Something private: what it is, the field it stands in, and its first signs (never the whole)."""

    kind: str
    field: str
    masked: str


class Hit(NamedTuple):
    """Something private in a text, and where it begins and ends."""

    start: int
    end: int
    kind: str


class Detector(NamedTuple):
    """A form to look for; `valid` says whether a match is really one.

    Only texts with one of the `signs` can hold a match: most texts are passed over without a search.
    """

    kind: str
    signs: tuple[str, ...]
    form: re.Pattern[str]
    valid: Callable[[str], bool]


def scan(record: Record) -> Iterator[Finding]:
    """What is private in the texts of a row, whatever its shape."""
    stack: list[tuple[str, object]] = [("", record)]
    while stack:
        field, value = stack.pop()
        match value:
            case dict():
                inner = [(f"{field}.{key}" if field else key, entry) for key, entry in value.items()]
                stack.extend(reversed(inner))
            case list():
                stack.extend(reversed([(f"{field}.{index}", entry) for index, entry in enumerate(value)]))
            case str():
                yield from (Finding(hit.kind, field, _mask(value[hit.start : hit.end])) for hit in find(value))


def find(text: str) -> list[Hit]:
    """Everything private in a text, in order; what two detectors claim is the first's."""
    hits: list[Hit] = []
    for kind, signs, form, valid in DETECTORS:
        if not any(sign in text for sign in signs):
            continue
        for match in form.finditer(text):
            start, end = match.span()
            if valid(match[0]) and all(end <= hit.start or start >= hit.end for hit in hits):
                hits.append(Hit(start, end, kind))
    return sorted(hits)


def masked(text: str) -> str:
    """The text with everything private in it masked."""
    for hit in reversed(find(text)):
        text = text[: hit.start] + _mask(text[hit.start : hit.end]) + text[hit.end :]
    return text


def _mask(value: str) -> str:
    return value[:2] + "…"


def _luhn(text: str) -> bool:
    """Whether the digits are a card's: a known length for their first digit, and Luhn's sum (ISO/IEC 7812-1)."""
    digits = [int(sign) for sign in text if sign.isdigit()]
    lengths = {2: (16,), 3: (14, 15, 16), 4: (13, 16, 19), 5: (16,), 6: (16, 17, 18, 19)}
    if len(digits) not in lengths.get(digits[0], ()) or len(set(digits)) == 1:
        return False
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _iban(text: str) -> bool:
    """ISO 13616: moved to the end, the country and check digits make the number 1 modulo 97."""
    plain = text.replace(" ", "")
    return 15 <= len(plain) <= 34 and int("".join(str(int(sign, 36)) for sign in plain[4:] + plain[:4])) % 97 == 1


def _public_ip(text: str) -> bool:
    """An address of the open internet: a private or reserved one points to nobody."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return address.is_global and (address.version == 4 or int(address) >> 125 == 1)  # 2000::/3 is what is given out


def _always(text: str) -> bool:
    return True


_KEYS = (
    r"sk-[A-Za-z0-9_-]{20,200}"  # OpenAI, Anthropic
    r"|(?:AKIA|ASIA)[0-9A-Z]{16}"  # Amazon
    r"|gh[pousr]_[A-Za-z0-9]{36,251}|github_pat_[A-Za-z0-9_]{22,255}|glpat-[A-Za-z0-9_-]{20,50}"
    r"|xox[abprs]-[A-Za-z0-9-]{10,250}|AIza[A-Za-z0-9_-]{35}|hf_[A-Za-z0-9]{34}|[sr]k_live_[A-Za-z0-9]{16,250}"
)

_PREFIXES = ("sk-", "AKIA", "ASIA", "gh", "glpat-", "xox", "AIza", "hf_", "k_live_")

DETECTORS = (
    Detector(
        "private key",
        ("PRIVATE KEY",),
        re.compile(r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"),
        _always,
    ),
    Detector(
        "JSON web token",
        (".eyJ",),
        re.compile(r"(?<![\w-])eyJ[A-Za-z0-9_-]{8,4096}\.eyJ[A-Za-z0-9_-]{8,4096}\.[A-Za-z0-9_-]{8,4096}"),
        _always,
    ),
    Detector("API key", _PREFIXES, re.compile(rf"(?<![A-Za-z0-9_-])(?:{_KEYS})"), _always),
    Detector(
        "e-mail address",
        ("@",),
        re.compile(r"(?<![\w.%+-])[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-])"),
        _always,
    ),
    Detector(
        "IBAN",
        tuple("0123456789"),
        re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"),
        _iban,
    ),
    Detector(
        "credit card number", tuple("23456"), re.compile(r"(?<![\w.+-])[2-6](?:[ -]?\d){12,18}(?![\w-]|\.\d)"), _luhn
    ),
    Detector("IP address", (".",), re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\w)"), _public_ip),
    Detector(
        "IP address", (":",), re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])"), _public_ip
    ),
    Detector(
        "phone number",
        ("+", "(", "-", "."),
        re.compile(
            r"(?<![\w.+-])(?:\+\d(?:[ .()-]{0,2}\d){9,14}"  # E.164: at most 15 digits
            r"|(?:\(\d{3}\) ?|\d{3}[-.])\d{3}[-.]\d{4})(?![\w-]|\.\d)"
        ),
        _always,
    ),
)
"""Most telling first."""
