"""`sharpen eval`: score any model on held-out problems, without a run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.cli.run import unsafe
from sharpen.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.config.recipe import Eval


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen eval` is told."""
    unsafe(parser)
    parser.add_argument("model", metavar="MODEL", help="an alias, a run, a model's folder, or a hub id")
    parser.add_argument(
        "--data", required=True, help="a data file, a hub dataset, or a source as in a recipe: '{type: ...}'"
    )
    parser.add_argument("--grader", help="a type such as math, a YAML file, or a grader as in a recipe: '{type: ...}'")
    parser.add_argument(
        "--env", help="what answers the model's turns: tools, a YAML file, or an environment as in a recipe"
    )
    parser.add_argument(
        "--response-format", help="hold answers to a form, as a recipe does: '{type: json_object}', or a YAML file"
    )
    parser.add_argument(
        "--chat-template-kwargs",
        metavar="MAPPING",
        help="what the chat template is told, as in a recipe: '{enable_thinking: false}'",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="keep the answers, item by item, in this folder")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N problems")
    parser.add_argument("--max-tokens", type=int, default=128, metavar="N", help="longest answer (default: 128)")
    parser.add_argument(
        "--thinking-budget", type=int, metavar="N", help="close a reasoning model's thoughts after N tokens"
    )
    parser.add_argument(
        "--samples", type=int, default=0, metavar="K", help="draw K more answers each, for avg@k and pass@k"
    )
    parser.add_argument(
        "--temperature", type=float, default=1.0, metavar="T", help="for the drawn answers (default: 1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="for the drawn answers (default: 0)")


def evaluate(options: Namespace) -> int:
    """Score a model, and print its row."""
    spec, told = described(options), options.chat_template_kwargs
    kwargs = mapping(told, "--chat-template-kwargs") if told else {}
    from sharpen.answer.named import named
    from sharpen.cli.progress import Plan, watching
    from sharpen.cli.table import scores  # imports rich
    from sharpen.stages import evaluate as stage  # imports torch

    with watching(Plan(options.out, options.model, ())) as observer:
        result = stage.standalone(
            named(options.model),
            spec,
            options.out,
            base=Path.cwd(),
            seed=options.seed,
            observer=observer,
            chat_template_kwargs=kwargs,
        )
    scores(options.model, result)
    if options.out is not None:
        print(f"\nAnswers  {options.out}")
    return 0


def described(options: Namespace) -> Eval:
    """The options as an eval of a recipe, so that the recipe's own checks and words apply."""
    from pydantic import ValidationError

    from sharpen.config.load import explain
    from sharpen.config.recipe import Eval

    data = mapping(options.data, "--data") if _inline(options.data) else {"path": options.data}
    values = {
        "name": "eval",
        "data": data,
        "grader": typed(options.grader, "--grader"),
        "env": typed(options.env, "--env"),
        "response_format": typed(options.response_format, "--response-format"),
        "max_tokens": options.max_tokens,
        "thinking_budget": getattr(options, "thinking_budget", None),  # graders are described without
        "samples": options.samples,
        "temperature": options.temperature,
    }
    if options.limit is not None:
        _limit(data, options.limit)
    try:
        return Eval.model_validate(values)
    except ValidationError as error:
        raise explain(error, Eval) from error


def typed(text: str | None, option: str) -> dict[str, Any] | None:
    """A config out of its type (`math`), a file (`grader.yaml`) or YAML (`{type: math}`)."""
    if text is None:
        return None
    path = Path(text)
    if _inline(text):
        return mapping(text, option)
    if path.suffix not in (".yaml", ".yml", ".json"):
        return {"type": text}
    try:
        return mapping(path.read_text(encoding="utf-8"), text)
    except (OSError, UnicodeDecodeError) as error:
        what = {"--grader": "grader", "--env": "environment", "--response-format": "form"}[option]
        raise ConfigError(f"cannot read the {what}", value=text, remedy=f"Check the path of {option}") from error


def _limit(data: dict[str, Any], limit: int) -> None:
    """Cut a source to its first rows."""
    if limit < 1:
        raise ConfigError("must be 1 or more", path="--limit", value=limit)
    if "generator" in data:
        count = data.get("count", limit)
        data["count"] = min(count, limit) if isinstance(count, int) else count
    elif isinstance(data.get("rows"), list):
        data["rows"] = data["rows"][:limit]
    else:
        data["limit"] = limit


def _inline(text: str) -> bool:
    return text.lstrip().startswith("{")


def mapping(text: str, source: str) -> dict[str, Any]:
    """A mapping in YAML, or JSON. Raises ConfigError, naming `source`."""
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not YAML: {' '.join(str(error).split())}", remedy="Mend it there") from error
    if not isinstance(value, dict):
        raise ConfigError(f"{source}: should be a mapping such as {{type: ...}}", value=value)
    return {str(key): entry for key, entry in value.items()}
