"""The shapes of Amazon Bedrock's reward function: a list of conversations in, a list of scores out, matched by id.

They are those of https://docs.aws.amazon.com/bedrock/latest/userguide/reward-functions-open-weight.html, where a row's
other fields stand in `metadata`; they also stand beside it, as in SageMaker's form of the same function:
https://docs.aws.amazon.com/sagemaker/latest/dg/nova-implementing-reward-functions.html.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.graders.base import finite, grader_fault
from sharpen.graders.batches import Pair
from sharpen.graders.foreign import number, said
from sharpen.types import Example, Grade, Sample


@dataclass(frozen=True, slots=True)
class Call:
    """One call: its event, and for each attempt the id it has there, or the fault for which it is not there."""

    event: list[dict[str, Any]]
    attempts: list[str | Grade]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> Call:
        """What is asked about these attempts."""
        event: list[dict[str, Any]] = []
        attempts: list[str | Grade] = []
        for place, (example, sample) in enumerate(pairs):
            identity = f"{example.id}/{place}"  # a row may be attempted many times
            try:
                asked = json.dumps(conversation(example, sample, identity), allow_nan=False)
            except (TypeError, ValueError, RecursionError) as error:
                attempts.append(grader_fault("invalid_variable_error", f"the item is no JSON: {error}"))
            else:
                event.append(json.loads(asked))
                attempts.append(identity)
        return cls(event, attempts)

    def grades(self, answer: Any, kind: str) -> list[Grade]:
        """The grades that an answer gives; a wrong result is a fault, of this kind, of its own attempt alone."""
        if not isinstance(answer, list | tuple):
            return self.at_fault(kind, f"the answer is no list: {answer!r:.200}")
        results: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for result in answer:
            if isinstance(result, Mapping):
                results[str(result.get("id"))].append(result)
        return [
            attempt if isinstance(attempt, Grade) else _grade(attempt, results.get(attempt, []), kind)
            for attempt in self.attempts
        ]

    def at_fault(self, kind: str, why: str) -> list[Grade]:
        """The grades where the whole call failed."""
        return [attempt if isinstance(attempt, Grade) else grader_fault(kind, why) for attempt in self.attempts]


def conversation(example: Example, sample: Sample, identity: str) -> dict[str, Any]:
    """An element of the event. A row's `answer` is its `reference_answer` where it has none of that name."""
    item = dict(example.item)
    if "answer" in item:
        item.setdefault("reference_answer", item["answer"])
    own = item.get("metadata")
    metadata = {**item, **own} if isinstance(own, Mapping) else item
    return {**item, "id": identity, "messages": [*example.messages, *said(sample)], "metadata": metadata}


def _grade(identity: str, results: Sequence[Mapping[str, Any]], kind: str) -> Grade:
    if len(results) != 1:
        return grader_fault(kind, f"there are {len(results)} results with the id {identity!r}, not one")
    (result,) = results
    try:
        score = number(result.get("aggregate_reward_score"), "aggregate_reward_score")
        listed = result.get("metrics_list") or ()
        if not isinstance(listed, list | tuple) or not all(isinstance(each, Mapping) for each in listed):
            raise TypeError(f"metrics_list is no list of objects: {listed!r:.200}")
        metrics = {
            str(each.get("name")): number(each.get("value"), f"the metric {each.get('name')}") for each in listed
        }
    except (TypeError, OverflowError) as error:
        return grader_fault(kind, str(error))
    return finite(Grade(score, metrics), kind)
