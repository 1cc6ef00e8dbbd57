"""The attacks once more in a process of their own: as another user, or in what a container engine leaves of a machine.

python -m tests.sandbox.unprivileged [--container] [--tiers full,reduced] [--attacks a,b] prints JSON.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

from sharpen.sandbox import linux, plan
from tests.sandbox.attacks import ATTACKS, CATEGORIES
from tests.sandbox.attacks.base import Attack
from tests.sandbox.attacks.host import host

REPOSITORY = Path(__file__).parents[2]
USER = 54321
NAMESPACES = 0x7E020000
"""Flags of clone that make namespaces."""
PRIVILEGED = (165, 166, 155, 272, 308, 428, 429, 430, 431, 432, 433, 442)
"""mount, umount2, pivot_root, unshare, setns, open_tree, move_mount, fsopen and its kin, mount_setattr."""

HOME = """
set -e
home=$1 user=$2
shift 2
if [ -n "$home" ]; then
  mkdir -p "$SCRATCH/home"
  mount --bind "$home" "$SCRATCH/home"
  top=/$(echo "$home" | cut -d/ -f2)
  mount -t tmpfs -o mode=755 tmpfs "$top"
  mkdir -p "$home"
  mount --move "$SCRATCH/home" "$home"
fi
exec setpriv --reuid "$user" --regid "$user" --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""
"""In a mount namespace of its own: opens the way to Python, should only root have it, and becomes the user."""


def report(scratch: Path, *arguments: str, user: int = 0) -> dict[str, Any]:
    """What this module prints, run as that user (0: as who we are)."""
    command = [sys.executable, "-m", "tests.sandbox.unprivileged", *arguments]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}
    if user:
        environment |= {"SCRATCH": str(scratch), "HOME": "/tmp", "TMPDIR": "/tmp"}
        command = ["unshare", "-m", "sh", "-c", HOME, "sh", _closed_home(), str(user), *command]
    done = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _closed_home() -> str:
    """The folder in root's home that Python lies in, where others may not enter it."""
    python = Path(sys.base_prefix).resolve()
    closed = [path for path in python.parents if len(path.parts) > 1 and not path.stat().st_mode & 1]
    return str(closed[0] / python.relative_to(closed[0]).parts[0]) if closed else ""


def contain() -> None:
    """Forbid this process what Docker's default profile forbids: mounts and namespaces."""
    refuse = 0x00050000 | errno.EPERM
    steps = [(0x20, 0, 0, 0)]
    for number in PRIVILEGED:
        steps += [(0x15, 0, 1, number), (0x06, 0, 0, refuse)]
    steps += [(0x15, 0, 1, 435), (0x06, 0, 0, 0x00050000 | errno.ENOSYS)]
    steps += [(0x15, 0, 3, 56), (0x20, 0, 0, 16), (0x45, 0, 1, NAMESPACES), (0x06, 0, 0, refuse)]
    steps.append((0x06, 0, 0, 0x7FFF0000))
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.filter_calls(b"".join(struct.pack("=HBBI", *step) for step in steps))


def attacks(tiers: list[str], chosen: list[Attack]) -> dict[str, list[str]]:
    """What is wrong with each control and in each tier. Exhaustion is the same for all users: no controls here."""
    wrong: dict[str, list[str]] = {}
    with host() as bait:
        for attack in chosen:
            found = []
            needless = attack.no_control or (attack.privileged and os.geteuid()) or attack in CATEGORIES["exhaustion"]
            if not needless and not attack.won(seen := bait.control(attack)):
                found.append(
                    f"the control failed: {seen.outcome.kind} {seen.outcome.detail} {seen.outcome.value!r:.100}"
                )
            for tier in tiers:
                found += [f"{tier}: {words}" for words in bait.assault(attack, tier)]  # type: ignore[arg-type]
            if found:
                wrong[attack.name] = found
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--container", action="store_true")
    parser.add_argument("--tiers", default="full,reduced")
    parser.add_argument("--attacks", default="")
    asked = parser.parse_args()
    if asked.container:
        contain()
    names = set(asked.attacks.split(",")) - {""}
    chosen = [attack for attack in ATTACKS if not names or attack.name in names]
    wrong = attacks(asked.tiers.split(","), chosen)
    found = {"user": os.geteuid(), "isolation": plan.isolation(), "attacks": len(chosen), "wrong": wrong}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
