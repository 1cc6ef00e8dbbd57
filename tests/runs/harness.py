"""Kill a tiny run again and again: `python -m tests.runs.harness FOLDER EVERY RECIPE` prints a line a kill point.

EVERY thins the kinds of change to the disk at which it kills: 1 takes all of them. RECIPE is `whole`; `turns` for
a run in an environment, at the points that only such a run has; `adapted` for one that trains adapters; `preferred` for
one that learns from pairs; or `branched` for one whose stages do not all start from the one before.

It is a process of its own, which has imported everything and started no threads, so that it can fork: each
child runs the pipeline and sends itself SIGKILL at a chosen point; the next goes on with the directory.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
from collections import defaultdict
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import peft  # noqa: F401 - imported before the forks, as is what follows

from sharpen.reports import html  # noqa: F401
from sharpen.runs import manifest, store
from sharpen.runs.observer import Observer
from sharpen.stages import pipeline, summary
from tests.runs.lab import World, bits, differences, forked, lineages, one_thread, quick

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = {"os.rename", "os.truncate", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"}


@dataclass
class Point:
    """Where to kill; `arm` prepares the child for it."""

    name: str
    arm: Callable[[Path], None]
    workers: bool = False


class Disk(Observer):
    """Counts everything that changes the disk under `folder`, and what the run tells its observer."""

    def __init__(self, folder: Path, stop: int | None) -> None:
        self.folder = str(folder)
        self.stop = stop
        self.seen: list[str] = []

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Python calls this before each such operation."""
        if event != "open" and event not in CHANGES:
            return
        path = str(arguments[0])
        relative = not os.path.isabs(path)  # inside shutil.rmtree
        if not (path.startswith(self.folder) or (relative and event in ("os.remove", "os.rmdir"))):
            return
        if event == "open" and not arguments[2] & WRITING:
            return
        self.tick(f"{event} {self._kind(path)}")

    def tick(self, what: str) -> None:
        """One more point passed; the last thing this process does may be to come here."""
        self.seen.append(what)
        if self.stop is not None and len(self.seen) > self.stop:
            os.kill(os.getpid(), signal.SIGKILL)

    def event(self, event: Any) -> None:
        self.tick(f"after event {event['event']}")

    def metrics(self, line: Any) -> None:
        self.tick(f"after metrics {line['type']}")

    def rollout(self, line: Any) -> None:
        self.tick("after rollouts")

    def progress(self, what: str, done: int, total: int) -> None:
        self.tick(f"progress {what}")

    def _kind(self, path: str) -> str:
        """The path without its numbers, so that the same place of each step is one kind."""
        return "".join("#" if character.isdigit() else character for character in path.removeprefix(self.folder))


def at(count: int, name: str) -> Point:
    """Kill at the `count`-th change (from 0)."""
    return Point(f"{count}: {name}", lambda run: watch(Disk(run, count)))


WATCHER: list[Observer] = []


def watch(disk: Disk) -> None:
    """Count from now on. Hooks of the interpreter cannot be taken out: only children do this."""
    sys.addaudithook(disk.audit)
    WATCHER[:] = [disk]


def torn(function: str, part: str, count: int, share: float) -> Point:
    """Kill inside the `count`-th write to a path with `part` in it, when `share` of its bytes are on disk."""

    def arm(run: Path) -> None:
        left = [count]
        original = getattr(store, function)

        def write(path: Path, *arguments: Any, **options: Any) -> None:
            before = path.stat().st_size if path.exists() and function == "append" else 0
            left[0] -= part in str(path)
            if left[0] >= 0:
                original(path, *arguments, **options)
                return
            target = path if function == "append" else path.with_name("torn")
            original(target, *arguments, **options)
            size = target.stat().st_size
            if function == "write_text":
                target = target.rename(path.with_name(f".{path.name}.writing"))
            os.truncate(target, before + int((size - before) * share))
            os.kill(os.getpid(), signal.SIGKILL)

        for module in (store, summary):
            mock.patch.object(module, function, write, create=True).start()

    return Point(f"{share:.0%} of {function} {count} of {part}", arm)


def too_big(limit: int) -> Point:
    """The system kills the process in the middle of the first write that goes past `limit` bytes."""

    def arm(run: Path) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return Point(f"a write past byte {limit}", arm)


def between_files(count: int) -> Point:
    """Kill inside `publish`, before the `count`-th fsync."""

    def arm(run: Path) -> None:
        left = [count]
        original = manifest._sync

        def sync(path: Path) -> None:
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            original(path)

        manifest._sync = sync

    return Point(f"fsync {count} of publish", arm)


def with_workers(count: int) -> Point:
    """Kill with real graders at work in their processes."""
    point = at(count, "with workers")
    return Point(point.name, point.arm, workers=True)


