"""A whole RFT loop over sharpen's public pieces: sample, grade, compare, learn.

    python examples/rft_loop.py --model smollm2-135m-instruct --steps 10

The task: answer with as many vowels as possible, at most 16 tokens. It needs no labels and no data,
and the reward rises within a few steps. `sharpen run` does the same with checkpoints, evaluation and a
report; this file is for those who want the loop in their own hands.
"""

from __future__ import annotations

import argparse
import asyncio

from sharpen.config.graders import Plugin
from sharpen.config.optim import Optim
from sharpen.data.render import Renderer
from sharpen.graders.pool import GraderPool
from sharpen.models.load import Loaded, compute_dtype, load
from sharpen.rl.advantages import group_normalized
from sharpen.rollout.base import Params, Request
from sharpen.rollout.local import LocalSampler
from sharpen.train.engine import Engine
from sharpen.train.losses import PolicyGradient
from sharpen.types import Example, Rollout, Segment, Sequence

TOPICS = ("rain", "a long road", "bread", "the sea", "old maps", "trains", "snow", "a garden")
GROUP = 8
PARAMS = Params(max_tokens=16, temperature=1.0)


def vowels(sample: dict[str, str], item: dict[str, str]) -> float:
    """The grader: the share of vowels among the characters of the completion."""
    text = sample["output_text"].lower()
    return sum(character in "aeiou" for character in text) / max(1, len(text))


def prompts() -> list[Example]:
    """One example a topic; `item` could carry fields for the grader."""
    return [
        Example(id=topic, messages=({"role": "user", "content": f"Say something about {topic}."},)) for topic in TOPICS
    ]


def row(segment: Segment, advantage: float, group: int) -> Sequence:
    """What the trainer gets of one completion: the sampler's tokens, never text rendered anew."""
    return Sequence(
        tokens=segment.tokens,
        mask=segment.mask,
        atom=str(group),  # the completions of a group share their prompt, computed once
        shared=segment.mask.index(True),
        advantages=tuple(advantage if sampled else 0.0 for sampled in segment.mask),
        rollout_logprobs=segment.logprobs,
    )


async def loop(loaded: Loaded, steps: int, lr: float, seed: int) -> list[float]:
    """Train; returns the mean reward of each step."""
    renderer = Renderer(loaded.tokenizer, loaded.stop)
    sampler = LocalSampler(loaded.model, loaded.stop)  # samples with the very weights that are trained
    engine = Engine(loaded.model, Optim(lr=lr, schedule="constant"), steps, tokens_per_microbatch=4096)
    loss = PolicyGradient(clip_low=0.2, clip_high=0.28, normalizer="token")
    examples = prompts()
    history = []
    with GraderPool(Plugin(use="rft_loop:vowels"), function=vowels) as grader:
        for step in range(steps):
            # Sample: a group of completions for each prompt, random numbers counted on the key.
            requests = [
                Request(renderer.example(example), key=(seed, step, example.id, sample))
                for example in examples
                for sample in range(GROUP)
            ]
            segments = await sampler.sample(requests, PARAMS)
            rollouts = [Rollout((segment,), renderer.sample(segment)) for segment in segments]

            # Grade, in worker processes that a bad grader cannot hang.
            pairs = [(examples[place // GROUP], rollout.sample) for place, rollout in enumerate(rollouts)]
            scores = [grade.score for grade in await grader.grade_many(pairs)]

            # Compare: within each group, better than the mean is good.
            rows = []
            for group in range(len(examples)):
                own = slice(group * GROUP, (group + 1) * GROUP)
                advantages = group_normalized(scores[own]) or [0.0] * GROUP
                rows += [row(*pair, group) for pair in zip(segments[own], advantages, strict=True)]

            # Learn: one optimiser step; the sampler sees the new weights at once.
            result = engine.step(rows, loss, PARAMS.temperature)
            history.append(sum(score or 0.0 for score in scores) / len(scores))
            print(f"step {step + 1:3d}  reward {history[-1]:.3f}  gradient {result.grad_norm:.2f}", flush=True)
            print(f"          {rollouts[0].sample.text!r}", flush=True)
    return history


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2-135m-instruct", help="alias, folder or hub id")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--lr", type=float, default=1e-5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    asyncio.run(loop(load(options.model, compute_dtype("auto")), options.steps, options.lr, options.seed))


if __name__ == "__main__":
    main()
