"""What graders of other libraries are handed of a reasoning model: the whole, or the answer with its thoughts apart."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from sharpen.config.graders import TRL, RewardModel
from sharpen.graders.bedrock import conversation
from sharpen.graders.endpoint import body
from sharpen.graders.foreign import whole
from sharpen.graders.reward_model import RewardModelGrader
from sharpen.graders.trl import TRLGrader
from sharpen.types import Example, Sample
from tests.graders.classifiers import llama
from tests.reasoning import TEMPLATES

EXAMPLE = Example("e", ({"role": "user", "content": "2+3?"},))
THOUGHTFUL = Sample("5", reasoning="2 and 3")
CUT_OFF = Sample("", "length", reasoning="2 and")


def closed(completions: list[Any], **columns: Any) -> list[float]:
    """Whether the thoughts are closed and 5 follows, as a reward function for TRL reads it."""
    texts = [made if isinstance(made, str) else made[0]["content"] for made in completions]
    return [float(text.startswith("<think>") and text.rpartition("</think>")[2].strip() == "5") for text in texts]


@pytest.mark.parametrize("conversational", [True, False])
def test_a_trl_reward_reads_thoughts_and_answer_in_one(conversational: bool) -> None:
    grader = TRLGrader(TRL(use="tests.graders.test_thoughts:closed", conversational=conversational))
    pairs = [(EXAMPLE, sample) for sample in (THOUGHTFUL, CUT_OFF, Sample("5"))]
    assert [grade.score for grade in asyncio.run(grader.grade_many(pairs))] == [1.0, 0.0, 0.0]
    assert whole(Sample("5")) == "5" and whole(CUT_OFF) == "<think>\n2 and"


def test_a_conversation_has_the_thoughts_beside_the_content() -> None:
    assert conversation(EXAMPLE, THOUGHTFUL, "e-0")["messages"][-1] == {
        "role": "assistant",
        "content": "5",
        "reasoning_content": "2 and 3",
    }


def test_an_endpoint_tells_attempts_with_other_thoughts_apart() -> None:
    told = [body(EXAMPLE, sample) for sample in (THOUGHTFUL, Sample("5"))]
    assert [each["sample"]["reasoning_text"] for each in told] == ["2 and 3", ""]
    assert told[0]["trace_id"] != told[1]["trace_id"]


def test_a_reward_model_is_shown_the_answer_even_where_its_template_writes_thoughts(tmp_path: Path) -> None:
    folder = llama(tmp_path / "judge")
    (folder / "chat_template.jinja").write_text((TEMPLATES / "qwen3.jinja").read_text("utf-8"), "utf-8")
    grader = RewardModelGrader(RewardModel(model=str(folder)))
    grades = asyncio.run(grader.grade_many([(EXAMPLE, THOUGHTFUL), (EXAMPLE, Sample("5")), (EXAMPLE, Sample("6"))]))
    scores = [grade.score for grade in grades]
    assert scores[0] == pytest.approx(scores[1], abs=1e-5) and scores[1] != pytest.approx(scores[2], abs=1e-5)
