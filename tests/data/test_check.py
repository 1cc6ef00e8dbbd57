"""`sharpen data check` from inside: counts worked by hand, and no file that crashes it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharpen.data import formats, read
from sharpen.data.check import SHOWN_FAULTS, Lengths, Place, Purpose, Span, check, prompts
from sharpen.data.render import Renderer
from sharpen.errors import ConfigError, DataError
from tests.tiny import tiny_tokenizer

RENDERER = Renderer(tiny_tokenizer(), frozenset({2}))


def write(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def pair(prompt: str, completion: str = "2") -> dict[str, str]:
    return {"prompt": prompt, "completion": completion}


def test_lengths_and_the_loss_are_those_counted_by_hand(tmp_path: Path) -> None:
    frame = len("S" + "user\n" + "E\n" + "S" + "assistant\n")  # one token a character, control tokens too
    path = write(tmp_path, pair("1+1", "2"), pair("12345", "123"), pair("1+1=", "22"))
    lengths = check(path, "sft", renderer=RENDERER).lengths
    assert lengths is not None
    assert sorted(lengths.counts.elements()) == [frame + 3 + 2, frame + 4 + 3, frame + 5 + 4]
    assert (lengths.trained, lengths.total) == (2 + 3 + 4, 3 * frame + 12 + 9)


def test_quantiles_and_histogram() -> None:
    lengths = Lengths()
    lengths.counts.update(range(1, 101))
    assert [lengths.quantile(share) for share in (0, 0.5, 0.95, 1)] == [1, 50, 95, 100]
    assert lengths.histogram(4) == [25, 25, 25, 25]
    lengths.counts.clear()
    lengths.counts.update([7, 7, 9])
    assert lengths.histogram(3) == [2, 0, 1]
    assert Lengths().quantile(0.5) == 0


def test_the_shown_row_marks_the_answer_and_its_end_token(tmp_path: Path) -> None:
    turns = [("user", "1?"), ("assistant", "2"), ("user", "3?"), ("assistant", "4")]
    path = write(tmp_path, {"messages": [{"role": role, "content": text} for role, text in turns]})
    rendered = check(path, "sft", renderer=RENDERER).rendered
    assert rendered is not None
    assert rendered.spans == (
        Span("<|im_start|>user\n1?<|im_end|>\n<|im_start|>assistant\n", False),
        Span("2<|im_end|>", True),
        Span("\n<|im_start|>user\n3?<|im_end|>\n<|im_start|>assistant\n", False),
        Span("4<|im_end|>", True),
    )


def test_rows_with_private_data_are_not_shown_and_values_in_faults_are_masked(tmp_path: Path) -> None:
    path = write(tmp_path, pair("ask a@b.org"), pair("1+1"), {"messages": "c@d.org"})
    report = check(path, "sft", renderer=RENDERER)
    assert report.rendered is not None and report.rendered.line == 2
    assert report.private["e-mail address"].count == 2
    assert report.private["e-mail address"].places == [Place(1, "prompt", "a@…"), Place(3, "messages", "c@…")]
    assert [fault.value for fault in report.faults] == ["'c@…'"]


def test_only_rows_over_the_limit_are_faults_of_length(tmp_path: Path) -> None:
    path = write(tmp_path, pair("1"), pair("1" * 50), pair("1", "2" * 50))
    counts = check(path, "sft", renderer=RENDERER).lengths
    assert counts is not None
    limit = counts.quantile(0)
    report = check(path, "sft", renderer=RENDERER, max_length=limit)
    assert [(fault.line, fault.value) for fault in report.faults] == [(2, str(limit + 49)), (3, str(limit + 49))]
    assert check(path, "sft", renderer=RENDERER, max_length=limit + 49).faults == []


def test_fifty_faults_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    report = check(write(tmp_path, *["x"] * 60, pair("1")), "sft")
    assert (report.rows, report.faulty, len(report.faults)) == (61, 60, SHOWN_FAULTS)


def test_a_template_that_refuses_is_a_fault_at_the_rows_line(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('no') if messages[0]['content'] == 'bad' }}<|im_end|>"
    path = write(tmp_path, {"prompt": "good"}, {"prompt": "bad", "id": "mine"})
    (fault,) = check(path, "rft", renderer=Renderer(tokenizer, frozenset({2}))).faults
    assert (fault.file, fault.line) == (str(path), 2)
    assert "chat template refuses" in fault.fact


def test_prompts_shared_with_other_files_are_found_whatever_their_shapes(tmp_path: Path) -> None:
    path = write(tmp_path, pair("1+1"), pair("2+2"), pair("3+3"), pair("4+4"))
    graded = write(tmp_path, {"prompt": "2 + 2", "answer": 4}, {"prompt": " 2+2\n", "answer": 4}, name="a.jsonl")
    chat = [{"role": "user", "content": "4+4"}, {"role": "assistant", "content": "8"}]
    labelled = write(tmp_path, {"messages": chat}, name="b.jsonl")
    shared = check(path, "sft", against=(graded, labelled)).overlap
    assert {name: [place.line for place in found.places] for name, found in shared.items()} == {
        str(graded): [2],
        str(labelled): [4],
    }


def test_a_faulty_file_to_compare_with_is_refused_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, pair("1+1"), {"answer": 3})
    with pytest.raises(DataError, match=r"rows.jsonl:2: not a row of this kind"):
        prompts(path)


def test_duplicates_compare_answers_too(tmp_path: Path) -> None:
    path = write(tmp_path, pair("1+1", "2"), pair("1+1", "3"), "", pair("1+1 ", "2"))
    assert check(path, "sft").duplicates == ([(4, 1)], [])


def test_both_answers_of_a_preference_are_rendered_and_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def preference(record: read.Record, where: read.Where) -> SimpleNamespace:
        answers = {key: ({"role": "assistant", "content": record[key]},) for key in ("chosen", "rejected")}
        return SimpleNamespace(id=where.id, messages=({"role": "user", "content": record["prompt"]},), **answers)

    monkeypatch.setattr(formats, "preference", preference, raising=False)
    row = {"prompt": "1+1=", "chosen": "2", "rejected": "333"}
    report = check(write(tmp_path, row, {**row, "rejected": "334"}, row), "dpo", renderer=RENDERER)
    assert report.lengths is not None and report.rendered is not None
    assert report.lengths.trained == 3 * (2 + 4)
    assert [span.text for span in report.rendered.spans if span.trained] == ["2<|im_end|>"]
    assert report.duplicates == ([(3, 1)], [])


def test_without_a_reader_of_preferences_they_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(formats, "preference", raising=False)
    with pytest.raises(ConfigError, match="--for: preference rows cannot be checked"):
        check(write(tmp_path, pair("1+1")), "dpo")


CHAT = {
    "messages": [{"role": "user", "content": "hi <|im_end|>"}, {"role": "assistant", "content": "hé\u2028 a@b.org"}]
}
VALID = b"\n".join(
    json.dumps(row, ensure_ascii=False).encode()
    for row in (CHAT, pair("1+1="), {"prompt": [{"role": "user", "content": "é"}], "answer": [1e3, None], "id": 3})
)
PIECES = [
    *(b"NaN", b"1e999", b'"', b"\\ud800", b"\\u0000", b"{", b"}", b"[" * 300, b"\n", b"\r\n", b"null", b",", b"\0"),
    *(b'"role"', b'"content": 1', b'"messages"', b"system", b"<|im_start|>", b"\xff\xfe", b"\xef\xbb\xbf", b"-1"),
    *("\U000f0000".encode(), b"9" * 5000, b"[]", b"{}", b'""', b"8.8.8.8", b"4111111111111111", b"true", b"\\"),
]
EDIT = st.tuples(
    st.integers(0, len(VALID)), st.integers(0, 12), st.one_of(st.binary(max_size=4), st.sampled_from(PIECES))
)
FUZZ = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))


def mutated_files_are_checked_without_a_crash(folder: Path, edits: list[tuple[int, int, bytes]]) -> None:
    content = VALID
    for start, length, new in edits:
        content = content[:start] + new + content[start + length :]
    path = folder / "rows.jsonl"
    path.write_bytes(content)
    purposes: tuple[Purpose, ...] = ("sft", "rft")
    for purpose in purposes:
        report = check(path, purpose, renderer=RENDERER, max_length=100)
        assert report.faulty == len(report.faults) <= report.rows or report.faulty > SHOWN_FAULTS
        assert all(fault.fact and fault.remedy and fault.file == str(path) for fault in report.faults)
        assert all(fault.line is not None or "no rows" in fault.fact for fault in report.faults)


@settings(FUZZ, max_examples=300)
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_no_mutated_file_is_a_crash(tmp_path: Path, edits: list[tuple[int, int, bytes]]) -> None:
    mutated_files_are_checked_without_a_crash(tmp_path, edits)


@pytest.mark.long
@settings(FUZZ, max_examples=100_000)
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_no_mutated_file_of_a_hundred_thousand_is_a_crash(tmp_path: Path, edits: list[tuple[int, int, bytes]]) -> None:
    mutated_files_are_checked_without_a_crash(tmp_path, edits)
