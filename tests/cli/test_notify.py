"""`--notify`: one message at the end of a run, to whom it may concern, and never any harm."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sharpen.cli import notify, quickstart
from sharpen.cli.main import main
from sharpen.cli.notify import Desktop, Message, Webhook
from sharpen.errors import ConfigError, DivergedError, GraderError, Interrupted, RunError
from sharpen.runs.store import RunDir
from tests.cli.fakes import RECIPE, SUMMARY, install
from tests.client.fake import Behaviour, Fake, raw, reply

MESSAGE = Message("first", "finished", "SFT raises this to 40 %.", 75.0)
SECRET = "T00SECRET/B00SECRET"


class Pipeline:
    """In the place of the pipeline: leaves the events of a run that ends in some way."""

    def __init__(self, error: BaseException | None = None, ending: str = "finished", begins: bool = True) -> None:
        self.error = error
        self.ending = ending
        self.begins = begins

    def run(self, recipe: Any, out: Path, *, base: Path, observer: Any) -> dict[str, Any]:
        return self.resume(out, [], observer=observer, first="started")

    def resume(self, out: Path, overrides: list[str], *, observer: Any, first: str = "resumed") -> dict[str, Any]:
        with RunDir(out) as directory:
            (out / "recipe.yaml").write_text("model: m\n")
            if self.begins:
                directory.event(first, model="m", stages=[])
            if self.ending:
                directory.event(self.ending, cause=str(self.error or ""))
            (out / "summary.json").write_text(json.dumps(SUMMARY))
        if self.error:
            raise self.error
        return SUMMARY


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return str(path)


@pytest.fixture
def hook() -> Iterator[Fake]:
    """A webhook that answers as Slack's does, with a text."""
    with Fake(otherwise=reply("ok", content_type="text/plain")) as fake:
        yield fake


def address(fake: Fake) -> str:
    return fake.url.replace("/v1", f"/services/{SECRET}")


ENDS: list[tuple[BaseException | None, str, str, str]] = [
    (None, "finished", "finished", SUMMARY["verdict"]),
    (Interrupted("stopped by SIGINT after step 3 of 12 of rft"), "interrupted", "interrupted", "stopped by SIGINT"),
    (GraderError("40 % of the grades failed"), "paused", "paused", "40 % of the grades failed"),
    (DivergedError("the loss is not finite"), "failed", "failed", "the loss is not finite"),
    (ValueError("a bug"), "failed", "failed", "a bug"),
    (RunError("the disk is full"), "", "failed", "the disk is full"),  # which took no event either
]


@pytest.mark.parametrize(("error", "ending", "state", "said"), ENDS)
def test_the_end_of_a_run_is_told_once_and_its_exit_code_stays(
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    hook: Fake,
    error: BaseException | None,
    ending: str,
    state: str,
    said: str,
) -> None:
    install(monkeypatch, "pipeline", Pipeline(error, ending))
    alone = main(["run", recipe, "--out", str(tmp_path / "alone")])
    told = main(["run", recipe, "--out", str(tmp_path / "first"), "--notify", address(hook)])
    assert told == alone
    (request,) = hook.requests
    assert request.path == f"/services/{SECRET}"
    facts = request.body["sharpen"]
    assert (facts["run"], facts["state"]) == ("first", state) and said in facts["said"]
    assert request.body["text"] == request.body["content"]
    assert request.body["text"].startswith(f"first: {state}. ") and said in request.body["text"]
    assert 0 <= facts["seconds"] < 60


def test_a_resumed_run_and_a_quickstart_tell_too(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: Fake
) -> None:
    install(monkeypatch, "pipeline", Pipeline())
    run = str(tmp_path / "first")
    assert main(["run", recipe, "--out", run]) == 0
    assert main(["run", "--resume", run, "--notify", address(hook)]) == 0
    monkeypatch.setattr(quickstart, "_fetch", lambda model: None)
    monkeypatch.setattr("sharpen.cli.machine.matmul_speed", lambda: 1e12)
    monkeypatch.setattr(
        "sharpen.cli.forecast.forecast",
        lambda *facts: SimpleNamespace(seconds=1, cut=False, overrides=lambda: []),
    )
    monkeypatch.setattr(quickstart, "_forecast", lambda *facts: "")
    assert main(["quickstart", "--out", str(tmp_path / "second"), "--notify", address(hook)]) == 0
    assert [request.body["sharpen"]["run"] for request in hook.requests] == ["first", "second"]


def test_nothing_is_told_where_no_run_began(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hook: Fake
) -> None:
    run = tmp_path / "first"
    install(monkeypatch, "pipeline", Pipeline())
    assert main(["run", recipe, "--out", str(run)]) == 0
    install(monkeypatch, "pipeline", Pipeline(RunError("another process is at work"), "", begins=False))
    assert main(["run", "--resume", str(run), "--notify", address(hook)]) == 2
    monkeypatch.setenv("RANK", "1")  # of torchrun's processes the first tells
    install(monkeypatch, "pipeline", Pipeline())
    assert main(["run", "--resume", str(run), "--notify", address(hook)]) == 0
    assert hook.requests == []


SILENT = raw(b"")
TROUBLE: dict[str, tuple[Behaviour, str]] = {
    "refused": (reply(f"no team {SECRET} at /services/{SECRET}", "404 Not Found"), "status 404"),
    "forbidden": (reply('{"error": "invalid_token"}', "403 Forbidden"), "invalid_token"),
    "moved": (reply("", "301 Moved Permanently", location="http://127.0.0.1:1/"), "status 301"),
    "hung up": (SILENT, "3 times"),
}


