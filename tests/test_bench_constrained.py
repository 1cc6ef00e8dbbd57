"""What bench.constrained counts; nothing is timed here."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from zlib import compress

import pytest

from bench import constrained
from sharpen.types import Support


@pytest.mark.parametrize(
    ("said", "valid"),
    [
        ('{"name": "Ada", "age": 20, "city": "Oslo", "hobbies": []}', True),
        ('Here it is:\n```json\n{"name": "Ada", "age": 20, "city": "Oslo", "hobbies": ["chess"]}\n```', True),
        ('{"name": "Ada", "age": 200, "city": "Oslo", "hobbies": []}', False),
        ('{"name": "Ada", "age": 20, "city": "Oslo"}', False),
        ('{"name": "Ada", "age": 20, "city": "Oslo", "hobbies": [', False),
        ("Ada is 20.", False),
    ],
)
def test_valid_is_json_of_the_schema(said: str, valid: bool) -> None:
    assert constrained.valid(said) == valid


def test_no_two_questions_are_equal() -> None:
    assert len({constrained.question(place) for place in range(constrained.PROMPTS)}) == constrained.PROMPTS


def test_shared_sets_are_counted_once_and_references_each_time() -> None:
    few, many = compress(bytes([0b00000001, 0])), compress(bytes([0xFF, 0b00001111]))
    segments = [SimpleNamespace(support=Support((), array("i"), sets)) for sets in ((few, many, many), (few,))]
    found = constrained.carried(segments)
    assert found["tokens"] == 4 and found["distinct_sets"] == 2
    assert found["bytes_per_token"] == (len(few) + len(many)) / 4 + 8
    assert found["bytes_per_token_as_ids"] == 4 * (1 + 12 + 12 + 1) / 4
    assert found["largest_set"]["tokens"] == 12


def test_speed_is_compared_by_seconds_and_by_core_seconds() -> None:
    def side(rate: float, cores: list[float]) -> dict[str, object]:
        return {"tokens": [100, 100], "core_seconds": cores, "tokens_per_second": rate}

    ours = {"steady, free": side(40.0, [1.0, 1.0]), "steady, held": side(30.0, [1.5, 2.5])}
    assert constrained.ratio(ours, {}) == {"tokens_per_second": 0.75, "tokens_per_core_second": 0.5}
    assert constrained.ratio({}, {}) == {}
