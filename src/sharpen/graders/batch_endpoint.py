"""`batch_endpoint`: Amazon Bedrock's reward function, from its file or on a server (`bedrock` has its shapes).

A file is run as AWS Lambda runs it: `lambda_handler(event, context)`, with its folder on the path.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from sharpen.client.http import ServiceError, with_secrets
from sharpen.config.graders.adapters import BatchEndpoint
from sharpen.errors import GraderError
from sharpen.graders.asking import Asking
from sharpen.graders.batches import Pair, split
from sharpen.graders.bedrock import Call
from sharpen.graders.endpoint import KINDS
from sharpen.graders.plugin import FAULT
from sharpen.plugins import from_file
from sharpen.runs.ledger import Ledger
from sharpen.types import Grade


def build(config: BatchEndpoint, ledger: Ledger | None = None) -> LambdaFile | BatchServer:
    """The grader of this config. It buys no answers, so it needs no ledger."""
    return LambdaFile(config) if config.file else BatchServer(config)


@dataclass(frozen=True)
class Context:
    """What Lambda tells a handler of its call."""

    function_name: str
    seconds: float
    aws_request_id: str = field(default_factory=lambda: str(uuid4()))
    began: float = field(default_factory=time.monotonic)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the call is given up."""
        return max(0, round(1000 * (self.began + self.seconds - time.monotonic())))


class LambdaFile:
    """Calls a file's handler; built in a worker."""

    def __init__(self, config: BatchEndpoint) -> None:
        """Raises GraderError where there is no such handler."""
        self._path = Path(config.file)
        self._handler = handler(self._path, config.handler)
        self._seconds = config.time_limit

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """Call the handler once for all pairs."""
        call = Call.of(pairs)
        answer = self._handler(call.event, Context(self._path.stem, self._seconds)) if call.event else []
        return call.grades(answer, FAULT)


class BatchServer(Asking):
    """Posts what a handler would be called with."""

    def __init__(self, config: BatchEndpoint) -> None:
        """Raises ConfigError where a variable in `headers` is not set, or cannot be sent."""
        self._most = config.max_batch
        super().__init__(config, config.url, with_secrets(config.headers))

    async def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """The server's grades, in order."""
        calls = [Call.of(batch) for batch in split(pairs, self._most)]
        answers = iter(await self._service.post_all([call.event for call in calls if call.event]))
        return [grade for call in calls for grade in _read(call, next(answers) if call.event else [])]


def _read(call: Call, answer: Any) -> list[Grade]:
    if isinstance(answer, ServiceError):
        return call.at_fault(KINDS[answer.kind], answer.detail)
    return call.grades(answer, KINDS["garbage"])


def handler(path: Path, name: str) -> Callable[[list[dict[str, Any]], Context], Any]:
    """The function of this name in a Python file. Raises GraderError where there is none."""
    remedy = "`file` is relative to the recipe's folder, and `handler` the name of its function"
    if not path.is_file():
        raise GraderError("there is no such Python file", value=str(path), remedy=remedy)
    found: Callable[[list[dict[str, Any]], Context], Any] | None = getattr(from_file(path), name, None)
    if not callable(found):
        raise GraderError("the file has no such function", value=f"{name} in {path}", remedy=remedy)
    return found