@pytest.mark.parametrize("trouble", TROUBLE)
def test_a_notice_that_fails_is_one_line_without_the_address_and_the_others_are_sent(
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    hook: Fake,
    trouble: str,
) -> None:
    monkeypatch.setattr("sharpen.client.http.FIRST_WAIT", 0.001)
    install(monkeypatch, "pipeline", Pipeline())
    behaviour, said = TROUBLE[trouble]
    run = tmp_path / "first"
    with Fake(otherwise=behaviour) as bad:
        options = ["--notify", address(bad), "--notify", address(hook)]
        assert main(["run", recipe, "--out", str(run), *options]) == 0
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("warning: the end of the run was not told to 127.0.0.1: ") and said in line
    assert len(hook.requests) == 1
    files = b"".join(path.read_bytes() for path in run.rglob("*") if path.is_file())
    for text in (printed.err, printed.out, files.decode()):
        assert "SECRET" not in text


def test_a_server_that_does_not_answer_is_waited_for_no_longer_than_the_limit(
    recipe: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notify, "TIME_LIMIT", 0.3)
    install(monkeypatch, "pipeline", Pipeline())
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/x"
        assert main(["run", recipe, "--out", str(tmp_path / "first"), "--notify", url]) == 0
    assert "no answer within 0.3 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    "value",
    [
        "slack",
        f"hooks.slack.com/services/{SECRET}",
        f"ftp://host/{SECRET}",
        f"https:///{SECRET}",
        f"https://user:{SECRET}",
        f"http://[{SECRET}",
        f"https://host:99999/{SECRET}",
        f"https://ho st/{SECRET}",
        "",
    ],
)
def test_what_is_no_address_is_refused_before_anything_is_done(
    recipe: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    value: str,
) -> None:
    install(monkeypatch, "pipeline", Pipeline(AssertionError("ran")))
    for command in (["run", recipe], ["quickstart"]):
        assert main([*command, "--out", str(tmp_path / "run"), "--notify", value]) == 2
        said = capsys.readouterr()
        assert said.err.startswith("error: --notify: ") and not said.out
        assert "SECRET" not in said.err
    assert not (tmp_path / "run").exists()


SHAPES: list[tuple[str, str, dict[str, Any]]] = [
    # https://docs.ntfy.sh/publish/#publish-as-json: to the server itself, with the topic in the body
    (
        "https://ntfy.sh/my_topic?auth=abc",
        "https://ntfy.sh/?auth=abc",
        {"topic": "my_topic", "title": "first: finished", "message": "SFT raises this to 40 %. (1 min 15 s)"},
    ),
    (
        "https://ntfy.example.org/t",
        "https://ntfy.example.org/",
        {"topic": "t", "title": "first: finished", "message": "SFT raises this to 40 %. (1 min 15 s)"},
    ),
    (
        "https://hooks.slack.com/services/T/B/x",
        "https://hooks.slack.com/services/T/B/x",
        {"text": "first: finished. SFT raises this to 40 %. (1 min 15 s)"},
    ),
    (
        "https://discord.com/api/webhooks/1/x",
        "https://discord.com/api/webhooks/1/x",
        {"content": "first: finished. SFT raises this to 40 %. (1 min 15 s)", "allowed_mentions": {"parse": []}},
    ),
]


@pytest.mark.parametrize(("url", "posted_to", "body"), SHAPES)
def test_known_services_are_sent_what_they_take(url: str, posted_to: str, body: dict[str, Any]) -> None:
    webhook = Webhook(url)
    assert webhook.address == posted_to
    assert webhook.body(MESSAGE) == body


def test_a_message_is_never_too_long_and_keeps_its_end() -> None:
    long = Message("first", "failed", "x" * 5000, 75.0)
    assert len(long.text) <= 1_900 and long.text.endswith("x (1 min 15 s)")
    assert len(Webhook("https://discord.com/x").body(long)["content"]) < 2_000


def test_slack_reads_no_commands_in_a_text() -> None:
    body = Webhook("https://hooks.slack.com/x").body(Message("first", "failed", "<!channel> & more", 1.0))
    assert "&lt;!channel&gt; &amp; more" in body["text"]


# The desktop


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!{sys.executable}\n{script}")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("system", "name", "arguments"),
    [
        ("Linux", "notify-send", ["--app-name=sharpen", "--", "first: failed", "-a &lt;b&gt; $(c) (1.0 s)"]),
        ("Darwin", "osascript", ["-e", notify.OSASCRIPT, "first: failed", "-a <b> $(c) (1.0 s)"]),
        ("Windows", "powershell", ["-NoProfile", "-NonInteractive", "-Command", notify.POWERSHELL]),
    ],
)
def test_the_desktops_program_gets_the_texts_as_arguments_and_in_no_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, name: str, arguments: list[str]
) -> None:
    told = tmp_path / "told.json"
    script = f"import json, os, sys\njson.dump([sys.argv[1:], os.environ['SHARPEN_TEXT']], open({str(told)!r}, 'w'))"
    program(tmp_path, name, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    monkeypatch.setattr("platform.system", lambda: system)
    Desktop().send(Message("first", "failed", "-a <b> $(c)", 1.0))
    assert json.loads(told.read_text()) == [arguments, "-a <b> $(c) (1.0 s)"]


def test_a_desktop_that_is_not_there_is_said_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match="no notify-send"):
        Desktop()
    program(tmp_path, "notify-send", "raise SystemExit(1)")
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(ConfigError, match="no session bus"):
        Desktop()
    (tmp_path / "bus").touch()
    with pytest.raises(Exception, match="exit status 1"):
        Desktop().send(MESSAGE)
