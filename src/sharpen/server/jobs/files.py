"""A job's files: whose they are, and whether they fit the method."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row

from sharpen.server import checks, filing
from sharpen.server.core import Server
from sharpen.server.errors import invalid
from sharpen.server.jobs.body import Method

AT_ONCE = 8 * 2**20
"""Bytes of a file that is checked while the client waits; a larger one makes the job `validating_files`."""


class Files(NamedTuple):
    """The rows of a job's files."""

    training: Row[Any]
    validation: Row[Any] | None

    def waits(self, method: Method) -> bool:
        """Whether a look at them takes longer than a client should wait."""
        return any(file.bytes > AT_ONCE and method not in file.checks for file in self if file is not None)


def look(connection: Connection, project: str, training: str, validation: str | None) -> Files:
    """The files of a job. Raises APIError: not this project's, or of another purpose."""
    first = _file(connection, project, training, "training_file")
    second = None if validation is None else _file(connection, project, validation, "validation_file")
    return Files(first, second)


async def facts(server: Server, project: str, method: Method, sources: Files) -> dict[str, Any]:
    """What a look at the files finds: {rows, tokens, validation_rows, warnings}. Raises APIError with line numbers."""
    first = await _checked(server, sources.training, project, method, "training_file")
    found: dict[str, Any] = {"rows": first.rows, "tokens": first.tokens_estimate, "validation_rows": None}
    found["warnings"] = first.warnings
    if sources.validation is not None:
        second = await _checked(server, sources.validation, project, method, "validation_file")
        found["validation_rows"] = second.rows
        await checks.apart(server, project, method, sources.training.id, sources.validation.id)
    return found


async def _checked(server: Server, file: Row[Any], project: str, method: Method, param: str) -> checks.Checked:
    """`checks.checked`, without another look at the database where a file is known to be good."""
    if (known := file.checks.get(method)) is not None:
        found = checks.Checked.from_json(known)
        if not found.faults:
            return found
    return await checks.checked(server, file.id, project, method, param)


def fits(known: Mapping[str, Any]) -> None:
    """Raise APIError where the training file has no rows."""
    if not known["rows"]:
        raise invalid("The training file has no rows", "training_file", "invalid_file_format")


def _file(connection: Connection, project: str, id: str, param: str) -> Row[Any]:
    row = filing.find(connection, project, id)
    if row is None:
        raise filing.no_file(id, param)
    if row.purpose != "fine-tune":
        raise invalid(
            f"The purpose of the file {id} is {row.purpose!r}; upload it with the purpose 'fine-tune'",
            param,
            "invalid_file_purpose",
        )
    return row
