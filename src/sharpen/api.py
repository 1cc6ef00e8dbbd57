"""The public Python API: recipes from Python values, and a handle on what came out."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from sharpen.config.base import Config
from sharpen.config.graders import GraderConfig
from sharpen.config.load import explain, load
from sharpen.config.recipe import Eval as EvalConfig
from sharpen.config.recipe import Recipe as RecipeConfig
from sharpen.config.stages import RFT as RFTConfig
from sharpen.config.stages import SFT as SFTConfig
from sharpen.runs.observer import Observer
from sharpen.runs.store import read_lines

T = TypeVar("T", bound=Config)

GraderFunction = Callable[[dict[str, Any], dict[str, Any]], float | dict[str, float]]
"""`fn(sample, item)`: `sample["output_text"]` is the completion, `item` the row's other fields."""

Data = str | Path | Mapping[str, Any] | Iterable[Mapping[str, Any]]
"""A JSONL path, a data config such as `{"type": "reasoning_gym", ...}`, or rows."""


class _WithFunction:
    """A stage together with the Python function that grades it."""

    def __init__(self, config: RFTConfig, function: GraderFunction) -> None:
        self.config = config
        self.function = function


def SFT(data: Data, **settings: Any) -> SFTConfig:
    """A supervised stage on labelled rows; `settings` are the fields of a recipe's `sft` stage."""
    return _checked(SFTConfig, {"data": _data(data), **_sources(settings)})


def RFT(
    data: Data, *, grader: GraderFunction | GraderConfig | Mapping[str, Any] | None = None, **settings: Any
) -> RFTConfig | _WithFunction:
    """A reinforcement stage on prompts; `settings` are the fields of a recipe's `rft` stage.

    `grader` is a grader config, its fields as a mapping, or a function `fn(sample, item) -> float`.
    Only a stage whose `env` gives the reward may do without.
    """
    values = {"data": _data(data), **_sources(settings)}
    if callable(grader):
        name = f"{grader.__module__}:{getattr(grader, '__qualname__', type(grader).__name__)}"
        return _WithFunction(_checked(RFTConfig, {**values, "grader": {"type": "plugin", "use": name}}), grader)
    return _checked(RFTConfig, {**values, "grader": grader})


def Eval(data: Data, *, name: str = "held_out", **settings: Any) -> EvalConfig:
    """Held-out problems; `settings` are the fields of a recipe's eval."""
    return _checked(EvalConfig, {"name": name, "data": _data(data), **settings})


class Recipe:
    """What to run; `config` is the recipe, `functions` the Python graders of its stages."""

    def __init__(
        self,
        *,
        model: str,
        stages: Sequence[SFTConfig | RFTConfig | _WithFunction] = (),
        evals: Sequence[EvalConfig] = (),
        **settings: Any,
    ) -> None:
        self.functions = {s.config.name: s.function for s in stages if isinstance(s, _WithFunction)}
        plain = [stage.config if isinstance(stage, _WithFunction) else stage for stage in stages]
        self.config = _checked(
            RecipeConfig, {"model": model, "stages": tuple(plain), "evals": tuple(evals), **settings}
        )


def run(recipe: Recipe | str | Path, *, out: str | Path | None = None, observer: Observer | None = None) -> Run:
    """Run a recipe, or a recipe file, to its end. Also works where an event loop is already running.

    Raises SharpenError with the remedy; what was done until then is in the run directory.
    """
    from sharpen.stages import pipeline  # imports torch

    if isinstance(recipe, Recipe):
        config, functions, base = recipe.config, recipe.functions, Path()
    else:
        config, functions, base = load(Path(recipe)), {}, Path(recipe).parent
    folder = Path(out) if out else Path("runs") / time.strftime("python-%Y%m%d-%H%M%S")
    pipeline.run(config, folder, base=base, observer=observer, functions=functions)
    return Run(folder)


def resume(
    path: str | Path,
    *,
    set: Sequence[str] = (),
    graders: Mapping[str, GraderFunction] | None = None,
    observer: Observer | None = None,
) -> Run:
    """Go on with a stopped run; `graders` are the functions of stages that were graded by one, by stage name.

    `set`, such as `["stages.rft.steps=200"]`, extends it, also when it is finished.
    Raises SharpenError with the remedy.
    """
    from sharpen.stages import pipeline  # imports torch

    pipeline.resume(Path(path), set, observer=observer, functions=graders)
    return Run(Path(path))


def open_run(path: str | Path) -> Run:
    """The handle on a run directory that exists."""
    return Run(Path(path))


class Run:
    """A run directory, read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._loaded: dict[str, Any] = {}

    @property
    def summary(self) -> dict[str, Any]:
        """summary.json."""
        return dict(json.loads((self.path / "summary.json").read_text()))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One mapping a step, of all stages."""
        return read_lines(self.path / "metrics.jsonl")

    def generate(
        self,
        prompts: Sequence[str | Sequence[Mapping[str, Any]]],
        *,
        max_tokens: int = 128,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[str]:
        """The final model's answers to prompts (texts, or lists of messages); greedy by default."""
        from sharpen.data.render import Renderer
        from sharpen.rollout.base import Params, Request
        from sharpen.rollout.local import LocalSampler
        from sharpen.stages.pipeline import blocking

        loaded = self._final_model()
        renderer = Renderer(loaded.tokenizer, loaded.stop)
        chats = [
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(turn) for turn in prompt]
            for prompt in prompts
        ]
        requests = [Request(renderer.prompt(chat), (seed, place)) for place, chat in enumerate(chats)]
        sampler = LocalSampler(loaded.model, loaded.stop)
        segments = blocking(sampler.sample(requests, Params(max_tokens, temperature)))
        return [renderer.sample(segment).text for segment in segments]

    def _repr_html_(self) -> str:
        """The report, for notebooks: in a frame, so that its styles stay its own."""
        import html

        from sharpen.reports.html import page
        from sharpen.reports.read import read

        return (
            f'<iframe srcdoc="{html.escape(page(read(self.path)))}" style="width:100%;height:48rem;border:0"></iframe>'
        )

    def _final_model(self) -> Any:
        from sharpen.models.load import compute_dtype
        from sharpen.models.load import load as load_model

        dtype = compute_dtype(load(self.path / "recipe.yaml").dtype)
        stages = self.summary["stages"]
        place = str(self.path / stages[-1]["model"]) if stages else self.summary["model"]
        if place not in self._loaded:
            self._loaded[place] = load_model(place, dtype)
            if notice := self._loaded[place].notice:
                warnings.warn(notice, stacklevel=3)
        return self._loaded[place]


def _data(data: Data) -> Any:
    if isinstance(data, str | Path):
        return {"path": str(data)}
    if isinstance(data, Config | Mapping):
        return data
    return {"type": "inline", "rows": [dict(row) for row in data]}


def _sources(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings, with a validation source in any of the forms that data may have."""
    if settings.get("validation") is None:
        return settings
    return {**settings, "validation": _data(settings["validation"])}


def _checked(model: type[T], values: dict[str, Any]) -> T:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain(error, model) from error
