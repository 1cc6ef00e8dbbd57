"""`sharpen chat`: talk with a model, or with two side by side."""

from __future__ import annotations

import signal
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.cli.predict import answering, checked
from sharpen.errors import DataError, RunError

if TYPE_CHECKING:
    from rich.console import Console

    from sharpen.answer.chat import Chat, Reply
    from sharpen.answer.predict import Settings

BASE = "base"

HELP = """\
/reset          forget the conversation; the system message stays
/system TEXT    change the system message; without TEXT, show it
/save FILE      add the conversation to a JSONL file, as a chat that SFT reads
/quit           end (so does Ctrl-D)
\"\"\"             begin and end a message of several lines with three quotes
Ctrl-C          stop the answer under way"""


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen chat` is told."""
    parser.add_argument(
        "model", metavar="MODEL", help="an alias, a run, a folder such as runs/X/models/rft, or a hub id"
    )
    parser.add_argument(
        "--compare",
        nargs="?",
        const=BASE,
        metavar="MODEL",
        help="let a second model answer as well: any, or `base`, what the run began with (the default)",
    )
    answering(parser, max_tokens=512)


def chat(options: Namespace) -> int:
    """Talk until the user ends it; without a terminal, answer each line of standard input."""
    settings = checked(options, {})
    from rich.console import Console

    from sharpen.answer.named import base_of, named

    names = [named(options.model)]
    if options.compare is not None:
        names.append(base_of(options.model) if options.compare == BASE else named(options.compare))
    talks = sys.stdin.isatty() and sys.stdout.isatty()
    notes = Console(stderr=not talks, highlight=False)
    console = notes if talks else Console(highlight=False)
    session = Session(options.model, names, settings, console, notes)
    if talks:
        session.greet(settings)
        _talk(session)
    else:
        _answer_lines(session)
    return 0


def _talk(session: Session) -> None:
    with suppress(ImportError):
        import readline  # noqa: F401  (lines can be edited, and come back with the arrow keys)
    while True:
        try:
            if not session.take(_message(lambda: input("> "), lambda: input("… "))):
                return
        except EOFError:
            print()
            return
        except KeyboardInterrupt:
            print()
            session.note("Ctrl-D or /quit ends")
        except (DataError, RunError) as error:
            session.note(str(error))


def _answer_lines(session: Session) -> None:
    lines = iter(sys.stdin)
    read = lambda: next(lines).rstrip("\n")  # noqa: E731
    try:
        while session.take(_message(read, read)):
            pass
    except StopIteration:
        return
    except UnicodeDecodeError as error:
        raise DataError("standard input is not UTF-8", value=error.object[:20], remedy="Convert it first") from error


def _message(first: Callable[[], str], further: Callable[[], str]) -> str:
    """The next message: a line, or all between two threes of quotes."""
    line = first()
    if not line.startswith('"""'):
        return line
    text = line[3:]
    while not text.rstrip().endswith('"""'):
        text += "\n" + further()
    return text.rstrip()[:-3].strip("\n")


class Session:
    """The models, their conversations, and where they are shown."""

    def __init__(self, asked: str, names: list[str], settings: Settings, console: Console, notes: Console) -> None:
        """Load the models named. Raises SharpenError where one cannot be talked with."""
        from sharpen.answer.chat import Chat
        from sharpen.answer.named import unfinished
        from sharpen.models.load import compute_dtype, load
        from sharpen.rollout.base import Params

        self._names = names
        self._console = console
        self._notes = notes
        self._max_tokens = settings.max_tokens
        params = Params(settings.max_tokens, settings.temperature, top_p=settings.top_p)
        self._chats: list[Chat] = []
        if missing := unfinished(asked):
            self.note(f"the run is not finished: it has no model of {missing} yet")
        for name in names:
            with notes.status(f"loading {name}"):
                loaded = load(name, compute_dtype("auto"))
            if loaded.notice:
                self.note(loaded.notice)
            self._chats.append(Chat(loaded, params, settings.seed, settings.system))

    def note(self, said: str) -> None:
        """Say something that is no answer."""
        self._notes.print(said, style="dim", markup=False)

    def greet(self, settings: Settings) -> None:
        """Say who answers, and how."""
        how = (
            f"drawn at temperature {settings.temperature:g}"
            if settings.temperature
            else "the likeliest ones (--temperature 0.7 draws)"
        )
        self._console.print(" · ".join(self._names), style="bold", markup=False, soft_wrap=True)
        self.note(f"answers: {how}, at most {settings.max_tokens} tokens")
        self._show_system()
        self.note("/help lists the commands; Ctrl-C stops an answer, Ctrl-D ends")

    def take(self, line: str) -> bool:
        """Do or answer what was typed; whether to go on."""
        word, _, rest = line.strip().partition(" ")
        match word:
            case "":
                return True
            case "/quit" | "/exit" | "/bye":
                return False
            case "/help" | "/?":
                self.note(HELP)
            case "/reset":
                for one in self._chats:
                    one.reset()
                self.note("the conversation is forgotten")
            case "/system":
                self._system(rest.strip())
            case "/save":
                self._save(rest.strip())
            case _ if word.startswith("/") and word[1:].isalpha():
                self.note(f"there is no command {word}; /help lists them")
            case _:
                self._answer(line.strip())
        return True

    def _system(self, text: str) -> None:
        if text:
            for one in self._chats:
                one.instruct(text)
        self._show_system()

    def _show_system(self) -> None:
        for name, one in zip(self._names, self._chats, strict=True):
            whose = f" of {name}" if self._chats[1:] else ""
            own = one.default_system()
            if one.system:
                self.note(f"system message{whose}: {one.system}")
            elif own:
                self.note(f"system message{whose}, the chat template's own: {own}")
            else:
                self.note(f"system message{whose}: none")

    def _save(self, name: str) -> None:
        first = self._chats[0]
        if not name:
            self.note("name a file: /save chats.jsonl")
        elif not first.messages:
            self.note("nothing has been said yet")
        else:
            count = first.save(Path(name).expanduser())
            self.note(f"{count} messages{f' of {self._names[0]}' if self._chats[1:] else ''} added to {name}")

    def _answer(self, said: str) -> None:
        from sharpen.cli.streaming import WIDE, Columns, Stream  # imports rich

        if self._chats[1:] and self._console.is_terminal and self._console.width >= WIDE:
            with Columns(self._console, self._names) as columns:
                replies = [self._ask(place, said, columns.hear(place)) for place in range(len(self._chats))]
            for place, reply in enumerate(replies):
                self._remark(place, reply)
            return
        for place, name in enumerate(self._names):
            if self._chats[1:]:
                self._console.print(f"[{name}]", style="bold cyan", markup=False, soft_wrap=True)
            stream = Stream(self._console)
            reply = self._ask(place, said, stream.hear)
            stream.hear(reply.sample)
            stream.end()
            self._remark(place, reply)

    def _ask(self, place: int, said: str, heard: Callable[..., None]) -> Reply:
        with _stoppable(at_once=self._console is not self._notes) as stopped:
            return self._chats[place].answer(said, heard, stopped)

    def _remark(self, place: int, reply: Reply) -> None:
        """What is to be known of an answer besides its text."""
        whose = f"{self._names[place]}: " if self._chats[1:] else ""
        if reply.forgotten:
            self.note(
                f"({whose}the conversation is longer than the model's context: its oldest {reply.forgotten} messages "
                "are forgotten; /reset begins anew)"
            )
        if reply.stopped:
            self.note(f"({whose}stopped)")
        elif not reply.sample.text.strip():
            self.note(f"({whose}no answer; the message is not kept)")
        elif reply.sample.finish == "length":
            self.note(f"({whose}cut off at {self._max_tokens} tokens: --max-tokens)")


@contextmanager
def _stoppable(at_once: bool) -> Iterator[Callable[[], bool]]:
    """Ctrl-C asks the answer to stop; a second one interrupts, or the first where it should be `at_once`."""
    asked = at_once

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked and not at_once
    finally:
        signal.signal(signal.SIGINT, before)
