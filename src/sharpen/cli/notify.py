"""`--notify`: one message at the end of a run, to a webhook or to the desktop. It never harms the run."""

from __future__ import annotations

import asyncio
import html
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import SplitResult, urlsplit

from sharpen.errors import ConfigError

TIME_LIMIT = 15.0
"""Seconds that a notice may take, its retries included."""
LONGEST = 1_900
"""Characters of a message; Discord refuses 2,000 and more."""
HIDDEN = 6
"""From so many characters on, a part of an address is taken out of all that is said of it."""

SHAPES: Mapping[str, Callable[[str], dict[str, Any]]] = {
    "hooks.slack.com": lambda text: {"text": html.escape(text, quote=False)},
    "chat.googleapis.com": lambda text: {"text": text},
    "discord.com": lambda text: {"content": text, "allowed_mentions": {"parse": []}},
    "discordapp.com": lambda text: {"content": text, "allowed_mentions": {"parse": []}},
}
"""What hosts are sent that are strict, or read signs in a text; all others get every shape in one."""

OSASCRIPT = "on run argv\ndisplay notification (item 2 of argv) with title (item 1 of argv)\nend run"

POWERSHELL = """
$null = [Windows.UI.Notifications.ToastNotificationManager, Windows.UI.Notifications, ContentType = WindowsRuntime]
$kind = [Windows.UI.Notifications.ToastTemplateType]::ToastText02
$toast = [Windows.UI.Notifications.ToastNotificationManager]::GetTemplateContent($kind)
$texts = $toast.GetElementsByTagName('text')
$null = $texts.Item(0).AppendChild($toast.CreateTextNode($env:SHARPEN_TITLE))
$null = $texts.Item(1).AppendChild($toast.CreateTextNode($env:SHARPEN_TEXT))
$shell = '{1AC14E77-02E7-4E5D-B744-2EB1AE5198B7}\\WindowsPowerShell\\v1.0\\powershell.exe'
[Windows.UI.Notifications.ToastNotificationManager]::CreateToastNotifier($shell).Show($toast)
"""


@dataclass(frozen=True, slots=True)
class Message:
    """What is said of a run that has ended; `said` is its verdict, or the cause of its end."""

    run: str
    state: str
    said: str
    seconds: float

    @property
    def title(self) -> str:
        """`first: finished`."""
        return f"{self.run}: {self.state}"

    @property
    def text(self) -> str:
        """The verdict or the cause, and the time."""
        from sharpen.reports.numbers import duration

        took = f"({duration(self.seconds)})"
        return f"{self.said[: LONGEST - len(took) - 1]} {took}".strip()


class Notice(Protocol):
    """A place that a message goes to; `name` is what may be printed of it."""

    name: str

    def send(self, message: Message) -> None:
        """Raises an exception that says why it could not be delivered."""


def arguments(parser: ArgumentParser) -> None:
    """The option of commands that make a run."""
    parser.add_argument(
        "--notify",
        action="append",
        default=[],
        metavar="URL|desktop",
        help="at the end of the run, tell a webhook (Slack, Discord, ntfy, ...) or the desktop; may be repeated",
    )


def notices(wanted: Sequence[str]) -> list[Notice]:
    """What `--notify` names. Raises ConfigError for what cannot be told; it does not show an address."""
    return [Desktop() if value == "desktop" else Webhook(value) for value in wanted]


@contextmanager
def notifying(notices: Sequence[Notice], folder: Path) -> Iterator[None]:
    """Tell all how the run in `folder` ends, if it begins or goes on in here; under torchrun rank 0 does."""
    since, cause = time.time(), ""
    try:
        yield
    except BaseException as error:
        cause = str(error) or type(error).__name__
        raise
    finally:
        if notices and (message := _message(folder, since, cause)):
            _send(notices, message)


