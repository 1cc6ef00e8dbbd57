"""What a file is worth for a method: rows, faults with their lines, prompts that both files of a job have."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from sharpen.data import overlap
from sharpen.server import app as application
from sharpen.server import checks, filing, ids, looks
from sharpen.server.checks import apart, check, checked, shared
from sharpen.server.core import Server
from sharpen.server.errors import APIError
from sharpen.server.looks import HERE
from sharpen.server.rows import Method
from sharpen.server.settings import Settings
from sharpen.server.tables import files

ASK = {"role": "user", "content": "Who is it?"}
SAY = {"role": "assistant", "content": "It is Ann."}
GOOD: dict[Method, dict[str, Any]] = {
    "supervised": {"messages": [ASK, SAY]},
    "dpo": {
        "input": {"messages": [ASK], "tools": [], "parallel_tool_calls": True},
        "preferred_output": [SAY],
        "non_preferred_output": [{"role": "assistant", "content": "No idea."}],
    },
    "reinforcement": {"messages": [ASK], "answer": "Ann"},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = application.create(Settings(data_dir=tmp_path_factory.mktemp("checks"))).state.server
    yield made
    made.db.close()


def lines(*rows: object) -> str:
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def put(folder: Path, *rows: object) -> Path:
    path = folder / "rows"
    path.write_text(lines(*rows))
    return path


def stored(server: Server, text: str, project: str = "default", name: str = "train.jsonl") -> str:
    """The id of a file of a project."""

    async def add() -> str:
        id = ids.new("file")
        kept = await server.storage.write(id, text)
        values = (project, name, "fine-tune", kept.bytes, kept.sha256, id)
        await server.db.write(lambda connection: filing.add(connection, *values))
        return id

    return asyncio.run(add())


@pytest.mark.parametrize("method", GOOD)
def test_openai_rows_of_each_method_are_good_for_it_alone(tmp_path: Path, method: Method) -> None:
    found = check(put(tmp_path, *[GOOD[method]] * 12), method)
    assert (found.rows, found.faulty, found.faults, found.warnings) == (12, 0, (), [])
    for other in GOOD:
        if other != method:
            wrong = check(tmp_path / "rows", other)
            assert wrong.faulty == 12 and wrong.faults[0].line == 1


def test_tokens_are_estimated_by_the_bytes_of_the_text(tmp_path: Path) -> None:
    # "Who is it?" 10 bytes: 3 tokens and 4 around it; "It is Ann." 10 bytes: the same
    assert check(put(tmp_path, GOOD["supervised"], GOOD["supervised"]), "supervised").tokens_estimate == 2 * 14
    assert check(put(tmp_path, GOOD["reinforcement"]), "reinforcement").tokens_estimate == 7
    # the prompt is read with both answers; "No idea." 8 bytes: 2 and 4
    assert check(put(tmp_path, GOOD["dpo"]), "dpo").tokens_estimate == 2 * 7 + 7 + 6


def test_faults_have_their_lines_and_all_are_counted(tmp_path: Path) -> None:
    good = GOOD["supervised"]
    bad = {"messages": [{"role": "robot", "content": "x"}, SAY]}
    found = check(put(tmp_path, good, bad, "", "{not json", good, *[bad] * 6), "supervised")
    assert (found.rows, found.faulty) == (10, 8)
    assert [fault.line for fault in found.faults] == [2, 4, 6, 7, 8]
    assert found.faults[0].field == "messages.0.role" and "robot" in found.faults[0].message
    assert "not JSON" in found.faults[1].message
    assert str(tmp_path) not in str(found)


def test_what_is_private_in_a_fault_is_masked(tmp_path: Path) -> None:
    found = check(put(tmp_path, {"messages": "write to jane.doe@example.com"}), "supervised")
    assert found.faulty == 1 and "jane.doe@example.com" not in str(found)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no rows"),
        (b"\n \n", "no rows"),
        (b"PAR1\x15\x04\x15", "Parquet"),
        (b"\x1f\x8b\x08\x00", "gzip"),
        ("﻿{}".encode("utf-16"), "UTF-16"),
        (b"a,b\n1,2\n", "not JSON"),
    ],
)
def test_a_file_without_rows_or_of_another_kind_is_at_fault(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "rows"
    path.write_bytes(data)
    found = check(path, "supervised")
    assert found.faulty and said in found.faults[0].message


def test_a_json_array_is_read_as_its_rows(tmp_path: Path) -> None:
    assert check(put(tmp_path, json.dumps([GOOD["supervised"]] * 3)), "supervised").rows == 3


def test_a_kto_row_is_no_pair(tmp_path: Path) -> None:
    found = check(put(tmp_path, {"prompt": "a", "completion": "b", "label": True}), "dpo")
    assert found.faulty == 1 and "two answers are compared" in found.faults[0].message


def test_images_are_refused_where_they_would_be_asked_of_the_model(tmp_path: Path) -> None:
    seen = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    row = {"messages": [{"role": "user", "content": seen}]}
    assert check(put(tmp_path, row), "reinforcement").faulty == 1


def test_a_few_rows_are_enough_but_warned_of(tmp_path: Path) -> None:
    assert "3 rows only" in check(put(tmp_path, *[GOOD["supervised"]] * 3), "supervised").warnings[0]


def test_another_process_finds_the_same(tmp_path: Path) -> None:
    path = put(tmp_path, GOOD["supervised"], "{")
    command = [sys.executable, "-m", "sharpen.server.rows", str(path), "supervised"]
    said = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    assert checks.Checked.from_json(said) == check(path, "supervised")


def test_prompts_of_both_files_are_found_as_the_run_finds_them(tmp_path: Path) -> None:
    def row(text: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}, SAY]}

    training, held_out = tmp_path / "training", tmp_path / "held_out"
    training.write_text(lines(row("One"), row("Two")))
    held_out.write_text(lines(row("three"), "", row("  TWO "), row("four"), row("one")))
    assert shared(held_out, training, "supervised") == [3, 5]
    assert overlap.normalise("  TWO ") == overlap.normalise("Two")
    assert shared(training, tmp_path / "held_out", "supervised") == [1, 2]
    held_out.write_text(lines(row("three")))
    assert shared(held_out, training, "supervised") == []


def test_a_faulty_file_is_refused_with_its_lines_and_the_parameter(server: Server) -> None:
    id = stored(server, lines(GOOD["supervised"], {"messages": []}, "{"))
    for _ in range(2):  # looked at, then remembered
        with pytest.raises(APIError) as refused:
            asyncio.run(checked(server, id, "default", "supervised", "training_file"))
        told = refused.value.body
        assert refused.value.status == 400
        assert (told["code"], told["param"], told["line"]) == ("invalid_file_format", "training_file", 2)
        assert told["fault_count"] == 2 and [fault["line"] for fault in told["faults"]] == [2, 3]
        assert "2 of the 3 rows of train.jsonl" in told["message"] and "line 3" in told["message"]
        assert str(server.storage.folder) not in told["message"]


def test_a_look_is_remembered_by_its_method(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    id = stored(server, lines(GOOD["supervised"]))
    first = asyncio.run(checked(server, id, "default", "supervised", "training_file"))
    monkeypatch.setattr(looks, "check", None)  # no second look
    assert asyncio.run(checked(server, id, "default", "supervised", "training_file")) == first
    kept = server.db.look(lambda connection: connection.execute(select(files.c.checks).where(files.c.id == id)).one())
    assert list(kept.checks) == ["supervised"]


def test_who_asks_for_the_same_waits_for_one_look(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    id = stored(server, lines(GOOD["supervised"]))
    seen: list[Path] = []

    def counted(path: Path, method: Method) -> checks.Checked:
        seen.append(path)
        return check(path, method)

    monkeypatch.setattr(looks, "check", counted)

    async def all_at_once() -> None:
        asked = (checked(server, id, "default", "supervised", "training_file") for _ in range(20))
        assert {found.rows for found in await asyncio.gather(*asked)} == {1}

    asyncio.run(all_at_once())
    assert len(seen) == 1


def test_a_large_file_is_looked_at_outside_the_process(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"messages": [{"role": "user", "content": "x" * 10_000}, SAY]}
    id = stored(server, lines(*[row] * (HERE // 10_000 + 1)))
    monkeypatch.setattr(looks, "check", None)
    found = asyncio.run(checked(server, id, "default", "supervised", "training_file"))
    assert found.rows == HERE // 10_000 + 1 and not found.faulty


def test_files_that_are_not_there_are_the_parameters_fault(server: Server) -> None:
    others = stored(server, lines(GOOD["supervised"]), project="other")
    gone = stored(server, lines(GOOD["supervised"]))
    server.storage.path(gone).unlink()
    for id in (others, gone, "file-none", "\x00"):
        with pytest.raises(APIError) as refused:
            asyncio.run(checked(server, id, "default", "supervised", "validation_file"))
        told = refused.value.body
        assert (refused.value.status, told["code"], told["param"]) == (400, "file_not_found", "validation_file")


def test_held_out_rows_that_training_has_are_refused(server: Server) -> None:
    def row(text: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": text}, SAY]}

    training = stored(server, lines(*(row(f"question {n}") for n in range(20))))
    clean = stored(server, lines(row("another")))
    asyncio.run(apart(server, "default", "supervised", training, clean))
    mixed = stored(server, lines(row("another"), *(row(f"Question {n}") for n in range(8))))
    for _ in range(2):
        with pytest.raises(APIError) as refused:
            asyncio.run(apart(server, "default", "supervised", training, mixed))
        told = refused.value.body
        assert (told["param"], told["code"]) == ("validation_file", "validation_file_overlaps_training_file")
        assert told["lines"] == [2, 3, 4, 5, 6] and told["message"].startswith("8 rows") and "3 more" in told["message"]
