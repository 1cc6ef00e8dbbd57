"""What the tests of the stages share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.runs.lab import World, quick


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("world"))


@pytest.fixture
def here() -> Iterator[None]:
    """Grade in this process."""
    with quick():
        yield
