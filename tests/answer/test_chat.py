"""`sharpen chat`: a conversation that is kept, shown as it is made, and read again by SFT."""

from __future__ import annotations

import asyncio
import io
import os
import re
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from rich.console import Console

from sharpen.answer.chat import Chat
from sharpen.cli.main import main
from sharpen.cli.streaming import Columns, Stream, harmless
from sharpen.config.data import FileData
from sharpen.data.source import read_labelled
from sharpen.errors import DataError, RunError
from sharpen.models.load import Loaded, load
from sharpen.rollout.base import Params
from sharpen.rollout.generate import Answerer
from sharpen.types import Message, Sample
from tests.tiny import tiny_model, tiny_tokenizer

GREEDY = Params(8, 0.0)


@pytest.fixture(scope="module")
def loaded(model: Path) -> Loaded:
    return load(model, torch.float32)


def user(said: str) -> Message:
    return {"role": "user", "content": said}


def assistant(said: str) -> Message:
    return {"role": "assistant", "content": said}


def text(loaded: Loaded, chat: Sequence[Message], params: Params = GREEDY, key: Any = ()) -> str:
    """The answer to a chat, asked by itself."""
    answerer = Answerer(loaded)
    (rollout,) = asyncio.run(answerer.answer([answerer.request(chat, key)], params))
    return rollout.sample.text


def say(chat: Chat, said: str) -> str:
    return chat.answer(said, lambda sample: None).sample.text


# The conversation


def test_each_answer_is_to_all_that_was_said(loaded: Loaded) -> None:
    chat = Chat(loaded, GREEDY)
    first, second = say(chat, "one"), say(chat, "two")
    assert first == text(loaded, [user("one")])
    assert second == text(loaded, [user("one"), assistant(first), user("two")])
    assert chat.messages == [user("one"), assistant(first), user("two"), assistant(second)]
    chat.reset()
    assert chat.messages == [] and say(chat, "one") == first


def test_an_answer_is_heard_as_it_grows(loaded: Loaded) -> None:
    heard: list[str] = []
    reply = Chat(loaded, GREEDY).answer("one", lambda sample: heard.append(sample.text))
    assert heard[-1] == reply.sample.text and len(set(heard)) > 3
    assert all(after.startswith(before) for before, after in pairwise(heard))


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_was_heard(loaded: Loaded) -> None:
    heard: list[str] = []
    chat = Chat(loaded, GREEDY)
    reply = chat.answer("one", lambda sample: heard.append(sample.text), lambda: len(heard) == 4)
    assert reply.stopped and reply.sample.text == heard[-1]
    assert text(loaded, [user("one")]).startswith(reply.sample.text) and len(heard) == 4
    assert chat.messages == ([user("one"), assistant(heard[-1])] if heard[-1] else [])


def test_the_system_message_begins_what_the_model_sees(loaded: Loaded) -> None:
    chat = Chat(loaded, GREEDY, system="be brief")
    brief = {"role": "system", "content": "be brief"}
    assert say(chat, "one") == text(loaded, [brief, user("one")]) != text(loaded, [user("one")])
    chat.reset()
    chat.instruct("be long")
    assert say(chat, "one") == text(loaded, [{"role": "system", "content": "be long"}, user("one")])


def test_drawn_answers_hang_on_the_seed_and_the_number_of_the_answer(loaded: Loaded) -> None:
    def session(seed: int) -> list[str]:
        chat = Chat(loaded, Params(8, 1.5), seed)
        found = []
        for _ in range(2):
            chat.reset()
            found.append(say(chat, "one"))
        return found

    assert session(1) == session(1)
    assert len({*session(1), *session(2)}) == 4
    assert session(1)[0] == text(loaded, [user("one")], Params(8, 1.5), (1, "chat", 0))


