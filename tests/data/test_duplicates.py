"""Duplicates, exact and near, held against a comparison of all pairs."""

from __future__ import annotations

from random import Random

from sharpen.data.duplicates import ALIKE, Duplicates

WORDS = [f"word{number}" for number in range(500)]


def found(texts: list[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    duplicates = Duplicates()
    for number, text in enumerate(texts, start=1):
        duplicates.add(number, text)
    exact, near = duplicates.found()
    return [(row, earlier) for row, earlier in exact], [(row, earlier) for row, earlier in near]


def jaccard(one: str, other: str) -> float:
    runs = [{tuple(text.split()[at : at + 3]) for at in range(len(text.split()) - 2)} for text in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_exact_duplicates_are_equal_in_normalised_text_and_name_the_first() -> None:
    texts = ["What is 1+1?", "what  is 1+1?\n", "What is 1+2?", "ﬁne", "WHAT IS 1+1?", "fine"]
    assert found(texts) == ([(2, 1), (5, 1), (6, 4)], [])


def test_near_duplicates_are_those_that_a_comparison_of_all_pairs_finds() -> None:
    random = Random(5)
    base = [random.choices(WORDS, k=120) for _ in range(40)]
    texts = [" ".join(words) for words in base]
    for words in base:
        changed = list(words)
        for _ in range(random.choice([1, 2, 16, 24])):
            changed[random.randrange(len(changed))] = "other"
        texts.append(" ".join(changed))
    near = dict(found(texts)[1])
    shares = [jaccard(texts[row], texts[row + 40]) for row in range(40)]
    assert {share > ALIKE + 0.12 for share in shares} == {True, False}
    for row, share in enumerate(shares, start=1):
        if abs(share - ALIKE) > 0.12:  # four standard errors at 0.95, where one word is changed
            assert near.get(row + 40) == (row if share > ALIKE else None)
    assert all(row == earlier + 40 for row, earlier in near.items())


def test_a_word_more_or_less_is_near_and_short_texts_that_differ_are_not() -> None:
    text = " ".join(WORDS[:60])
    assert found([text, f"{text} more", "1 + 1", "1 + 2", "", "a", "b"]) == ([], [(2, 1)])


def test_languages_without_spaces_are_compared_by_their_signs() -> None:
    text = "".join(chr(0x4E00 + 7 * number) for number in range(80))
    assert found([text, text + "中", text[::-1]]) == ([], [(2, 1)])


def test_nothing_has_no_duplicates() -> None:
    assert found([]) == ([], [])


def test_a_row_costs_eighty_bytes() -> None:
    duplicates = Duplicates()
    for number in range(100):
        duplicates.add(number, f"{number} " * 50)
    held = (duplicates._numbers, duplicates._hashes, duplicates._minima)
    assert sum(len(memoryview(part).cast("B")) for part in held) == 8000
