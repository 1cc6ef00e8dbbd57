"""What a step of RFT begins with: its graders, its prompts, and the attempts at them."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.config.recipe import Recipe
from sharpen.config.stages import RFT
from sharpen.data.render import Renderer
from sharpen.data.source import read_examples
from sharpen.errors import DataError
from sharpen.graders.pool import GraderPool
from sharpen.models.load import Loaded
from sharpen.rollout.base import Params, Sampler
from sharpen.rollout.episodes import Answers, Attempt, make
from sharpen.rollout.thinking import closing_token
from sharpen.stages.routing import graders
from sharpen.stages.work import Work
from sharpen.types import Example, Group


def pools(stage: RFT, work: Work) -> dict[str, GraderPool]:
    """The stage's grader, which may be a function handed over in Python, and those that its sources name."""
    function = work.functions.get(stage.name)
    configs = graders(stage.grader, stage.data, stage.validation)
    return {
        key: GraderPool(config, function=None if key else function, ledger=work.ledger)
        for key, config in configs.items()
    }


def read(stage: RFT, work: Work) -> list[Example]:
    """All examples to train on. Raises DataError when there are none."""
    examples = list(read_examples(stage.data, work.base))
    if not examples:
        raise DataError("there are no prompts to train on", field=f"stages.{stage.name}.data")
    return examples


def check_budgets(recipe: Recipe, loaded: Loaded) -> None:
    """Raise ConfigError for a thinking budget of a stage or an eval where the model has no thoughts to bound."""
    budgets = {f"evals.{config.name}": config.thinking_budget for config in recipe.evals}
    for stage in recipe.stages:
        if isinstance(stage, RFT):
            budgets[f"stages.{stage.name}.sampling"] = stage.sampling.thinking_budget
    for place, budget in budgets.items():
        if budget is not None:
            closing_token(Renderer(loaded.tokenizer, loaded.stop), f"{place}.thinking_budget")


def prompts(stage: RFT, work: Work, examples: list[Example], step: int) -> list[Example]:
    """Those of step `step` (from 0)."""
    chosen = work.held_out.mixes[stage.name].rows(*_span(stage, step), (work.seed, stage.name, "order"))
    return [examples[index] for index in chosen]


def drawn(stage: RFT, work: Work, step: int) -> dict[str, int]:
    """How many prompts of step `step` are of each weighted source; empty where there are none."""
    return work.held_out.mixes[stage.name].counts(*_span(stage, step))


def _span(stage: RFT, step: int) -> tuple[int, int]:
    """Where a step begins and ends among all prompts of all steps."""
    return step * stage.prompts_per_step, (step + 1) * stage.prompts_per_step


async def sample(
    stage: RFT,
    work: Work,
    sampler: Sampler,
    examples: Sequence[Example],
    step: int | str,
    env: Answers | None = None,
) -> list[Group]:
    """A group of rollouts for each example; random numbers are counted on (seed, stage, step, place, sample, turn)."""
    attempts = [
        Attempt(example, (work.seed, stage.name, step, place, attempt))
        for place, example in enumerate(examples)
        for attempt in range(stage.group_size)
    ]
    drawing = stage.sampling
    grammar = work.grammar if stage.response_format else None
    params = Params(drawing.max_tokens, drawing.temperature, drawing.top_k, drawing.top_p, drawing.min_p, grammar)
    total = len(attempts) * params.max_tokens

    def progress(made: int) -> None:
        work.run.observer.progress("sample", made, total)

    rollouts = await make(attempts, env, sampler, work.renderer, params, progress, drawing.thinking_budget)
    size = stage.group_size
    return [
        Group(example, tuple(rollouts[place * size : (place + 1) * size])) for place, example in enumerate(examples)
    ]
