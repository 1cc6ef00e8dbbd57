"""`sharpen data check` from inside: counts worked by hand, and no file that crashes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sharpen.data.check import SHOWN_FAULTS, Lengths, Place, Span, check, prompts
from sharpen.data.formats.parts import Purpose
from sharpen.data.render import Renderer
from sharpen.errors import DataError
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


def test_both_answers_of_a_preference_are_rendered_and_compared(tmp_path: Path) -> None:
    row = {"prompt": "1+1=", "chosen": "2", "rejected": "333"}
    report = check(write(tmp_path, row, {**row, "rejected": "334"}, row), "dpo", renderer=RENDERER)
    assert report.lengths is not None and report.rendered is not None
    assert report.lengths.trained == 3 * (2 + 4)
    assert [span.text for span in report.rendered.spans if span.trained] == ["2<|im_end|>"]
    assert report.duplicates == ([(3, 1)], [])
    other = write(tmp_path, {"prompt": "1 + 1 ="}, {"prompt": "1+1="}, name="other.jsonl")
    assert check(other, "rft", against=(tmp_path / "rows.jsonl",)).overlap.popitem()[1].places == [Place(2)]


def test_rows_of_plain_text_are_compared_and_rendered_whole(tmp_path: Path) -> None:
    path = write(tmp_path, {"text": "Once upon"}, {"text": "a time"}, {"text": "once  upon"})
    report = check(path, "sft", renderer=RENDERER, against=(path,))
    assert report.duplicates == ([(3, 1)], [])
    assert report.rendered is not None
    assert report.rendered.spans == (Span("O", False), Span("nce upon<|im_end|>", True))
    assert [found.count for found in report.overlap.values()] == [3]


def test_calls_tell_rows_apart_but_tools_do_not(tmp_path: Path) -> None:
    def row(name: str, argument: int) -> dict[str, object]:
        call = {"function": {"name": "f", "arguments": {"x": argument}}}
        turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
        return {"messages": turns, "tools": [{"type": "function", "function": {"name": name}}]}

    path = write(tmp_path, row("f", 1), row("f", 2), row("g", 1))
    assert check(path, "sft").duplicates == ([(3, 1)], [])
    dropped = check(path, "sft", renderer=RENDERER).faults
    assert [(fault.file, fault.line, fault.field) for fault in dropped] == [(str(path), n, "tools") for n in (1, 2, 3)]


@pytest.mark.parametrize(
    ("name", "content", "fact"),
    [
        ("rows.json", "[]", "no rows"),
        ("rows.csv", "prompt,completion\n", "no rows"),
        ("rows.jsonl.gz", "\x1f\x8b", "a gzip file"),
    ],
)
def test_a_fault_of_a_whole_file_is_listed_without_a_line(tmp_path: Path, name: str, content: str, fact: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode("latin-1"))
    (fault,) = check(path, "sft").faults
    assert (fault.file, fault.line) == (str(path), None)
    assert fact in fault.fact and fault.remedy


def test_a_prompt_with_an_image_is_a_fault_at_its_field(tmp_path: Path) -> None:
    shown = {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}
    path = write(tmp_path, {"prompt": "1"}, shown, {"prompt": "2"})
    (fault,) = check(path, "rft").faults
    assert (fault.file, fault.line, fault.field) == (str(path), 2, "messages[0].content")
    with pytest.raises(DataError, match=r"rows\.jsonl:2:messages\[0\]\.content"):
        prompts(path)


CHAT = {
    "messages": [{"role": "user", "content": "hi <|im_end|>"}, {"role": "assistant", "content": "hé\u2028 a@b.org"}]
}
VALID = b"\n".join(
    json.dumps(row, ensure_ascii=False).encode()
    for row in (
        CHAT,
        pair("1+1="),
        {"prompt": [{"role": "user", "content": "é"}], "answer": [1e3, None], "id": 3},
        {"prompt": "1", "chosen": "2", "rejected": "3"},
        {"text": "Once <|im_end|>"},
    )
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
    purposes: tuple[Purpose, ...] = ("sft", "dpo", "rft")
    for purpose in purposes:
        report = check(path, purpose, renderer=RENDERER, max_length=100)
        assert report.faulty == len(report.faults) <= report.rows or report.faulty > SHOWN_FAULTS
        assert all(fault.fact and fault.remedy and fault.file == str(path) for fault in report.faults)
        assert report.rows == 1 or all(fault.line is not None for fault in report.faults), "only of a whole file"


@settings(FUZZ, max_examples=300)
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_no_mutated_file_is_a_crash(tmp_path: Path, edits: list[tuple[int, int, bytes]]) -> None:
    mutated_files_are_checked_without_a_crash(tmp_path, edits)


@pytest.mark.long
@settings(FUZZ, max_examples=100_000)
@given(edits=st.lists(EDIT, min_size=1, max_size=4))
def test_no_mutated_file_of_a_hundred_thousand_is_a_crash(tmp_path: Path, edits: list[tuple[int, int, bytes]]) -> None:
    mutated_files_are_checked_without_a_crash(tmp_path, edits)