def choose(seen: list[str], every: int) -> list[Point]:
    """One change of each `every`-th kind, now an early one, now a late one, and some spread evenly over the run."""
    kinds: dict[str, list[int]] = defaultdict(list)
    for index, what in enumerate(seen):
        kinds[what].append(index)
    ordered = list(kinds.values())
    chosen = {places[7 * turn % len(places)] for turn, places in enumerate(ordered) if turn % every == 0}
    chosen |= {round(share * (len(seen) - 1) / 8) for share in range(9)}
    return [at(index, seen[index]) for index in sorted(chosen)]


def points_of_whole(seen: list[str], every: int) -> list[Point]:
    """All over a run, and inside of its writes."""
    points = choose(seen, every)
    points += [torn("append", "metrics", count, share) for count, share in ((0, 0.0), (4, 0.5), (8, 0.99))]
    points += [torn("append", "events", count, 0.7) for count in (0, 5, 12)]
    points += [torn("append", "journal", count, share) for count, share in ((0, 0.4), (2, 0.7), (4, 0.1))]
    points += [torn("write_text", part, 0, 0.5) for part in ("rollouts", "evals", "summary")]
    points += [between_files(count) for count in (0, 7, 9, 20, 31)]
    points += [too_big(limit) for limit in (0, 400, 20_000, 60_000)]
    return points + [with_workers(len(seen) * share // 8) for share in (3, 6)]


def points_of_turns(seen: list[str], every: int) -> list[Point]:
    """While turns are sampled, and inside the journal of episodes, some of them noted and some not."""
    sampling = [index for index, what in enumerate(seen) if what == "progress sample"]
    points = [at(sampling[len(sampling) * share // 8], "progress sample") for share in (1, 3, 5, 7)]
    points += [at(index, what) for index, what in enumerate(seen) if "+env" in what][:: 2 * every]
    points += [torn("append", "+env", count, share) for count, share in ((0, 0.5), (1, 0.8), (2, 0.2))]
    return [*points, with_workers(len(seen) // 2)]


def points_of_pairs(seen: list[str], every: int) -> list[Point]:
    """All over a run, and while answers are scored before the first step of a stage: early, in the middle, late."""
    scoring = [index for index, what in enumerate(seen) if "scoring" in what]
    scored = [at(scoring[len(scoring) * share // 4], "scoring") for share in (0, 2, 3)]
    return [*choose(seen, every), *scored]


PLANS = {
    "whole": points_of_whole,
    "turns": points_of_turns,
    "adapted": choose,
    "branched": choose,
    "preferred": points_of_pairs,
}


def made(run: Path) -> dict[str, Any]:
    """All that a run came to."""
    return {**bits(run), **lineages(run)}


def main(folder: Path, every: int, plan: str) -> None:
    """Print a line for the undisturbed run, then one for each kill point."""
    one_thread()
    world = World(folder / "world")
    recipe = getattr(world, plan)()
    log = folder / "log"

    def start(run: Path) -> None:
        pipeline.run(recipe, run, base=world.folder, observer=WATCHER[0] if WATCHER else None)

    def go_on(run: Path) -> None:
        """Resume; a run killed before its recipe stood on disk begins anew."""
        if (run / "recipe.yaml").exists():
            pipeline.resume(run, observer=WATCHER[0] if WATCHER else None)
        else:
            start(run)

    def child(work: Callable[[Path], None], run: Path, point: Point | None = None) -> tuple[int, str]:
        def body() -> None:
            with nullcontext() if point and point.workers else quick():
                if point:
                    point.arm(run)
                work(run)

        return forked(body, log)

    def record(run: Path) -> None:
        disk = Disk(run, None)
        watch(disk)
        start(run)
        seen = list(disk.seen)
        (folder / "seen.json").write_text(json.dumps(seen))

    undisturbed = folder / "undisturbed"
    assert child(record, undisturbed) == (0, ""), log.read_text()
    seen = json.loads((folder / "seen.json").read_text())
    expected = made(undisturbed)
    print(json.dumps({"changes": len(seen), "kinds": len(set(seen))}), flush=True)

    for number, point in enumerate(PLANS[plan](seen, every)):
        run = folder / f"run-{number}"
        status, said = child(start, run, point)
        statuses = [status]
        if number % 4 == 0:  # the second process is killed as well, a little later
            statuses.append(child(go_on, run, at(60 + 5 * number, "again"))[0])
        final, said = child(go_on, run)
        wrong = differences(made(run), expected) if final == 0 else [said or log.read_text()[-2000:]]
        print(json.dumps({"point": point.name, "statuses": statuses, "final": final, "wrong": wrong}), flush=True)
        if not wrong:
            shutil.rmtree(run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
