"""Which sandbox this machine has, tried out before it is trusted, and the blueprint of a jail in it."""

from __future__ import annotations

import os
import re
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import metadata
from pathlib import Path

from sharpen.errors import GraderError
from sharpen.sandbox import canary
from sharpen.sandbox.confine import Isolation
from sharpen.sandbox.jail import Blueprint, Jail
from sharpen.sandbox.outcome import Limits
from sharpen.sandbox.run import SandboxUnavailable

UNSAFE = "SHARPEN_UNSAFE_RUN_UNTRUSTED_CODE"
"""The environment's name for `--unsafe-run-untrusted-code`; it reaches worker and rank processes."""

WORDS: dict[Isolation, str] = {
    "full": "full: namespaces, Landlock, seccomp, limits",
    "reduced": "reduced: no namespaces here; Landlock or seatbelt, a filter of system calls, limits, nothing writable",
    "none": "none: the operator runs untrusted code with all rights (--unsafe-run-untrusted-code)",
}
"""What an isolation means."""

STANDARD = (
    "base64 bisect collections copy ctypes dataclasses datetime decimal enum fractions functools hashlib heapq io "
    "itertools json math operator queue random re statistics string textwrap threading time traceback typing"
).split()
"""Modules of the standard library that every zygote has loaded."""

LIBRARIES = ("/lib", "/lib64", "/usr/lib64")
"""Folders of shared libraries; of /lib and /usr/lib only the machine's own (`x86_64-linux-gnu`)."""
FACTS = ("/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime")


def blueprint(
    isolation: Isolation, packages: Iterable[str] = (), preload: Sequence[str] = (), harness: str = "program"
) -> Blueprint:
    """A jail with the standard library and these distributions with all they need, and nothing else to be read.

    Raises GraderError when a distribution is not installed.
    """
    standard = sysconfig.get_path("stdlib")
    dynamic = sysconfig.get_config_var("DESTSHARED") or os.path.join(standard, "lib-dynload")
    hidden = tuple(os.path.join(standard, name) for name in ("site-packages", "dist-packages", "test"))
    folders, files = _installed(packages)
    return Blueprint(
        isolation,
        path=(standard, dynamic, *folders),
        readable=(*_without_nested((standard, dynamic, *_libraries())), *files),
        hidden=hidden,
        preload=(*STANDARD, *preload),
        harness=harness,
    )


def trusted_blueprint(isolation: Isolation, preload: Sequence[str]) -> Blueprint:
    """A jail for our own code, with all that can be imported here."""
    path = tuple(os.path.abspath(entry) for entry in sys.path if entry and os.path.exists(entry))
    readable = _without_nested((*path, sysconfig.get_path("stdlib"), *_libraries()))
    return Blueprint(isolation, path=path, readable=readable, preload=tuple(preload), harness="jobs")


def isolation() -> Isolation:
    """What this machine's sandbox is, with every wall tried out; known after the first call.

    Raises SandboxUnavailable where there is none, with the reasons, unless the operator has opted out of it.
    """
    if os.environ.get(UNSAFE) == "1":
        return "none"
    return _isolation()


@cache
def _isolation() -> Isolation:
    if sys.platform == "win32":
        raise SandboxUnavailable(
            "sandbox_unavailable: Windows has no sandbox for graders and programs",
            remedy="Run sharpen inside WSL2, where it has",
        )
    reasons = []
    for tier in ("full", "reduced"):
        found = surprises(tier)
        if not found:
            return tier
        reasons.append(f"{tier}: {'; '.join(found)}")
    raise SandboxUnavailable(
        f"sandbox_unavailable: no program can be run here without danger ({' | '.join(reasons)})",
        remedy="See docs/security.md; --unsafe-run-untrusted-code runs it all the same, and the run records that",
    )


def surprises(tier: Isolation) -> list[str]:
    """What is wrong with this tier here: why it cannot be built, or which canary attacks succeeded in it."""
    try:
        with Jail(blueprint(tier)) as jail, _bait() as (secret, folder):
            with jail.run(canary.SOURCE, Limits(seconds=10, memory=1 << 30, disk=1 << 20)) as run:
                loaded, benign = run.loaded(), run.call("benign", [3, 1, 2])
                attacks = run.call("attacks", str(secret), str(folder))
    except (GraderError, OSError) as error:
        return [str(error)]
    if loaded.kind != "value" or benign.value != [1, 2, 3]:
        return [f"an honest program failed: {loaded.detail or benign.detail or benign.value}"]
    if attacks.kind != "value":
        return [f"the canaries did not come back: {attacks.kind}, {attacks.detail}"]
    if attacks.value["tried"] < canary.COUNT:
        return [f"only {attacks.value['tried']} of {canary.COUNT} canaries were tried"]
    return [f"an attack succeeded: {name}" for name in attacks.value["succeeded"]]


@cache
def distributions() -> Mapping[str, Sequence[str]]:
    """The installed distributions that each module comes with."""
    return metadata.packages_distributions()


def modules(package: str) -> list[str]:
    """The modules that a distribution is imported by, but for its private ones."""
    name = _normal(package)
    return [
        module
        for module, owners in distributions().items()
        if name in map(_normal, owners) and module.isidentifier() and not module.startswith("_")
    ]


@contextmanager
def _bait() -> Iterator[tuple[Path, Path]]:
    """A file that a canary shall fail to read, and a folder that it shall fail to write to; anyone may do both."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        secret = folder / "secret"
        secret.write_text("bait")
        os.chmod(folder, 0o777)
        os.chmod(secret, 0o666)
        yield secret, folder


def _libraries() -> Iterator[str]:
    triplet = sysconfig.get_config_var("MULTIARCH") or ""
    yield from (path for path in (f"/lib/{triplet}", f"/usr/lib/{triplet}") if triplet and os.path.isdir(path))
    if not triplet or not os.path.isdir(f"/usr/lib/{triplet}"):
        yield from (path for path in LIBRARIES if os.path.isdir(path))
    own = os.path.join(sys.base_prefix, "lib")
    yield from (entry.path for entry in os.scandir(own) if ".so" in entry.name and sys.base_prefix != "/usr")
    yield from (path for path in FACTS if os.path.exists(path))


def _without_nested(paths: Iterable[str]) -> tuple[str, ...]:
    """The paths, but for those below another."""
    kept: list[str] = []
    for path in sorted(set(paths), key=len):
        if not any(path == other or path.startswith(other.rstrip("/") + "/") for other in kept):
            kept.append(path)
    return tuple(kept)


def _installed(packages: Iterable[str]) -> tuple[list[str], list[str]]:
    """The folders to import distributions from, with all they require, and the files and folders they consist of."""
    waiting, seen = list(packages), set[str]()
    folders, files = set[str](), set[str]()
    while waiting:
        name = _normal(waiting.pop())
        if name in seen:
            continue
        seen.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise GraderError(
                f"the package {name!r}, which a grader needs, is not installed",
                remedy=f"{sys.executable} -m pip install 'sharpen[graders]', or the package itself",
            ) from None
        root = str(found.locate_file(""))
        folders.add(root)
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__", "bin")}
        files |= {os.path.join(root, top) for top in tops if os.path.exists(os.path.join(root, top))}
        waiting += _required(found)
    return sorted(folders), sorted(files)


def _normal(name: str) -> str:
    """A distribution's name as PyPI compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _required(distribution: metadata.Distribution) -> Iterator[str]:
    from packaging.requirements import Requirement

    for line in distribution.requires or ():
        requirement = Requirement(line)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield requirement.name
