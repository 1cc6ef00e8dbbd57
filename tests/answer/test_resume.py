"""`sharpen predict` stopped at any moment and run again gives each row once, and the bytes of an undisturbed work."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sharpen.answer import output, predict
from sharpen.answer.predict import Progress
from sharpen.cli.main import main
from sharpen.errors import Interrupted, RunError
from tests.answer.small import asked, write
from tests.runs.lab import forked
from tests.tiny import tiny_model

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and limits of POSIX")

ROWS = 18
WARM = predict.Settings(max_tokens=6, temperature=1.3, seed=2)


def answer(model: Path, folder: Path, name: str, watch: Callable[[Progress], None] = lambda progress: None) -> None:
    predict.predict(str(model), str(folder / "in.jsonl"), folder / name, WARM, watch=watch)


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bytes of undisturbed outputs, by suffix."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predict, "ROWS", 4)
        patch.setattr(predict, "compute_dtype", lambda setting: __import__("torch").float32)
        write(folder / "in.jsonl", asked(ROWS))
        for name in ("out.jsonl", "out.csv"):
            answer(model, folder, name)
    return {path.suffix: path.read_bytes() for path in folder.glob("out.*")}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class At:
    """Kills the process after so many tokens, in the midst of a batch."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def __call__(self, progress: Progress) -> None:
        if progress.tokens >= self.tokens:
            die()


