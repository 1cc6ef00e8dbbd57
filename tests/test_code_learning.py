"""RFT on a small code task, end to end on the real model, with attacks planted among its samples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from sharpen.config.load import parse
from sharpen.stages import attempts, pipeline, rft
from sharpen.types import Group, Rollout, Sample, Segment

ATTACKS = (
    "import os\ndef times(n):\n    os._exit(0)",
    "class Any(int):\n    def __eq__(self, other): return True\n    __hash__ = None\ndef times(n):\n    return Any()",
    "import sys\ndef times(n):\n    frame = sys._getframe()\n    while frame:\n"
    "        for v in frame.f_locals.values():\n"
    "            if isinstance(v, dict) and 'expected' in v: return v['expected']\n        frame = frame.f_back",
    "import subprocess\ndef times(n):\n    subprocess.run(['touch', MARK])\n    return 0",
    "def times(n):\n    open(MARK, 'w').write('x')\n    return 0",
    "import os\nos.write(3, b'\\x00\\x00\\x00\\x0c[0,\"value\",1]')\ndef times(n):\n    return 0",
)
STEPS, PROMPTS, GROUP = 3, 2, 4


def row(factor: int) -> dict[str, Any]:
    """One task: the tests are data, and the prompt does not have them."""
    return {
        "prompt": f"Write a Python function times(n) that returns {factor} times n. Reply with the code only.",
        "completion": f"```python\ndef times(n):\n    return n * {factor}\n```",
        "tests": [{"args": [n], "expected": factor * n} for n in (0, 3, -2)],
    }


@pytest.mark.long
def test_rft_with_code_tests_trains_and_rewards_none_of_the_attacks_among_the_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    planted: list[str] = []
    honest = attempts.sample

    async def sample(stage: Any, work: Any, *rest: Any, **named: Any) -> list[Group]:
        groups = await honest(stage, work, *rest, **named)
        return [plant(group, work.loaded.tokenizer) for group in groups]

    def plant(group: Group, tokenizer: Any) -> Group:
        """The group with its last sample in the place of an attack that the model might have written."""
        program = ATTACKS[len(planted) % len(ATTACKS)].replace("MARK", repr(str(mark)))
        text = f"```python\n{program}\n```"
        planted.append(text)
        (segment,) = group.rollouts[-1].segments
        prompt = [token for token, sampled in zip(segment.tokens, segment.mask, strict=True) if not sampled]
        made: Sequence[int] = tokenizer.encode(text, add_special_tokens=False)
        forged = Segment(
            (*prompt, *made),
            (*[False] * len(prompt), *[True] * len(made)),
            (*[0.0] * len(prompt), *[-1.0] * len(made)),
            segment.version,
        )
        rollout = Rollout((forged,), Sample(text), group.rollouts[-1].prompt)
        return replace(group, rollouts=(*group.rollouts[:-1], rollout))

    monkeypatch.setattr(rft, "sample", sample)
    recipe = parse(
        {
            "model": "smollm2-135m-instruct",
            "seed": 3,
            "stages": [
                {
                    "type": "sft",
                    "data": {"type": "inline", "rows": [row(factor) for factor in range(2, 10)]},
                    "epochs": 6,
                    "batch_size": 8,
                    "optim": {"lr": 5e-5, "schedule": "constant", "warmup_ratio": 0.0},
                },
                {
                    "type": "rft",
                    "data": {"type": "inline", "rows": [row(factor) for factor in range(20, 26)]},
                    "grader": {"type": "code_tests", "function": "times", "time_limit": 2.0},
                    "algorithm": {"preset": "grpo"},  # no penalty for length: the tests alone decide
                    "probe": None,
                    "prompts_per_step": PROMPTS,
                    "group_size": GROUP,
                    "steps": STEPS,
                    "sampling": {"temperature": 1.0, "max_tokens": 32},
                    "optim": {"lr": 1e-5, "schedule": "constant", "warmup_ratio": 0.0},
                },
            ],
        }
    )
    summary = pipeline.run(recipe, tmp_path / "run", base=tmp_path)
    assert summary["status"] == "finished" and summary["isolation"] in ("full", "reduced")
    lines = [
        json.loads(line)
        for step in range(1, STEPS + 1)
        for line in (tmp_path / "run" / "rollouts" / "rft" / f"step-{step:05d}.jsonl").read_text().splitlines()
    ]
    attacks = [line for line in lines if line["text"] in planted]
    others = [line for line in lines if line["text"] not in planted]
    assert len(attacks) == len(planted) == STEPS * PROMPTS
    assert [line["reward"] for line in attacks] == [0.0] * len(attacks)
    assert all(line["advantage"] <= 0 for line in attacks)
    assert not mark.exists()
    assert any(line["reward"] == 1.0 for line in others), "the model writes some programs that are right"
    before, after = (load_file(tmp_path / "run" / "models" / name / "model.safetensors") for name in ("sft", "rft"))
    assert any(not (before[name] == after[name]).all() for name in before), "it was trained"
