"""What the tests of runs and stages share."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from sharpen.stages import pipeline
from tests.runs.lab import World, bits, quick

LONG = (
    "test_presets_learn",
    "test_code_learning",
    "test_real_model",
    "test_judged_learning",
    "test_as_another_user",
    "for_another_user",
)
"""What takes a minute begins first, so that no worker is left alone with it at the end."""


def pytest_configure() -> None:
    """Ctrl-C means something to the children of tests, also where the tests themselves run in the background."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not any(name in item.nodeid for name in LONG))


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here() -> Iterator[None]:
    """Grade in this process."""
    with quick():
        yield


@pytest.fixture(scope="session")
def undisturbed(world: World, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The bits of `world.whole()`, run without a hitch."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    with quick():
        pipeline.run(world.whole(), run, base=world.folder)
    return bits(run)
