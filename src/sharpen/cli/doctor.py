"""`sharpen doctor`: what this machine has, what is missing, and the command that mends it."""

from __future__ import annotations

import importlib
import platform
import shlex
import statistics
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from sharpen.cli import forecast, machine
from sharpen.cli.quickstart import recipe_path
from sharpen.errors import SharpenError
from sharpen.reports.numbers import duration, memory

if TYPE_CHECKING:
    from sharpen.sandbox.confine import Isolation

OLDEST_PYTHON = (3, 11)
LEAST_MEMORY = 4e9  # bytes: the quickstart's peak, and room to breathe
LEAST_DISK = 3e9  # bytes: a run's checkpoints and models

PACKAGES = {  # what is imported: what is installed
    "numpy": "numpy",
    "pydantic": "pydantic>=2",
    "yaml": "PyYAML",
    "rich": "rich",
    "torch": "torch==2.13.0",
    "transformers": "transformers>=5.17",
    "safetensors": "safetensors",
    "math_verify": "math-verify",
    "reasoning_gym": "reasoning-gym",
}


class Finding(NamedTuple):
    """One line: `error` is essential and missing, `warn` is worth knowing."""

    state: Literal["ok", "warn", "error"]
    name: str
    seen: str
    remedy: str = ""


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen doctor` is told."""
    parser.add_argument("--sandbox", action="store_true", help="try the sandbox out, wall by wall")


def doctor(options: Namespace) -> int:
    """Print every finding; 1 when something essential is missing."""
    states = []
    for finding in sandbox() if options.sandbox else findings():
        print(f"{MARKS[finding.state]} {finding.name:<13} {finding.seen}", flush=True)
        if finding.remedy:
            print(f"  {'':<13} → {finding.remedy}")
        states.append(finding.state)
    missing = states.count("error")
    if missing:
        print(f"\n{missing} essential {'thing is' if missing == 1 else 'things are'} missing; → says how to mend it.")
    else:
        print(f"\nAll that is essential is here.{'' if options.sandbox else ' Try: sharpen quickstart'}")
    return 1 if missing else 0


MARKS = {"ok": "✓", "warn": "!", "error": "✗"}


def findings() -> Iterator[Finding]:
    """Look at one thing after the other, the slow ones last."""
    yield _python()
    packages = [_package(module, requirement) for module, requirement in PACKAGES.items()]
    yield from packages
    yield from _hardware()
    yield _model()
    yield isolation()
    sound = {finding.name for finding in packages if finding.state == "ok"}
    if sound >= {"torch", "transformers", "pydantic", "PyYAML"}:
        yield from _torch()
    else:
        yield Finding("warn", "speed", "not measured, for want of the packages above")


def _python() -> Finding:
    seen = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= OLDEST_PYTHON:
        return Finding("ok", "Python", seen)
    return Finding("error", "Python", seen, "install Python 3.11 or newer: https://www.python.org/downloads/")


def _package(module: str, requirement: str) -> Finding:
    """Whether a package can be imported; a broken one says why."""
    name = requirement.partition("=")[0].rstrip(">")
    install = f"{shlex.quote(sys.executable)} -m pip install {shlex.quote(requirement)}"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        return Finding("error", name, f"cannot be imported: {error}", install)
    except Exception as error:  # a foreign boundary: broken binaries raise OSError and others
        reason = " ".join(str(error).split())[:200]
        return Finding("error", name, f"cannot be imported: {reason}", f"{install} --force-reinstall")
    try:
        return Finding("ok", name, version(name))
    except PackageNotFoundError:
        return Finding("ok", name, "of unknown version")


def _hardware() -> Iterator[Finding]:
    cores, load = machine.cores(), machine.busy()
    yield Finding("ok", "cores", f"{cores} ({platform.machine()}, {platform.system()})")
    if load is not None and load > cores / 2:
        advice = "stop other heavy work, or give each process fewer threads (threads: in the recipe)"
        yield Finding("warn", "load", f"{load:.1f} over the last minute, on {cores} cores", advice)
    units = machine.matrix_units()
    if any(unit in machine.BF16_UNITS for unit in units):
        yield Finding("ok", "matrix units", ", ".join(units))
    else:
        seen = f"{', '.join(units) or 'none known'}; none for bfloat16, so float32 is used, several times slower"
        yield Finding("warn", "matrix units", seen)
    found = machine.memory()
    if found is not None:
        seen = f"{memory(found.total)}, of which {memory(found.free)} free"
        small = found.free < LEAST_MEMORY
        advice = f"close other programs: training takes about {memory(LEAST_MEMORY)}" if small else ""
        yield Finding("warn" if small else "ok", "memory", seen, advice)
    free = machine.disk_free(Path("runs"))
    full = free < LEAST_DISK
    advice = f"free some space, or name another disk with --out: a run takes about {memory(LEAST_DISK)}" if full else ""
    yield Finding("warn" if full else "ok", "disk", f"{memory(free)} free for {Path('runs').resolve()}", advice)


def _model() -> Finding:
    from sharpen.models import registry

    if registry.fetched(registry.DEFAULT):
        return Finding("ok", "model", f"{registry.DEFAULT} in {registry.cached(registry.DEFAULT)}")
    size = memory(registry.ALIASES[registry.DEFAULT].download_bytes)
    seen = f"{registry.DEFAULT} is not here yet; the quickstart fetches it ({size})"
    return Finding("warn", "model", seen, f"sharpen models pull {registry.DEFAULT}")


def sandbox() -> Iterator[Finding]:
    """Each tier of the sandbox with its canaries, and how fast the best is."""
    from sharpen.sandbox import canary, plan
    from sharpen.sandbox.jail import Jail
    from sharpen.sandbox.outcome import Limits

    yield Finding("ok", "system", f"{platform.system()} {platform.release()}, {platform.machine()}")
    tiers: tuple[Isolation, ...] = ("full", "reduced")
    best: Isolation | None = None
    for tier in tiers:
        found = plan.surprises(tier)
        if found:
            yield Finding("warn", tier, "; ".join(found))
        else:
            yield Finding("ok", tier, f"an honest program ran, {canary.COUNT} canary attacks failed")
            best = best or tier
    yield isolation()
    if best:
        with Jail(plan.blueprint(best)) as jail:
            times = []
            for _ in range(20):
                began = time.perf_counter()
                with jail.run("def grade(): return 1", Limits()) as run:
                    run.call("grade") if run.loaded().kind == "value" else None
                times.append(time.perf_counter() - began)
        yield Finding("ok", "speed", f"{1000 * statistics.median(times):.1f} ms for a fresh run ({best}; median of 20)")


def isolation() -> Finding:
    """What graders and programs are run in here."""
    from sharpen.sandbox import plan

    try:
        found = plan.isolation()
    except SharpenError as error:
        return Finding("error", "sandbox", error.fact, error.remedy)
    return Finding("ok" if found == "full" else "warn", "sandbox", plan.WORDS[found])


def _torch() -> Iterator[Finding]:
    """What takes torch: the device, its speed, the quickstart's time."""
    import torch  # heavy

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"
    seen = f"cpu ({build} build of torch, {torch.get_num_threads()} threads)"
    others = (("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available()))
    beside = [name for name, there in others if there]
    yield Finding("ok", "device", f"{seen}; {beside[0]} is there, but not used yet" if beside else seen)
    yield _loops()
    speed = machine.matmul_speed()
    yield Finding("ok", "speed", f"{speed} (a {'×'.join(map(str, machine.SHAPE))} product)")
    yield _quickstart(speed)


def _loops() -> Finding:
    """Whether decoding has its compiled loops."""
    install = f"{shlex.quote(sys.executable)} -m pip install {shlex.quote('sharpen[fast]')}"
    try:
        from sharpen.models import kernels  # needs numba
    except ImportError:
        return Finding("warn", "compiled loops", "not here: sampling is slower than it could be", install)
    if kernels.here():
        return Finding("ok", "compiled loops", f"numba {version('numba')}")
    return Finding("ok", "compiled loops", "not on this system; torch's operations do their work")


def _quickstart(speed: machine.Speed) -> Finding:
    from sharpen.config.load import load

    try:
        found = forecast.forecast(load(recipe_path()), recipe_path().parent, speed)
    except (SharpenError, OSError) as error:
        return Finding("error", "quickstart", f"its recipe cannot be read: {error}", "install sharpen again")
    cut = "".join(f", with {name} cut to {steps} steps" for name, steps in found.steps.items()) if found.cut else ""
    return Finding("ok", "quickstart", f"about {duration(round(found.seconds))}{cut}")
