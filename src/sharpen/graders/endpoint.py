"""`endpoint`: Azure's grader, a server of one's own, sent `{sample, item, trace_id}`, that answers `{"score": ...}`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

from sharpen.client.http import Answer, ServiceError, with_secrets
from sharpen.config.graders.remote import Endpoint
from sharpen.graders.asking import Asking
from sharpen.graders.base import finite, grader_fault, passed
from sharpen.graders.plugin import read_return
from sharpen.graders.template import seen
from sharpen.runs.ledger import Ledger
from sharpen.types import Example, Grade, Sample

KINDS = {"server": "endpoint_grader_server_error", "garbage": "endpoint_grader_parse_error"}


class EndpointGrader(Asking):
    """Sends each sample, and takes the score; further numbers in the answer are metrics."""

    def __init__(self, config: Endpoint, ledger: Ledger | None = None) -> None:
        """It buys no answers, so it needs no ledger. Raises ConfigError where a variable in `headers` is not set, or
        cannot be sent."""
        self._threshold = config.pass_threshold
        super().__init__(config, config.url, with_secrets(config.headers))

    async def grade_many(self, pairs: Sequence[tuple[Example, Sample]]) -> list[Grade]:
        """The server's grades, in order."""
        found: dict[int, Grade] = {}
        bodies: dict[int, Any] = {}
        for place, pair in enumerate(pairs):
            try:
                bodies[place] = json.loads(json.dumps(body(*pair), allow_nan=False))
            except (TypeError, ValueError, RecursionError) as error:
                found[place] = grader_fault("invalid_variable_error", f"the item is no JSON: {error}")
        answers = await self._service.post_all(list(bodies.values()))
        found |= {place: self._grade(answer) for place, answer in zip(bodies, answers, strict=True)}
        return [found[place] for place in range(len(pairs))]

    def _grade(self, answer: Answer | ServiceError) -> Grade:
        if isinstance(answer, ServiceError):
            return grader_fault(KINDS[answer.kind], answer.detail)
        try:
            return passed(_read(answer), self._threshold)
        except (TypeError, ValueError, OverflowError) as error:
            return grader_fault(KINDS["garbage"], str(error))


def body(example: Example, sample: Sample) -> dict[str, Any]:
    """What the server is sent; `trace_id` is the same for the same sample of the same row."""
    identity = blake2b(json.dumps([example.id, sample.text + sample.reasoning]).encode(), digest_size=16).hexdigest()
    return {"sample": seen(sample), "item": dict(example.item), "trace_id": identity}


def _read(answer: Answer) -> Grade:
    """The grade in an answer. Raises TypeError, ValueError or OverflowError where there is none."""
    if not isinstance(answer, dict) or isinstance(answer.get("score"), bool):
        raise ValueError(f'the answer is no object with a number as "score": {answer!r:.200}')
    numbers = {name: value for name, value in answer.items() if name == "score" or isinstance(value, int | float)}
    return finite(read_return(numbers), KINDS["garbage"])
