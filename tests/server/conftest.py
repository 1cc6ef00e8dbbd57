"""Both databases: SQLite always, PostgreSQL where its programs are (or must be: SHARPEN_REQUIRE_POSTGRES=1)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import postgres
from tests.server.jobs_lab import Lab, database


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgres.Cluster]:
    """One PostgreSQL for all tests of this process."""
    programs = postgres.programs()
    if programs is None:
        told = "PostgreSQL's programs (Debian: apt install postgresql) are not on this machine"
        if os.environ.get("SHARPEN_REQUIRE_POSTGRES") == "1":
            pytest.fail(told)
        pytest.skip(told)
    with postgres.Cluster(programs) as made:
        yield made


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database of each kind."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'test.db'}"
        return
    cluster: postgres.Cluster = request.getfixturevalue("cluster")
    with cluster.database() as url:
        yield url


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def lab(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """The application without processes, on each kind of database."""
    with database(request) as url:
        made = Lab(tmp_path_factory.mktemp("lab"), database=url)
        yield made
        made.close()


@pytest.fixture
def postgresql_url(cluster: postgres.Cluster) -> Iterator[str]:
    """The address of an empty database of PostgreSQL."""
    with cluster.database() as url:
        yield url
