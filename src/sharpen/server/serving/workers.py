"""The workers of all models: started when asked for, ended when nobody asks, never more than there are cores."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from sharpen.models import hub, registry
from sharpen.models.bases import BASES
from sharpen.server.errors import APIError
from sharpen.server.names import Served
from sharpen.server.serving.link import Link, Unable
from sharpen.server.serving.pieces import Ask, Piece
from sharpen.server.settings import Settings

LOOKS = 5.0
"""Seconds between two looks at who is idle, at most."""
AFTER_CRASH, AT_MOST = 1.0, 60.0
"""Seconds before a model is started again: after its first crash, doubled at each further one, and no more than."""
QUIET = 120.0
"""Seconds of work after which earlier crashes are forgotten."""
FULL, NO_ROOM = 2, 10
"""Seconds after which a client may ask again: where many wait, and where there is no room for the model."""
WEIGHT, BESIDE = 2.2, 512 << 20
"""Memory that a worker takes: so many times its weights' files, which are laid out twice, and so many bytes more."""

log = logging.getLogger("sharpen.server.workers")


class Cores(Protocol):
    """The budget of threads that jobs and workers share."""

    @property
    def free(self) -> int:
        """How many nobody has."""
        ...

    def take(self, owner: str, n: int) -> bool:
        """Whether `owner` has them now; False: nothing is taken."""
        ...

    def give(self, owner: str) -> None:
        """Back what the owner has."""
        ...


@dataclass(eq=False)
class Place:
    """One model, loaded or not."""

    model: str
    """What is loaded: an alias, a hub id or a folder."""

    name: str
    link: Link | None = None
    started: float = 0.0
    crashes: int = 0
    not_before: float = 0.0
    asked: int = 0
    """Requests that wait for it or run."""

    used: float = field(default_factory=time.monotonic)
    pins: set[str] = field(default_factory=set)
    holds: bool = False
    """Whether cores are taken for it."""

    loading: asyncio.Task[Link] | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def owner(self) -> str:
        """Its name in the budget of cores."""
        return f"worker:{self.model}"

    @property
    def idle(self) -> bool:
        """Whether it may be unloaded."""
        return self.holds and not (self.asked or self.pins or self.lock.locked())


