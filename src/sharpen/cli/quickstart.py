"""`sharpen quickstart`: the packaged recipe, announced, fitted to this machine, run and explained."""

from __future__ import annotations

import json
import shlex
from argparse import ArgumentParser, Namespace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.cli import machine, predict
from sharpen.cli.run import conclude, default_folder, start

if TYPE_CHECKING:
    from sharpen.config.recipe import Recipe


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen quickstart` is told."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run directory (default: runs/quickstart-DATE-TIME)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="another seed than the recipe's")


def recipe_path() -> Path:
    """Where the packaged recipe lies."""
    return Path(str(resources.files("sharpen") / "quickstart" / "recipe.yaml"))


def quickstart(options: Namespace) -> int:
    """Fetch the model, say what will happen and how long it will take, and do it."""
    from sharpen.config.load import load  # imports pydantic
    from sharpen.reports.numbers import duration, finite

    path = recipe_path()
    seed = [] if options.seed is None else [f"seed={options.seed}"]
    recipe = load(path, seed)
    _fetch(recipe.model)
    print(_plan(recipe, path.parent))
    print("\nMeasuring this machine …", flush=True)
    speed = machine.matmul_speed()
    forecast = predict.forecast(recipe, path.parent, speed)
    print(f"{_forecast(forecast, speed)}\n", flush=True)
    options.folder = options.out or default_folder("quickstart")
    fitted = load(path, [*seed, *forecast.overrides()])
    summary = start(fitted, options.folder, base=path.parent)
    conclude(summary, options.folder)
    seconds = finite(summary, "cost", "seconds")
    if seconds is not None:
        print(f"        (predicted: {duration(forecast.seconds)})")
    print(_next(fitted, options.folder))
    return 0


def _fetch(model: str) -> None:
    """Downloads come first, so that they do not count as training."""
    from sharpen.models import pull, registry

    if model in registry.ALIASES:
        pull.pull(model, print)


def _plan(recipe: Recipe, base: Path) -> str:
    lines = [f"The quickstart teaches {recipe.model} a task, and measures what it has learnt:"]
    for stage in recipe.stages:
        if stage.type == "sft":
            what = f"fine-tuning on {predict.rows(stage.data, base)} labelled examples"
        else:
            assert stage.grader is not None
            what = (
                f"reinforcement: {stage.steps} steps of {stage.prompts_per_step} prompts, {stage.group_size} "
                f"attempts each, graded by a program ({stage.grader.type}); no labels"
            )
        lines.append(f"  {stage.name:<10} {what}")
    for held_out in recipe.evals:
        count = predict.rows(held_out.data, base)
        lines.append(f"  {held_out.name:<10} {count} problems that no training sees, before, between and after")
    return "\n".join(lines)


def _forecast(forecast: predict.Forecast, speed: machine.Speed) -> str:
    from sharpen.reports.numbers import duration

    about = duration(round(forecast.seconds))
    lines = [f"{machine.cores()} cores, {speed}: this should take about {about}."]
    if forecast.cut:
        cuts = ", ".join(
            f"{name} from {forecast.uncut_steps[name]} to {steps} steps" for name, steps in forecast.steps.items()
        )
        lines.append(f"The whole recipe would take about {duration(round(forecast.uncut_seconds))} here, so it is cut:")
        lines.append(f"{cuts}. Expect a smaller gain from reinforcement.")
    load = machine.busy()
    if load is not None and load > machine.cores() / 2:
        lines.append(f"Other work is going on here (load average {load:.1f}); that may slow it down.")
    return "\n".join(lines)


def _next(recipe: Recipe, folder: Path) -> str:
    """Commands worth trying now."""
    place = shlex.quote(str(folder))
    lines = [
        "\nNext",
        f"  open {place}/report.html in a browser: curves, and answers side by side",
        f"  sharpen quickstart --seed {recipe.seed + 1}        the same with other random numbers",
        f"  less {place}/recipe.yaml        the recipe, to make your own from",
    ]
    if recipe.evals and recipe.stages:
        from sharpen.config.data import sources  # imports pydantic

        held_out = recipe.evals[0]
        assert held_out.grader is not None
        data, grader = (
            json.dumps({"type": part.type, **part.model_dump(mode="json", exclude_defaults=True)}, ensure_ascii=False)
            for part in (sources(held_out.data)[0], held_out.grader)
        )
        lines += [
            f"  sharpen eval {place}/models/{recipe.stages[-1].name} --samples 4 --limit 100 \\",
            f"      --max-tokens {held_out.max_tokens} --data {shlex.quote(data)} \\",
            f"      --grader {shlex.quote(grader)}",
        ]
    return "\n".join(lines)
