"""`sharpen quickstart`: the packaged recipe, announced, fitted to this machine, run and explained."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.cli import forecast, machine, notify
from sharpen.cli.run import conclude, default_folder, start

if TYPE_CHECKING:
    from sharpen.config.recipe import Recipe


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen quickstart` is told."""
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run directory (default: runs/quickstart-DATE-TIME)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="another seed than the recipe's")
    notify.arguments(parser)


def recipe_path() -> Path:
    """Where the packaged recipe lies."""
    return Path(str(resources.files("sharpen") / "quickstart" / "recipe.yaml"))


def quickstart(options: Namespace) -> int:
    """Fetch the model, say what will happen and how long it will take, and do it."""
    from sharpen.config.load import load  # imports pydantic

    notices = notify.notices(options.notify)
    path = recipe_path()
    seed = [] if options.seed is None else [f"seed={options.seed}"]
    recipe = load(path, seed)
    _fetch(recipe.model)
    print(_plan(recipe, path.parent))
    print("\nMeasuring this machine …", flush=True)
    speed = machine.matmul_speed()
    expected = forecast.forecast(recipe, path.parent, speed)
    print(f"{_forecast(expected, speed)}\n", flush=True)
    options.folder = options.out or default_folder("quickstart")
    fitted = load(path, [*seed, *expected.overrides()])
    with notify.notifying(notices, options.folder):
        summary = start(fitted, options.folder, base=path.parent)
    conclude(summary, options.folder, predicted=expected.seconds)
    return 0


def _fetch(model: str) -> None:
    """Downloads come first, so that they do not count as training."""
    from sharpen.models import pull, registry

    if model in registry.ALIASES:
        pull.pull(model, print)


def _plan(recipe: Recipe, base: Path) -> str:
    lines = [f"The quickstart teaches {recipe.model} a task, and measures what it has learnt:"]
    for stage in recipe.stages:
        if stage.type != "rft":
            what = f"fine-tuning on {forecast.rows(stage.data, base)} labelled examples"
        else:
            assert stage.grader is not None
            what = (
                f"reinforcement: {stage.steps} steps of {stage.prompts_per_step} prompts, {stage.group_size} "
                f"attempts each, graded by a program ({stage.grader.type}); no labels"
            )
        lines.append(f"  {stage.name:<10} {what}")
    for held_out in recipe.evals:
        count = forecast.rows(held_out.data, base)
        lines.append(f"  {held_out.name:<10} {count} problems that no training sees, before, between and after")
    return "\n".join(lines)


def _forecast(expected: forecast.Forecast, speed: machine.Speed) -> str:
    from sharpen.reports.numbers import duration

    about = duration(round(expected.seconds))
    lines = [f"{machine.cores()} cores, {speed}: this should take about {about}."]
    if expected.cut:
        cuts = ", ".join(
            f"{name} from {expected.uncut_steps[name]} to {steps} steps" for name, steps in expected.steps.items()
        )
        lines.append(f"The whole recipe would take about {duration(round(expected.uncut_seconds))} here, so it is cut:")
        lines.append(f"{cuts}. Expect a smaller gain from reinforcement.")
    load = machine.busy()
    if load is not None and load > machine.cores() / 2:
        lines.append(f"Other work is going on here (load average {load:.1f}); that may slow it down.")
    return "\n".join(lines)
