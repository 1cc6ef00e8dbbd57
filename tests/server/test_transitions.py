"""Jobs go from state to state as a model of a few lines says, whatever clients and supervisor do in whatever order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import Connection, create_engine, insert, select
from sqlalchemy.pool import StaticPool

from sharpen.server.errors import APIError
from sharpen.server.jobs.actions import Action, ask
from sharpen.server.jobs.change import Illegal, add_event, move
from sharpen.server.keys import LOCAL
from sharpen.server.states import Status
from sharpen.server.tables import events, jobs, metadata
from tests.server.jobs_lab import job_row

ENDS = {"succeeded", "failed", "cancelled"}

CLIENT = {
    ("validating_files", "cancel"): "cancelled",
    ("queued", "cancel"): "cancelled",
    ("queued", "pause"): "paused",
    ("paused", "cancel"): "cancelled",
    ("paused", "resume"): "queued",
}
"""What a client's request does at once to a job that does not run."""

SUPERVISOR: dict[str, tuple[Status, ...]] = {
    "validating_files": ("queued", "queued", "failed"),
    "queued": ("running", "running", "running", "failed"),
    "running": ("queued", "paused", "queued", "paused", "succeeded", "failed", "cancelled"),
}
"""What the supervisor does, what should be tried often more than once."""


class Jobs(RuleBasedStateMachine):
    """Some jobs in a database, and the same in a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.engine = create_engine("sqlite://", poolclass=StaticPool)
        metadata.create_all(self.engine)
        self.states: dict[str, str] = {}
        self.wanted: dict[str, str] = {}
        self.told: Counter[str] = Counter()

    def teardown(self) -> None:
        self.engine.dispose()

    def change(self, do: Callable[[Connection], Any]) -> Any:
        """As the server's writer does: all or nothing."""
        with self.engine.begin() as connection:
            return do(connection)

    def one(self, number: int, *states: str) -> str | None:
        """One of the jobs in these states."""
        names = [name for name, state in self.states.items() if not states or state in states]
        return names[number % len(names)] if names else None

    @precondition(lambda self: sum(state not in ENDS for state in self.states.values()) < 2)
    @rule(status=st.sampled_from(["queued", "validating_files"]))
    def create(self, status: str) -> None:
        row = job_row(status)
        self.change(lambda connection: connection.execute(insert(jobs).values(row)))
        self.states[row["id"]], self.wanted[row["id"]] = status, "run"

    @rule(number=st.integers(0, 5), action=st.sampled_from(["pause", "resume", "pause", "resume", "cancel"]))
    def ask(self, number: int, action: Action) -> None:
        """Mostly of jobs that have not ended."""
        job = self.one(number) if number == 0 else self.one(number, "validating_files", "queued", "running", "paused")
        if job is None:
            return
        state, wanted = self.states[job], self.wanted[job]
        goes = CLIENT.get((state, action))
        allowed = goes is not None
        if state == "running":
            allowed = action == "cancel" or (action == "pause" and wanted != "cancel")
        try:
            row = self.change(lambda connection: ask(connection, LOCAL, job, action))
        except APIError as error:
            assert not allowed and error.status == 400 and state in error.body["message"]
            return
        assert allowed
        if goes:
            self.states[job] = goes
            self.wanted[job] = {"cancelled": "cancel", "paused": "pause", "queued": "run"}[goes]
            self.told[job] += 1
        elif wanted != action:
            self.wanted[job] = action
            self.told[job] += 1
        assert (row.status, row.wanted) == (self.states[job], self.wanted[job])

    @rule(number=st.integers(0, 1), choice=st.integers(0, 6))
    def supervise(self, number: int, choice: int) -> None:
        if (job := self.one(number, *SUPERVISOR)) is None:
            return
        likely = SUPERVISOR[self.states[job]]
        to = likely[choice % len(likely)]
        goes: str = to
        if self.states[job] == "running" and to in ("queued", "paused"):
            goes = {"cancel": "cancelled", "pause": "paused"}.get(self.wanted[job], to)
        row = self.change(lambda connection: move(connection, job, to))
        assert row.status == goes
        self.states[job] = goes
        self.wanted[job] = {"cancelled": "cancel", "paused": "pause", "queued": "run"}.get(goes, self.wanted[job])
        self.told[job] += 1

    @rule(number=st.integers(0, 5), to=st.sampled_from(["queued", "running", "paused", "failed", "cancelled"]))
    def nothing_follows_an_end(self, number: int, to: Status) -> None:
        if (job := self.one(number, *ENDS)) is None:
            return
        with pytest.raises(Illegal):
            self.change(lambda connection: move(connection, job, to))

    @rule(number=st.integers(0, 5), event=st.integers(0, 3))
    def tell(self, number: int, event: int) -> None:
        """What has an id is told once, however often."""
        if (job := self.one(number)) is None:
            return
        id = f"{job}-{event}"
        with self.engine.connect() as connection:
            new = connection.execute(select(events.c.id).where(events.c.id == id)).first() is None
        self.change(lambda connection: add_event(connection, job, "step", id=id))
        self.told[job] += new

    @invariant()
    def agree(self) -> None:
        with self.engine.connect() as connection:
            rows = connection.execute(select(jobs)).all()
            told = Counter(connection.execute(select(events.c.job_id)).scalars().all())
        assert {row.id: row.status for row in rows} == self.states
        assert {row.id: row.wanted for row in rows} == self.wanted
        assert all((row.finished_at is not None) == (row.status in ENDS) for row in rows)
        assert told == +self.told


def test_no_order_of_requests_and_processes_takes_a_job_where_it_may_not_go() -> None:
    run_state_machine_as_test(Jobs, settings=settings(max_examples=80, stateful_step_count=40, deadline=None))


def test_a_retried_request_finds_what_the_first_has_done() -> None:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    with engine.begin() as connection:
        row = job_row()
        connection.execute(insert(jobs).values(row))
        for action, state in (("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")):
            first = ask(connection, LOCAL, row["id"], action)  # type: ignore[arg-type]
            again = ask(connection, LOCAL, row["id"], action, again=True)  # type: ignore[arg-type]
            assert first.status == again.status == state
        told = connection.execute(select(events.c.message)).scalars().all()
    assert len(told) == 3
    engine.dispose()
