"""`deploy/`, so far as it can be looked at without Docker or a running systemd."""

from __future__ import annotations

import configparser
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sharpen.cli.main import parser
from sharpen.server.settings import load

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "sharpen.service"


def compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    return found


def unit() -> configparser.ConfigParser:
    read = configparser.ConfigParser(strict=False, interpolation=None)
    read.optionxform = str  # type: ignore[assignment,method-assign]
    read.read_string(UNIT.read_text())
    return read


def instructions() -> list[tuple[str, str]]:
    """Those of the Dockerfile: their names, and the rest of their lines."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split()[0], line.partition(" ")[2]) for line in text.splitlines() if line.strip()]


def test_every_command_line_is_one_that_sharpen_takes() -> None:
    image = dict(instructions())
    assert json.loads(image["ENTRYPOINT"]) == ["sharpen"]
    started = unit()["Service"]["ExecStart"].split()
    assert started[0].endswith("/bin/sharpen")
    for words in (json.loads(image["CMD"]), compose()["services"]["sharpen"]["command"], started[1:]):
        options = parser().parse_args(words)
        assert words[0] == "serve" and options.data_dir is not None
    text = (DEPLOY / "README.md").read_text()
    lines = [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    commands = [
        re.sub(r"^.*?\bsharpen (?=serve|keys|models)", "", line)
        for line in lines
        if re.search(r"\bsharpen (serve|keys|models) ", line)
    ]
    assert len(commands) == 5
    for line in commands:
        parser().parse_args(shlex.split(line))


def test_compose_names_what_exists() -> None:
    found = compose()
    services = found["services"]
    assert set(services["sharpen"]["depends_on"]) <= set(services)
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert source in found["volumes"] or (DEPLOY / source).exists(), volume
    build = services["sharpen"]["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()
    words = services["sharpen"]["command"]
    assert f"@{'database'}/" in words[words.index("--database") + 1] and "database" in services
    assert "password" not in " ".join(words).lower()


def test_nothing_is_published_beyond_this_machine() -> None:
    for service in compose()["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))


def test_the_image_copies_what_exists_and_sees_nothing_else() -> None:
    copied = [
        word
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from")
        for word in rest.split()[:-1]
    ]
    assert copied and all((ROOT / word).exists() for word in copied)
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().split()
    assert ignored[0] == "*" and {line[1:] for line in ignored if line.startswith("!")} == set(copied)


def test_image_and_unit_do_not_run_as_root() -> None:
    steps = [name for name, _ in instructions()]
    users = [rest for name, rest in instructions() if name == "USER"]
    assert users == ["sharpen"] and steps.index("USER") < steps.index("ENTRYPOINT")
    service = unit()["Service"]
    assert (
        service["User"] == "sharpen" and service["NoNewPrivileges"] == "yes" and service["CapabilityBoundingSet"] == ""
    )


def test_the_settings_that_are_shipped_load() -> None:
    assert load(DEPLOY / "server.yaml", {}).models == {}


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not on this machine")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    copy = tmp_path / UNIT.name
    copy.write_text(
        UNIT.read_text().replace("/opt/sharpen/bin/sharpen", str(Path(sys.executable).with_name("sharpen")))
    )
    done = subprocess.run(["systemd-analyze", "verify", copy], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and UNIT.name not in done.stderr, done.stderr
