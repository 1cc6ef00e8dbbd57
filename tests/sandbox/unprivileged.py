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

ENTER = """
set -e
user=$1 tops=$2 paths=$3
shift 3
if [ -n "$tops" ]; then
  mount -t tmpfs tmpfs /mnt
  number=0
  for path in $paths; do
    number=$((number + 1))
    mkdir /mnt/$number
    mount --bind "$path" /mnt/$number
  done
  for top in $tops; do mount -t tmpfs -o mode=1777 tmpfs "$top"; done
  number=0
  for path in $paths; do
    number=$((number + 1))
    mkdir -p "$path"
    mount --move /mnt/$number "$path"
  done
fi
cd "$REPOSITORY"
exec setpriv --reuid "$user" --regid "$user" --clear-groups --bounding-set=-all --inh-caps=-all "$@"
"""
"""In a mount namespace of its own: opens the way to Python and this repository, should only root have it, and becomes
the user."""


def report(*arguments: str, user: int = 0) -> dict[str, Any]:
    """What this module prints, run as that user (0: as who we are)."""
    done = run([sys.executable, "-m", "tests.sandbox.unprivileged", *arguments], user)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(command: list[str], user: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command in this repository as that user (0: as who we are)."""
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}", "PYTHONDONTWRITEBYTECODE": "1"}
    if user:
        environment |= {"REPOSITORY": str(REPOSITORY), "HOME": "/tmp", "TMPDIR": "/tmp"}
        tops, paths = _closed()
        command = ["unshare", "-m", "sh", "-c", ENTER, "sh", str(user), " ".join(tops), " ".join(paths), *command]
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=900)


def _closed() -> tuple[list[str], list[str]]:
    """The top folders on the way to what is needed that others may not go, and all that is needed below them."""
    needed = {Path(path).resolve() for path in (sys.base_prefix, sys.prefix, REPOSITORY)}
    needed = {path for path in needed if not any(other in path.parents for other in needed)}
    tops = {f"/{path.parts[1]}" for path in needed if any(not way.stat().st_mode & 1 for way in (path, *path.parents))}
    return sorted(tops), sorted(str(path) for path in needed if f"/{path.parts[1]}" in tops)


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
