"""What is taken for personal data or a secret, and what is not."""

from __future__ import annotations

import pytest

from sharpen.data import private

KEY = "A1b2" * 12

PRIVATE = [
    ("e-mail address", "ada.l+x@mail.example.org"),
    ("phone number", "+49 30 901820-0"),
    ("phone number", "+1 (415) 555-2671"),
    ("phone number", "(415) 555-2671"),
    ("phone number", "415-555-2671"),
    ("IBAN", "GB82 WEST 1234 5698 7654 32"),  # the examples of the standards' own documents
    ("IBAN", "DE89370400440532013000"),
    ("credit card number", "4111 1111 1111 1111"),
    ("credit card number", "378282246310005"),
    ("credit card number", "5555-5555-5555-4444"),
    ("IP address", "8.8.8.8"),
    ("IP address", "2001:4860:4860::8888"),
    ("API key", f"sk-{KEY[:48]}"),
    ("API key", f"sk-proj-{KEY[:40]}"),
    ("API key", "AKIAIOSFODNN7EXAMPLE"),
    ("API key", f"ghp_{KEY[:36]}"),
    ("API key", f"hf_{'abcdefghijklmnopqrstuvwxyzABCDEFGH'}"),
    ("private key", "-----BEGIN RSA PRIVATE KEY-----"),
    ("private key", "-----BEGIN PRIVATE KEY-----"),
    ("private key", "-----BEGIN OPENSSH PRIVATE KEY-----"),
    ("JSON web token", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NSJ9.dBjftJeZ4CVPmB92K27uhbUJU1p1r"),
]

HARMLESS = [
    "a @ b, me@home and @everyone",
    "GB82 WEST 1234 5698 7654 33",  # the check digits are wrong
    "4111 1111 1111 1112",  # Luhn's sum is wrong
    "0000000000000000",
    "12345678901234567890",
    "127.0.0.1, 192.168.1.1 and 10.0.0.1",
    "256.1.1.1 and version 1.2.3.4.5",
    "12:30:45 and std::vector and a::b",
    "3.14159265358979 + 1,000,000 = 1000003.14159265358979",
    "5 + 12 345 678 - 90 = 12345588",
    "sk-learn is short for scikit-learn",
    "2026-11-22 and 01-02-2026",
    "-----BEGIN PUBLIC KEY-----",
    "eyJhbGciOiJIUzI1NiJ9 alone",
]


@pytest.mark.parametrize(("kind", "value"), PRIVATE)
def test_it_is_found_within_a_sentence_and_once(kind: str, value: str) -> None:
    text = f"See {value}, or ask."
    (hit,) = private.find(text)
    assert (hit.kind, text[hit.start : hit.end]) == (kind, value)


@pytest.mark.parametrize("text", HARMLESS)
def test_what_only_looks_so_is_left_alone(text: str) -> None:
    assert private.find(text) == []


@pytest.mark.parametrize(("kind", "value"), PRIVATE)
def test_no_more_than_two_signs_are_ever_shown(kind: str, value: str) -> None:
    assert private.masked(f"<{value}> and <{value}>") == f"<{value[:2]}…> and <{value[:2]}…>"
    (finding,) = private.scan({"a": [{"b": value}], "n": 1})
    assert finding == (kind, "a.0.b", f"{value[:2]}…")


def test_findings_come_in_the_order_of_the_row() -> None:
    row = {"x": "a@b.org", "y": {"z": ["8.8.8.8", "c@d.org"]}}
    assert [finding.field for finding in private.scan(row)] == ["x", "y.z.0", "y.z.1"]


@pytest.mark.parametrize("piece", ["a", "1", "1-", "1 ", "a.", "a@", ":", "A1", "+1 ", "eyJ", "-----BEGIN "])
def test_no_text_is_too_much_for_a_form(piece: str) -> None:
    """Would take hours if a form tried all ways to split a text."""
    assert private.find(piece * 20_000) == []
