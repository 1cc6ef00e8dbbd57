"""How long the quickstart will take here, and how many RFT steps fit into its eight minutes.

One explicit model: `seconds = reference_seconds(phase) * (share * reference_speed / measured_speed + 1 - share)`,
where speed is that of one matrix product and share the part of the work that consists of such products. The
reference is the packaged recipe on 2 cores of an AMD EPYC without matrix units (26 November 2026).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from sharpen.cli.machine import Speed

if TYPE_CHECKING:
    from sharpen.config.data import Data, Source
    from sharpen.config.recipe import Recipe
    from sharpen.config.stages import RFT

REFERENCE_SPEED = 0.43e12
"""Of the reference machine, in FLOP/s: bf16, the product of `machine.SHAPE`."""

MATMUL_SHARE = 0.5
"""Share of the time that goes with the speed of matrix products (`bench/profile.json`: 0.49); the rest does not."""

START_SECONDS = 5.0
"""Imports, loading the model, checking the data."""

SECONDS_PER_SFT_ROW = 0.27
"""One labelled row, forward and backward, once."""

SECONDS_PER_COMPLETION = 0.044
"""One attempt in RFT: sampled, graded, trained on."""

SECONDS_PER_ANSWER = 0.078
"""One answer to a held-out problem, graded."""

BUDGET = 480.0
"""Seconds the quickstart may take."""

FEWEST_STEPS = 8
"""RFT is never cut below: fewer steps teach nothing that an interval would show."""


class Forecast(NamedTuple):
    """What the quickstart will take, with `steps[STAGE]` steps in each RFT stage."""

    seconds: float
    uncut_seconds: float
    steps: dict[str, int]
    uncut_steps: dict[str, int]

    @property
    def cut(self) -> bool:
        """Whether the machine is too slow for the whole recipe."""
        return self.steps != self.uncut_steps

    def overrides(self) -> list[str]:
        """The cut as overrides of the recipe."""
        return [f"stages.{name}.steps={steps}" for name, steps in self.steps.items()] if self.cut else []


def forecast(recipe: Recipe, base: Path, speed: Speed, budget: float = BUDGET) -> Forecast:
    """Predict a recipe's seconds at a measured speed; RFT steps are cut until they fit the budget."""
    slowdown = MATMUL_SHARE * REFERENCE_SPEED / speed.flops + 1 - MATMUL_SHARE
    rft = [stage for stage in recipe.stages if stage.type == "rft"]
    uncut = {stage.name: stage.steps for stage in rft}
    fixed = slowdown * (START_SECONDS + _sft_seconds(recipe, base) + _eval_seconds(recipe, base))
    per_step = {stage.name: slowdown * _step_seconds(stage, base) for stage in rft}
    variable = sum(per_step[name] * steps for name, steps in uncut.items())
    share = min(1.0, (budget - fixed) / variable) if variable else 1.0
    steps = {name: min(planned, max(FEWEST_STEPS, int(planned * share))) for name, planned in uncut.items()}
    seconds = fixed + sum(per_step[name] * count for name, count in steps.items())
    return Forecast(seconds, fixed + variable, steps, uncut)


def rows(data: Data, base: Path) -> int:
    """How many rows the sources have, at most; a file's lines are counted."""
    from sharpen.config.data import sources  # imports pydantic

    return sum(_rows(source, base) for source in sources(data))


def _rows(data: Source, base: Path) -> int:
    if data.type == "reasoning_gym":
        return data.count
    if data.type == "inline":
        return len(data.rows)
    if data.type == "pairs":
        from sharpen.data import pairs

        return sum(1 for _ in pairs.rows(data, base))
    with (base / data.path).open("rb") as file:
        lines = sum(1 for line in file if line.strip())
    return min(lines, data.limit or lines)


def _sft_seconds(recipe: Recipe, base: Path) -> float:
    stages = [stage for stage in recipe.stages if stage.type == "sft"]
    return SECONDS_PER_SFT_ROW * sum(rows(stage.data, base) * stage.epochs for stage in stages)


def _eval_seconds(recipe: Recipe, base: Path) -> float:
    """Every eval is answered by the base model and after every stage."""
    answers = sum(rows(held_out.data, base) * (1 + held_out.samples) for held_out in recipe.evals)
    return SECONDS_PER_ANSWER * answers * (1 + len(recipe.stages))


def _step_seconds(stage: RFT, base: Path) -> float:
    """One step of RFT, with its share of the looks at the validation rows."""
    looks = rows(stage.validation, base) / stage.eval_every if stage.validation else 0.0
    return SECONDS_PER_COMPLETION * stage.prompts_per_step * stage.group_size + SECONDS_PER_ANSWER * looks