def test_a_conversation_that_outgrows_the_context_loses_its_oldest_exchanges(loaded: Loaded) -> None:
    chat = Chat(loaded, GREEDY, system="s")
    forgotten = 0
    for number in range(9):
        reply = chat.answer(f"{number} {'long ' * 8}", lambda sample: None)
        forgotten += reply.forgotten
        seen = [{"role": "system", "content": "s"}, *chat.messages[forgotten:-1]]
        assert reply.sample.text == text(loaded, seen)
        assert len(Answerer(loaded).request(seen, ()).prompt) + 8 <= 256
    assert len(chat.messages) == 18 and 0 < forgotten < 18 and forgotten % 2 == 0
    longer = [{"role": "system", "content": "s"}, *chat.messages[forgotten - 2 : -1]]
    assert len(Answerer(loaded).request(longer, ()).prompt) + 8 > 256, "no more than had to be"


def test_a_message_that_is_too_long_by_itself_is_refused_and_one_that_nearly_is_gets_a_short_answer(
    loaded: Loaded,
) -> None:
    chat = Chat(loaded, Params(200, 0.0))
    say(chat, "one")
    before = list(chat.messages)
    with pytest.raises(DataError, match=r"the message is too long: .* tokens, and the model's context is 256"):
        say(chat, "x" * 260)
    assert chat.messages == before
    frame = len(Answerer(loaded).request([user("")], ()).prompt)
    made: list[Sample] = []
    chat.answer("x" * (256 - frame - 3), made.append)
    assert 1 <= len(made) <= 3


def template(tmp_path: Path, source: str) -> Loaded:
    folder = tiny_model(tmp_path / "model")
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = source
    tokenizer.save_pretrained(folder)
    return load(folder, torch.float32)


def test_the_system_message_that_a_template_writes_by_itself_is_known(loaded: Loaded, tmp_path: Path) -> None:
    own = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\nYou are small.<|im_end|>\n{% endif %}"
    assert Chat(loaded, GREEDY).default_system() == ""
    chat = Chat(template(tmp_path / "own", own + tiny_tokenizer().chat_template), GREEDY)
    assert chat.default_system() == "You are small."


def test_a_template_without_a_system_message_refuses_one(tmp_path: Path) -> None:
    refuses = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    loaded = template(tmp_path, refuses + tiny_tokenizer().chat_template)
    assert Chat(loaded, GREEDY).default_system() == ""
    with pytest.raises(DataError, match="no system"):
        Chat(loaded, GREEDY, system="be brief")