class Webhook:
    """An address that is posted JSON, in the shape that its service takes."""

    def __init__(self, url: str) -> None:
        from sharpen.client.http import Service  # imports httpx
        from sharpen.config.graders.remote import on_this_machine  # imports pydantic

        try:
            self._parts = urlsplit(url)
            sound = self._parts.scheme in ("http", "https") and bool(self._parts.hostname)
        except ValueError:
            sound = False
        if not sound:
            shown = re.split(r"[^\w.-]", url)[0]
            raise ConfigError(
                "neither `desktop` nor an address of http or https",
                path="--notify",
                value=url if shown == url else f"{shown}…",
                remedy="Such as --notify https://ntfy.sh/TOPIC, a Slack or Discord webhook, or --notify desktop",
            )
        self.name = str(self._parts.hostname)
        self._topic = _topic(self._parts)
        self.address = self._parts._replace(path="/").geturl() if self._topic else url
        try:
            self._service = Service(
                self.address,
                remote=not on_this_machine(self.name),
                max_retries=2,
                time_limit=TIME_LIMIT,
                max_concurrent=1,
            )
        except ConfigError:
            raise ConfigError(
                "this address cannot be posted to", path="--notify", value=self.name, remedy="Check it for misprints"
            ) from None

    def send(self, message: Message) -> None:
        """Post it; any answer that is no refusal will do."""
        from sharpen.client.http import ServiceError

        (answer,) = asyncio.run(self._service.post_all([self.body(message)]))
        if isinstance(answer, ServiceError) and answer.kind != "garbage":  # many answer "ok", or nothing
            raise RuntimeError(self._told(answer.detail))

    def body(self, message: Message) -> dict[str, Any]:
        """What is posted."""
        if self._topic:  # https://docs.ntfy.sh/publish/#publish-as-json
            return {"topic": self._topic, "title": message.title, "message": message.text}
        text = f"{message.title}. {message.text}"[:LONGEST]
        if self.name in SHAPES:
            return SHAPES[self.name](text)
        return {"text": text, "content": text, "sharpen": asdict(message)}

    def _told(self, detail: str) -> str:
        """What the server said, without the parts of the address, which are a secret."""
        after = self._parts.geturl().partition("//")[2]
        parts = [part for part in re.split(r"[/?&=#:@]", after) if len(part) >= HIDDEN and part != self.name]
        for part in sorted([self._parts.path.strip("/"), *parts], key=len, reverse=True):
            detail = detail.replace(part, "[hidden]") if part else detail
        return " ".join(detail.split())


class Desktop:
    """The system's own notifications. Raises ConfigError where there are none."""

    name = "the desktop"

    def __init__(self) -> None:
        self._system = platform.system()
        program = {"Darwin": "osascript", "Windows": "powershell"}.get(self._system, "notify-send")
        found = shutil.which(program)
        if found is None:
            remedy = "Install libnotify (apt install libnotify-bin)" if program == "notify-send" else ""
            raise _no_desktop(f"there is no {program} here", remedy)
        if program == "notify-send" and not _session():
            raise _no_desktop("no desktop session can be reached from here (no session bus)", "")
        self._program = found

    def send(self, message: Message) -> None:
        """Show it."""
        subprocess.run(
            self.command(message),
            env={**os.environ, "SHARPEN_TITLE": message.title, "SHARPEN_TEXT": message.text},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIME_LIMIT,
            check=True,
        )

    def command(self, message: Message) -> list[str]:
        """The program with its arguments; texts are never part of a script."""
        match self._system:
            case "Darwin":
                return [self._program, "-e", OSASCRIPT, message.title, message.text]
            case "Windows":
                return [self._program, "-NoProfile", "-NonInteractive", "-Command", POWERSHELL]
        body = html.escape(message.text, quote=False)  # its body is markup
        return [self._program, "--app-name=sharpen", "--", message.title, body]


def _no_desktop(fact: str, remedy: str) -> ConfigError:
    other = "Or tell a webhook: --notify https://ntfy.sh/TOPIC"
    return ConfigError(fact, path="--notify desktop", remedy=f"{remedy}. {other}" if remedy else other)


def _session() -> bool:
    """Whether there is a bus on which notifications are shown."""
    if os.environ.get("DBUS_SESSION_BUS_ADDRESS"):
        return True
    return Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}", "bus").exists()


def _topic(parts: SplitResult) -> str:
    """The topic of an ntfy server's address: of ntfy.sh, and of hosts called `ntfy.…`."""
    path = parts.path.strip("/")
    return path if str(parts.hostname).startswith("ntfy.") and path and "/" not in path else ""


def _message(folder: Path, since: float, cause: str) -> Message | None:
    """What is to be said; nothing of a run that did not begin or go on since then, or that another rank tells of."""
    from sharpen.reports.numbers import finite
    from sharpen.reports.read import read
    from sharpen.runs.listing import BEGINNINGS, ENDINGS, look
    from sharpen.train.ranks import follows  # imports torch, as the run has

    try:
        if follows():
            return None
        run = read(folder)
        begun, ended = run.last(*BEGINNINGS), run.last(*BEGINNINGS, *ENDINGS)
        if round(since, 3) > (finite(begun, "time") or 0.0):
            return None
        state = str(ended.get("event")) if ended is not begun else "failed"  # a full disk takes no event
        said = str(run.summary.get("verdict") or "") if state == "finished" else str(ended.get("cause") or cause)
        return Message(folder.resolve().name, state, said, round(look(folder).seconds, 1))
    except Exception as error:  # whatever is wrong with the directory: the run's own end is what counts
        _warn("nobody", error)
        return None


def _send(notices: Sequence[Notice], message: Message) -> None:
    for each in notices:
        try:
            each.send(message)
        except Exception as error:  # a foreign boundary
            _warn(each.name, error)


def _warn(whom: str, error: Exception) -> None:
    print(f"warning: the end of the run was not told to {whom}: {' '.join(str(error).split())[:300]}", file=sys.stderr)