class Workers:
    """A part of the server: a worker for each local model that is asked for."""

    def __init__(self, settings: Settings, cores: Cores) -> None:
        self.settings = settings
        self.cores = cores
        self._places: dict[str, Place] = {}
        self._watch: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to watch for idle and silent workers."""
        self._watch = asyncio.create_task(self._look())

    async def stop(self) -> None:
        """End all workers."""
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        for place in self._places.values():
            if place.loading:
                place.loading.cancel()
        await asyncio.gather(*(self._unload(place) for place in self._places.values()))

    def loaded(self) -> dict[str, int]:
        """The models that are loaded, and how many requests wait for each or run."""
        return {place.name: place.asked for place in self._places.values() if place.link and place.link.alive}

    def pinned(self, path: str) -> bool:
        """Whether a job has the model of this folder as judge."""
        place = self._places.get(path)
        return bool(place and place.pins)

    async def generate(self, served: Served, ask: Ask) -> AsyncGenerator[Piece, None]:
        """The pieces of an answer; leaving early cancels it.

        Raises APIError: 400 for what the model cannot answer, 429 where too many wait, 503 where the model cannot be
        had now.
        """
        place = self._place(served)
        most = self.settings.limits.chat_queue
        if place.asked + ask.n > most:
            raise APIError(
                429,
                f"{place.asked} completions of {served.name!r} wait or run already, the limit is {most}.",
                code="model_busy",
                headers={"Retry-After": str(FULL)},
            )
        place.asked += ask.n
        try:
            link = await self._running(place)
            async with aclosing(link.ask(ask)) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            place.asked -= ask.n
            place.used = time.monotonic()

    async def pin(self, served: Served, owner: str) -> bool:
        """Keep the model's cores for an owner, such as a job that has it as judge; False: there are none free now.

        It is loaded when it is first asked. A model on another server needs no cores.
        """
        if served.kind == "external":
            return True
        place = self._place(served)
        async with place.lock:
            if not place.holds and not await self._take(place):
                return False
            place.pins.add(owner)
            return True

    async def unpin(self, owner: str) -> None:
        """What an owner has pinned may be unloaded."""
        for place in self._places.values():
            if owner in place.pins:
                place.pins.discard(owner)
                place.used = time.monotonic()
                if place.link is None and place.idle:
                    self._give(place)

    async def make_room(self, threads: int) -> None:
        """Unload models that nobody asks now, those longest idle first, until so many threads are free.

        Where all of them would not do, they stay.
        """
        idle = sorted((place for place in self._places.values() if place.idle), key=lambda place: place.used)
        if self.cores.free + len(idle) * self.settings.worker_threads < threads:
            return
        for place in idle:
            if self.cores.free < threads and place.idle:  # still, after waiting for others
                await self._unload(place)

    async def forget(self, path: str) -> None:
        """Unload the model of a folder that is deleted."""
        if place := self._places.pop(path, None):
            await self._unload(place)

    def _place(self, served: Served) -> Place:
        model = served.path_or_alias
        return self._places.setdefault(model, Place(model, served.name))

    async def _running(self, place: Place) -> Link:
        """Its worker, started where there is none. Raises APIError 503."""
        if place.link and place.link.alive:
            return place.link
        if place.loading is None or place.loading.done():
            place.loading = asyncio.create_task(self._load(place))
            place.loading.add_done_callback(lambda task: task.cancelled() or task.exception())  # perhaps nobody waits
        # A client that goes away does not end the loading, which others wait for.
        return await asyncio.shield(place.loading)

    async def _load(self, place: Place) -> Link:
        async with place.lock:
            await self._clear(place)
            if (wait := place.not_before - time.monotonic()) > 0:
                raise self._unavailable(place, f"has crashed {place.crashes} times", wait + 1)
            if not place.holds and not await self._take(place):
                raise self._unavailable(place, "waits for cores or memory that others use now", NO_ROOM)
            began = time.monotonic()
            try:
                place.link = await Link.start(place.name, place.model, self.settings.worker_threads)
            except (Unable, OSError) as error:
                log.error("the model %s cannot be served: %s", place.name, error)
                self._crashed(place)
                wait = max(AFTER_CRASH, place.not_before - time.monotonic())
                raise self._unavailable(place, "cannot be loaded; the server's log says why", wait) from None
            place.started = time.monotonic()
            log.info("loaded %s in %.1f s", place.name, place.started - began)
            return place.link

    async def _clear(self, place: Place) -> None:
        """Put a dead worker away."""
        if place.link:
            link, place.link = place.link, None
            if time.monotonic() - place.started > QUIET:
                place.crashes = 0
            self._crashed(place)
            log.error("the worker of %s died (exit %s)", place.name, link.process.returncode)
            await link.stop()

    def _crashed(self, place: Place) -> None:
        place.crashes += 1
        if place.crashes > 1:  # after a single one it starts at once
            wait = AFTER_CRASH * 2 ** min(place.crashes - 2, 10)
            place.not_before = time.monotonic() + min(AT_MOST, wait)
        if not place.pins:
            self._give(place)

    async def _take(self, place: Place) -> bool:
        """Cores and memory for a model; others that are idle make room, those longest idle first."""
        need = await asyncio.to_thread(_memory, place.model)
        while (crowded := _free() < need) or not self.cores.take(place.owner, self.settings.worker_threads):
            idle = [other for other in self._places.values() if other.idle and other is not place]
            if not idle:
                if crowded:
                    log.warning("no memory for %s: %d MiB are needed", place.name, need >> 20)
                return False
            await self._unload(min(idle, key=lambda other: other.used))
        place.holds = True
        return True

    def _give(self, place: Place) -> None:
        if place.holds:
            place.holds = False
            self.cores.give(place.owner)

    async def _unload(self, place: Place) -> None:
        async with place.lock:
            link, place.link = place.link, None
            if link:
                await link.stop()
                log.info("unloaded %s", place.name)
            if not place.pins:
                self._give(place)

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(min(LOOKS, self.settings.idle_seconds / 4))
            for place in list(self._places.values()):
                if place.link and place.link.silent:
                    log.error("the worker of %s hangs, and is ended", place.name)
                    place.link.kill()
                elif place.link and not place.link.alive and not place.lock.locked():
                    async with place.lock:
                        await self._clear(place)
                elif place.idle and time.monotonic() - place.used > self.settings.idle_seconds:
                    await self._unload(place)

    def _unavailable(self, place: Place, why: str, seconds: float) -> APIError:
        return APIError(
            503,
            f"The model {place.name!r} {why}. Try again in {seconds:.0f} s.",
            code="model_unavailable",
            headers={"Retry-After": str(max(1, round(seconds)))},
        )


def _memory(model: str) -> int:
    """Bytes that a worker of the model takes, roughly."""
    path = Path(model)
    if not path.is_dir():
        named = registry.folder(model) if model in BASES else None
        found = hub.parse(model)
        path = named or (hub.here(found) if found else None) or path
    return round(sum(file.stat().st_size for file in path.glob("*.safetensors")) * WEIGHT) + BESIDE


def _free() -> int:
    """Bytes of memory that are free, or would be if they were needed; without limit where nothing says."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) << 10
    except OSError:
        pass
    return 1 << 62
