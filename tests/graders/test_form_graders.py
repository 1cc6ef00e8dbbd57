"""`length`, `format`, `language` and `repetition`: each field of their configs, and independent formulas."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from hypothesis import given as for_any
from hypothesis import settings
from hypothesis import strategies as some
from pydantic import ValidationError

from sharpen.config.graders import Format, Language, Length, Repetition, SingleGrader
from sharpen.errors import GraderError
from sharpen.graders import language
from sharpen.graders.format import FormatGrader
from sharpen.graders.language import passages
from sharpen.graders.pool import GraderPool
from sharpen.graders.repetition import RepetitionGrader
from sharpen.types import Example, Grade, Sample


def grade(config: SingleGrader, text: str, **item: Any) -> Grade:
    made: Grade = asyncio.run(config.build().grade(Example("e", (), item), Sample(text)))
    return made


def score(config: SingleGrader, text: str, **item: Any) -> float | None:
    return grade(config, text, **item).score


def refused(kind: type[SingleGrader], **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        kind(**fields)
    return str(caught.value)


# length


@pytest.mark.parametrize(
    ("fields", "text", "score"),
    [
        ({"unit": "words", "max": 2}, "a b\nc", 0),
        ({"unit": "lines", "max": 2}, "a b\nc", 1),
        ({"unit": "characters", "max": 2}, "a b\nc", 0),
        ({"unit": "sentences", "max": 2}, "a b\nc", 1),
        ({"min": 4}, "a b c", 0),
        ({"min": 3}, "a b c", 1),
        ({"min": 5, "falloff": 4}, "a b c", 0.5),
        ({"max": 1, "falloff": 4}, "a b c", 0.5),
        ({"max": 1, "falloff": 2}, "a b c", 0),
        ({"max": 1}, "a b c", 0),
    ],
)
def test_length_counts_and_falls_off(fields: dict[str, Any], text: str, score: float) -> None:
    assert grade(Length.model_validate(fields), text).score == pytest.approx(score)


def test_bounds_that_bound_nothing_are_refused() -> None:
    assert "without them every length scores 1" in refused(Length)
    assert "max is less than min (2 < 3)" in refused(Length, min=3, max=2)
    assert "falloff" in refused(Length, max=1, falloff=-1)


# format


@pytest.mark.parametrize("strict", [True, False])
@settings(max_examples=200, deadline=None)
@for_any(some.lists(some.sampled_from(["<a>", "</a>", "<b>", "</b>", "x", " "]), max_size=7))
def test_the_form_is_what_a_regular_expression_finds(strict: bool, parts: list[str]) -> None:
    """With two tags the form can be written as a pattern, once marks that occur twice are ruled out."""
    text = "".join(parts)
    pattern = r"\s*<a>.*</a>\s*<b>.*</b>\s*" if strict else ".*<a>.*</a>.*<b>.*</b>.*"
    once = all(text.count(mark) == 1 for mark in ("<a>", "</a>", "<b>", "</b>"))
    wanted = float(once and bool(re.fullmatch(pattern, text, re.DOTALL)))
    made = asyncio.run(FormatGrader(Format(tags=("a", "b"), strict=strict)).grade(Example("e", ()), Sample(text)))
    assert (made.score, made.metrics) == (wanted, {"format": wanted})


def test_the_answer_in_a_tag_must_be_the_reference() -> None:
    right = "<think>a</think><answer> 4\n</answer>"
    assert score(Format(), right) == 1
    assert score(Format(answer_tag="answer"), right, answer=4) == 1
    assert score(Format(answer_tag="think"), right, answer=4) == 0
    assert score(Format(answer_tag="answer", reference="{{ item.gold }}"), right, answer=5, gold=4) == 1
    shown = grade(Format(answer_tag="answer"), f"So {right}", answer=4)
    assert (shown.score, shown.metrics) == (0, {"format": 0.0, "found": 1.0})
    missing = grade(Format(answer_tag="answer"), right)
    assert (missing.score, missing.fault and missing.fault.kind) == (None, "invalid_variable_error")


def test_tags_that_cannot_be_told_apart_are_refused() -> None:
    assert "a tag stands twice" in refused(Format, tags=("a", "a"))
    assert "answer_tag is none of the tags ['think', 'answer'] (got 'reply')" in refused(Format, answer_tag="reply")
    assert "pattern" in refused(Format, tags=("<a>",))
    assert "at least 1" in refused(Format, tags=())


# repetition


def penalty(text: str, size: int) -> float:
    """TRL's and open-r1's `get_repetition_penalty_reward` with a max_penalty of -1, as they publish it."""
    if text == "" or len(text.split()) < size:
        return 0.0
    words = text.lower().split()
    all_of_them = list(zip(*[words[start:] for start in range(size)], strict=False))
    return (1 - len(set(all_of_them)) / len(all_of_them)) * -1


@settings(max_examples=200, deadline=None)
@for_any(some.lists(some.sampled_from("aAbc"), max_size=12), some.integers(1, 4))
def test_repetition_is_trls_penalty_plus_one(words: list[str], size: int) -> None:
    text = " ".join(words)
    made = asyncio.run(RepetitionGrader(Repetition(ngram_size=size)).grade(Example("e", ()), Sample(text)))
    assert made.score == pytest.approx(1 + penalty(text, size))
    assert made.metrics["repeated"] == pytest.approx(-penalty(text, size))


def test_the_fields_of_repetition_decide() -> None:
    assert score(Repetition(ngram_size=1), "a b a b") == 0.5
    assert score(Repetition(ngram_size=3), "a b a b") == 1
    assert score(Repetition(ngram_size=1, unit="characters"), "ab ab") == 0.5
    assert score(Repetition(ngram_size=1, unit="words"), "ab ac") == 1
    assert score(Repetition(ngram_size=1, max_share=0.5), "a b a b") == 1
    assert score(Repetition(ngram_size=1, max_share=0.5), "a a a a") == 0.5
    assert "max_share" in refused(Repetition, max_share=1)


# language

GERMAN = "Der alte Fischer hatte seit vielen Tagen keinen einzigen Fisch gefangen, und niemand glaubte noch an ihn."
ENGLISH = "The old fisherman had not caught a single fish for many days, and nobody believed in him any more."


def test_the_share_of_letters_in_the_language_is_the_score() -> None:
    both = f"{GERMAN} {ENGLISH}"
    german, english = (sum(map(str.isalpha, text)) for text in (GERMAN, ENGLISH))
    assert score(Language(language="de"), both) == pytest.approx(german / (german + english))
    assert score(Language(language="en"), both) == pytest.approx(english / (german + english))
    assert score(Language(language="fr"), both) == 0


def test_passages_are_whole_sentences_long_enough_to_be_judged() -> None:
    assert passages("Yes. No. Well.\nPerhaps.") == ["Yes. No. Well. Perhaps."]
    assert passages(f"Yes. {GERMAN} No.") == [f"Yes. {GERMAN} No."]
    assert passages(f"{GERMAN}\n{ENGLISH}") == [GERMAN, ENGLISH]
    assert passages("12 + 3 = 15.") == []


def test_a_jail_judges_languages_and_the_same_grade_comes_again() -> None:
    with GraderPool(Language(language="de"), workers=1) as pool:
        pairs = [(Example("e", ()), Sample(text)) for text in (GERMAN, ENGLISH, GERMAN)]
        first, other, again = asyncio.run(pool.grade_many(pairs))
        assert pool.repeatable(first)
    assert (first.score, other.score) == (1.0, 0.0) and first == again


def test_a_language_that_is_not_known_and_a_detector_that_is_not_there_are_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with GraderPool(Language(language="xx"), workers=1) as pool, pytest.raises(GraderError, match=r"no language.*'xx'"):
        asyncio.run(pool.start())
    assert "pattern" in refused(Language, language="German")
    monkeypatch.setattr(language, "LanguageIdentifier", None)
    with pytest.raises(GraderError, match=r"py3langid, which is not installed.*sharpen\[language\]"):
        Language(language="de").build()