def _half(writer: output.Writer, records: Any, cut: int, *, left: list[int]) -> None:
    """In the place of Writer.append: the last of the batches that are `left` is written in part, and not noted."""
    left[0] -= 1
    if left[0]:
        return _append(writer, records, cut)
    raw = writer._output.lines(records, writer._fields, writer.done.bytes == 0)
    writer._file.write(raw[: len(raw) // 2])
    writer._file.flush()
    die()
    return None


_append = output.Writer.append


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_killed_in_a_batch_and_in_writing_one_every_row_is_there_once(
    suffix: str, model: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in.jsonl", asked(ROWS))
    out = tmp_path / f"out{suffix}"
    sizes = []
    monkeypatch.setattr(output.Writer, "append", partial_method(_half, left=[1]))
    assert forked(lambda: answer(model, tmp_path, out.name), tmp_path / "log")[0] == -signal.SIGKILL
    sizes.append(out.stat().st_size)
    monkeypatch.setattr(output.Writer, "append", _append)
    for tokens in (7, 30):
        assert forked(lambda: answer(model, tmp_path, out.name, At(tokens)), tmp_path / "log")[0] == -signal.SIGKILL  # noqa: B023
        sizes.append(out.stat().st_size)
    monkeypatch.setattr(output.Writer, "append", partial_method(_half, left=[2]))
    assert forked(lambda: answer(model, tmp_path, out.name), tmp_path / "log")[0] == -signal.SIGKILL
    sizes.append(out.stat().st_size)
    monkeypatch.setattr(output.Writer, "append", _append)
    with out.open("ab") as file:
        file.write(b'{"n": 1, "pro')
    monkeypatch.setattr(output.Writer, "finish", lambda writer: die())
    assert forked(lambda: answer(model, tmp_path, out.name), tmp_path / "log")[0] == -signal.SIGKILL
    assert out.read_bytes() == whole[suffix]
    monkeypatch.undo()
    assert main(["predict", str(model), "--in", str(tmp_path / "in.jsonl"), "--out", str(out), *WARM_OPTIONS]) == 0
    assert out.read_bytes() == whole[suffix]
    assert not out.with_name(f"{out.name}.state.json").exists()
    assert sizes[1] < sizes[0] < sizes[2] < sizes[3] < len(whole[suffix]), "each time it came further"


WARM_OPTIONS = ["--max-tokens", "6", "--temperature", "1.3", "--seed", "2"]


def partial_method(function: Callable[..., Any], **given: Any) -> Any:
    return lambda writer, records, cut: partial(function, **given)(writer, records, cut)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_keeps_whole_batches_and_says_how_to_go_on(
    number: signal.Signals, model: Path, whole: dict[str, bytes], tmp_path: Path
) -> None:
    write(tmp_path / "in.jsonl", asked(ROWS))

    def stop(progress: Progress) -> None:
        if progress.rows == 10:
            os.kill(os.getpid(), number)

    with pytest.raises(Interrupted, match=f"stopped by {number.name}: 8 of 18 rows .* Run the same command again"):
        answer(model, tmp_path, "out.jsonl", stop)
    assert len((tmp_path / "out.jsonl").read_bytes().splitlines()) == 8
    told: list[Progress] = []
    answer(model, tmp_path, "out.jsonl", told.append)
    assert (tmp_path / "out.jsonl").read_bytes() == whole[".jsonl"]
    assert told[0].rows == told[0].earlier == 8 and told[-1].rows == 18


def test_a_full_disk_keeps_what_is_answered(model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    write(tmp_path / "in.jsonl", asked(ROWS))

    def fill(progress: Progress) -> None:
        if progress.rows == 9:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole[".jsonl"]) // 2 + 20, resource.RLIM_INFINITY))

    status, said = forked(lambda: answer(model, tmp_path, "out.jsonl", fill), tmp_path / "log")
    assert status == RunError.exit_code, said
    assert said.startswith("RunError: the disk is full; the rows answered before are kept")
    assert json.loads((tmp_path / "out.jsonl.state.json").read_text())["done"]["rows"] == 8
    answer(model, tmp_path, "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == whole[".jsonl"]


# What it does not go on with


def begun(model: Path, folder: Path) -> list[str]:
    """An unfinished output, and the command that made it."""
    write(folder / "in.jsonl", asked(ROWS))
    status, _ = forked(lambda: answer(model, folder, "out.jsonl", At(30)), folder / "log")
    assert status == -signal.SIGKILL
    return ["predict", str(model), "--in", str(folder / "in.jsonl"), "--out", str(folder / "out.jsonl"), *WARM_OPTIONS]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (["--temperature", "1"], "temperature was 1.3, and is 1.0"),
        (["--columns", "prompt=tag"], "columns was {}, and is {'prompt': 'tag'}"),
        (["--limit", "12", "--seed", "3"], "limit was None, and is 12; seed was 2, and is 3"),
        ("input", "another input"),
        ("model", "another model"),
        ("output", "the file of answers was changed since its 4 rows were written"),
        ("shorter", "the file of answers was changed since its 4 rows were written"),
        ("state", "the file beside the answers cannot be read"),
        ("stateless", "the file of answers exists already"),
    ],
)
def test_an_output_that_was_made_otherwise_is_refused_and_left_as_it_is(
    changed: Any, said: str, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = begun(model, tmp_path)
    out, state = tmp_path / "out.jsonl", tmp_path / "out.jsonl.state.json"
    match changed:
        case "input":
            write(tmp_path / "in.jsonl", asked(ROWS + 1))
        case "model":
            command[1] = str(tiny_model(tmp_path / "other", seed=1))
        case "output":
            out.write_bytes(out.read_bytes().replace(b"t1", b"T1"))
        case "shorter":
            os.truncate(out, 20)
        case "state":
            state.write_text("{")
        case "stateless":
            state.unlink()
        case _:
            command += changed
    before = out.read_bytes()
    assert main(command) == 2
    told = capsys.readouterr().err
    assert said in told and "--overwrite" in told
    assert out.read_bytes() == before


def test_to_overwrite_is_to_begin_anew(model: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    command = begun(model, tmp_path)
    out = tmp_path / "out.jsonl"
    out.write_text("something else\n" * 99)
    assert main([*command, "--overwrite"]) == 0
    assert out.read_bytes() == whole[".jsonl"]


def test_two_processes_do_not_write_one_output(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = begun(model, tmp_path)
    import fcntl

    with (tmp_path / "out.jsonl").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert main(command) == 2
    assert "another process is writing the file of answers" in capsys.readouterr().err


# Faults that show before any work


@pytest.mark.parametrize(
    ("name", "content", "options", "said"),
    [
        ("in.jsonl", '{"prompt": "a"}\n{"prompt": ', [], "in.jsonl:2: not JSON"),
        ("in.jsonl", '{"prompt": "a"}\n{"prompt": ""}\n', [], "in.jsonl:2:prompt: empty user turn"),
        ("in.jsonl", '{"prompt": "a"}\n{"prompt": null}\n', [], "in.jsonl:2:prompt: prompt is null"),
        (
            "in.csv",
            "question,n\na,1\n",
            [],
            "in.csv:2: nothing says what is asked; the row has ['n', 'question']. Say ",
        ),
        ("in.csv", "question,n\na,1\n", [], "--columns prompt=question"),
        ("in.csv", "question;answer\na;b\n", [], "'question;answer': its cells seem to be parted by ';'"),
        ("in.tsv", "prompt,n\na,b\n", [], "nothing says what is asked"),
        ("in.csv", "prompt,n\na,1\n,2\n", [], "in.csv:3:prompt: prompt is null"),
        ("in.csv", "prompt,n\na,1,2\n", [], "in.csv:2: 3 cells, but the header names 2 columns"),
        (
            "in.jsonl",
            '{"prompt": "a"}\n',
            ["--columns", "prompt=ask"],
            "in.jsonl:1:ask: there is no column 'ask'; the row",
        ),
        ("in.jsonl", '{"prompt": "a"}\n', ["--columns", "ask"], "--columns: not a pair of names (got 'ask')"),
        (
            "in.jsonl",
            '{"prompt": "a", "prediction": 1}\n',
            [],
            "in.jsonl:1:prediction: the row has a field of this name",
        ),
        ("in.jsonl", '{"prompt": "a", "messages": []}\n', [], "a row of several shapes"),
        (
            "in.jsonl",
            '{"messages": [{"role": "assistant", "content": "a"}]}\n',
            [],
            "in.jsonl:1:messages: nothing is asked",
        ),
        ("in.jsonl", "", [], "the file has no rows"),
        ("in.jsonl", f'{{"prompt": "a"}}\n{{"prompt": "{"b" * 240}"}}\n', [], "in.jsonl:2: the prompt of 2"),
        ("in.jsonl", '{"prompt": "a"}\n', ["--max-tokens", "0"], "max_tokens: should be greater than or equal to 1"),
        ("in.jsonl", '{"prompt": "a"}\n', ["--temperature", "-1"], "temperature: should be greater than or equal to 0"),
        ("in.jsonl", '{"prompt": "a"}\n', ["--top-p", "0"], "top_p: should be greater than 0"),
        ("in.jsonl", '{"prompt": "a"}\n', ["--limit", "0"], "limit: should be greater than or equal to 1"),
        ("in.jsonl", '{"prompt": "a"}\n', ["--response-format", "no.yaml"], "cannot read the form"),
    ],
)
def test_a_fault_is_said_with_its_place_before_anything_is_written(
    name: str,
    content: str,
    options: list[str],
    said: str,
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / name, tmp_path / "out.jsonl"
    source.write_text(content)
    assert main(["predict", str(model), "--in", str(source), "--out", str(out), "--max-tokens", "20", *options]) == 2
    assert said in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ("model_name", "source", "out", "said"),
    [
        ("no-such-model", "in.jsonl", "out.jsonl", "no such model (got 'no-such-model')"),
        ("", "in.jsonl", "out.txt", "--out: the name should end in .jsonl, .csv or .tsv"),
        ("", "none.jsonl", "out.jsonl", "none.jsonl: cannot read the file"),
        ("", "in.jsonl", "in.jsonl/out.jsonl", "the file of answers cannot be written"),
        ("", "in.jsonl", "in.jsonl", "--out: the answers would overwrite the rows"),
    ],
)
def test_what_cannot_be_found_or_written_is_named(
    model_name: str,
    source: str,
    out: str,
    said: str,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    content = write(tmp_path / "in.jsonl", asked(1)).read_bytes()
    assert main(["predict", model_name or str(model), "--in", source, "--out", out, "--overwrite", *WARM_OPTIONS]) == 2
    assert said in capsys.readouterr().err
    assert (tmp_path / "in.jsonl").read_bytes() == content