def test_what_is_saved_is_read_by_sft(loaded: Loaded, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "chats.jsonl"
    chat = Chat(loaded, GREEDY, system="be brief")
    say(chat, "one")
    assert chat.save(path) == 2
    path.write_bytes(path.read_bytes().rstrip(b"\n"))  # as some editors leave a file
    say(chat, "two")
    assert chat.save(path) == 4
    rows = list(read_labelled(FileData(path=str(path)), Path()))
    assert [list(row.messages[1:]) for row in rows] == [chat.messages[:2], chat.messages]
    assert rows[1].trained == (2, 4) and rows[0].messages[0]["content"] == "be brief"
    with pytest.raises(RunError, match="the conversation cannot be written"):
        chat.save(path / "below.jsonl")


# Without a terminal


def piped(arguments: list[str], lines: str, patch: pytest.MonkeyPatch) -> int:
    patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    return main(["chat", *arguments, "--max-tokens", "8"])


def test_each_line_of_standard_input_is_answered_plainly(
    model: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = 'one\n\ntwo\n/reset\n"""one\nmore"""\n/nonsense\n/quit\nthree\n'
    assert piped([str(model)], lines, monkeypatch) == 0
    first = text(loaded, [user("one")])
    second = text(loaded, [user("one"), assistant(first), user("two")])
    third = text(loaded, [user("one\nmore")])
    told = capsys.readouterr()
    assert told.out == f"{first}\n{second}\n{third}\n"
    assert "the conversation is forgotten" in told.err and "there is no command /nonsense" in told.err


def test_options_decide_what_is_answered(
    model: Path, loaded: Loaded, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    warm = ["--temperature", "1.5", "--top-p", "0.9", "--seed", "3", "--system", "be brief"]
    assert piped([str(model), *warm], "one\n", monkeypatch) == 0
    chat = [{"role": "system", "content": "be brief"}, user("one")]
    expected = text(loaded, chat, Params(8, 1.5, top_p=0.9), (3, "chat", 0))
    assert capsys.readouterr().out == expected + "\n"
    assert piped([str(model), "--temperature", "-1"], "one\n", monkeypatch) == 2
    assert "temperature: should be greater than or equal to 0" in capsys.readouterr().err


def test_two_models_answer_the_same_and_keep_conversations_of_their_own(
    model: Path, loaded: Loaded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    trained = tiny_model(run / "models" / "sft", seed=5)
    (run / "recipe.yaml").write_text(yaml.dump({"model": str(model), "stages": [{"name": "sft"}, {"name": "rft"}]}))
    other = load(trained, torch.float32)
    for options in (["--compare"], ["--compare", "base"], ["--compare", str(model)]):
        assert piped([str(run), *options], "one\ntwo\n", monkeypatch) == 0
        told = capsys.readouterr()
        expected = []
        for name, each in ((trained, other), (model, loaded)):
            first = text(each, [user("one")])
            second = text(each, [user("one"), assistant(first), user("two")])
            expected.append((f"[{name}]\n{first}\n", f"[{name}]\n{second}\n"))
        assert told.out == "".join(turn for turns in zip(*expected, strict=True) for turn in turns)
        assert "the run is not finished: it has no model of rft yet" in told.err


def test_a_message_that_is_too_long_ends_it_where_nobody_sits(
    model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert piped([str(model)], f"{'x' * 300}\none\n", monkeypatch) == 2
    assert "the message is too long" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"caf\xe9\n"), encoding="utf-8"))
    assert main(["chat", str(model)]) == 2
    assert "standard input is not UTF-8" in capsys.readouterr().err


# On a terminal


def terminal(width: int = 120, height: int = 30) -> tuple[Console, io.StringIO]:
    file = io.StringIO()
    console = Console(
        file=file, force_terminal=True, width=width, height=height, color_system="standard", no_color=False, _environ={}
    )
    return console, file


def test_a_stream_writes_what_is_new_and_thoughts_only_to_a_terminal() -> None:
    grown = [Sample("", reasoning="hm"), Sample("", reasoning="hm m"), Sample("a", reasoning="hm m"), Sample("a [b]")]
    grown[-1] = Sample("a [b]", reasoning="hm m")
    console, file = terminal()
    pipe = io.StringIO()
    for stream in (Stream(console), Stream(Console(file=pipe, highlight=False))):
        for sample in grown:
            stream.hear(sample)
        stream.end()
    assert re.sub(r"\x1b\[\d*m", "", file.getvalue()) == "hm m\n\na [b]\n"
    assert "\x1b[2m" in file.getvalue()
    assert pipe.getvalue() == "a [b]\n"


def test_columns_stand_side_by_side_and_show_the_end_of_what_does_not_fit() -> None:
    console, file = terminal(width=100, height=8)
    with Columns(console, ["one", "two"]) as columns:
        columns.hear(0)(Sample("\n".join(f"line {number}" for number in range(20))))
        columns.hear(1)(Sample("word " * 20, reasoning="hm"))
        newest = console.render_lines(columns._newest())
        assert len(newest) <= 8 and "line 19" in "".join(part.text for line in newest for part in line)
    final = file.getvalue()[-3000:]
    rows = [line for line in final.splitlines() if "line" in line or "one" in line]
    assert any("one" in row and row.index("two") >= 48 for row in rows if "two" in row)
    assert "line 0 " in final and "line 19" in final and "hm" in final


def test_what_a_model_writes_cannot_steer_the_terminal() -> None:
    assert harmless("a\x1b[31m\r\x07\x9b\tb\nü\u200d") == "a\ufffd[31m\ufffd\ufffd\ufffd\tb\nü\u200d"


class Screen:
    """What a person sees and types: `sharpen chat` in a forked child on a terminal of its own."""

    def __init__(self, arguments: list[str], folder: Path) -> None:
        import pty

        self.seen = ""
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.environ.update(TERM="xterm", COLUMNS="80", LINES="24", NO_COLOR="1")
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")
            os._exit(main(arguments))

    def type(self, said: str) -> None:
        os.write(self._terminal, said.encode())

    def interrupt(self) -> None:
        """Press Ctrl-C, and again where nothing comes: one just before the read is noticed at the next only."""
        self.type("\x03")
        if not select.select([self._terminal], [], [], 5)[0]:
            self.type("\x03")

    def until(self, pattern: str, seconds: float = 120) -> str:
        """Read until the pattern is seen in what is new; returns what was new."""
        ends, new = time.monotonic() + seconds, ""
        while not re.search(pattern, new):
            ready = select.select([self._terminal], [], [], max(0.0, ends - time.monotonic()))[0]
            assert ready, f"{pattern!r} is not in {new!r}, after {self.seen!r}"
            try:
                new += re.sub(r"\x1b\[[?\d;]*[A-Za-z]|\r", "", os.read(self._terminal, 4096).decode(errors="replace"))
            except OSError:
                break
        self.seen += new
        return new

    def end(self) -> int:
        self.until("never")
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@pytest.fixture
def screen(model: Path, tmp_path: Path) -> Iterator[Callable[..., Screen]]:
    open_ones: list[Screen] = []

    def start(*options: str) -> Screen:
        open_ones.append(Screen(["chat", str(model), *options], tmp_path))
        return open_ones[-1]

    yield start
    for one in open_ones:
        try:
            os.kill(one.pid, signal.SIGKILL)
            os.waitpid(one.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            continue


@pytest.mark.skipif(os.name == "nt", reason="no pty")
def test_a_person_talks_stops_an_answer_saves_and_ends(
    screen: Callable[..., Screen], model: Path, loaded: Loaded, tmp_path: Path
) -> None:
    seen = screen("--max-tokens", "8")
    greeting = seen.until("> $")
    assert str(model)[-20:] in greeting.replace("\n", "") and "system message: none" in greeting
    assert "the likeliest ones (--temperature 0.7 draws), at most 8 tokens" in greeting
    seen.type("/save\n")
    assert "name a file" in seen.until("> $")
    seen.type("/save chats.jsonl\n")
    assert "nothing has been said yet" in seen.until("> $")
    seen.type("one\n")
    first = text(loaded, [user("one")])
    assert f"\n{first}\n" in seen.until("--max-tokens\\)\n> $")
    seen.type("/system be brief\n")
    assert "system message: be brief" in seen.until("> $")
    seen.type("x" * 300 + "\n")
    assert "the message is too long" in seen.until("> $").replace("\n", " ")
    seen.interrupt()
    assert "Ctrl-D or /quit ends" in seen.until("> $")
    seen.type("/help\n")
    told = seen.until("> $")
    assert all(word in told for word in ("/reset", "/system TEXT", "/save FILE", "/quit"))
    seen.type("/save chats.jsonl\n")
    assert "2 messages added to chats.jsonl" in seen.until("> $")
    seen.type("\x04")
    assert seen.end() == 0
    (row,) = read_labelled(FileData(path=str(tmp_path / "chats.jsonl")), Path())
    assert list(row.messages) == [{"role": "system", "content": "be brief"}, user("one"), assistant(first)]


@pytest.mark.skipif(os.name == "nt", reason="no pty")
def test_ctrl_c_stops_the_answer_and_not_the_conversation(
    screen: Callable[..., Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Chat.answer

    def slow(chat: Chat, said: str, heard: Any, stopped: Any) -> Any:
        def waiting(sample: Sample) -> None:
            heard(sample)
            time.sleep(0.2)

        return real(chat, said, waiting, stopped)

    monkeypatch.setattr(Chat, "answer", slow)
    seen = screen("--max-tokens", "200")
    seen.until("> $")
    seen.type("one\n")
    seen.until("one\n.{2}")
    seen.type("\x03")
    assert "(stopped)" in seen.until("> $")
    seen.type("/quit\n")
    assert seen.end() == 0
