"""`sharpen data`: look a training file over before it is trained on."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from sharpen.errors import ConfigError

if TYPE_CHECKING:
    from sharpen.data.render import Renderer

FAULTY = 2
"""The exit code of a file with a fault."""


def arguments(parser: ArgumentParser) -> None:
    """What `sharpen data` is told."""
    actions = parser.add_subparsers(dest="what", required=True, title="actions", metavar="check")
    check = actions.add_parser("check", help="every fault, duplicate and secret of a file, and what would be trained")
    check.add_argument("file", type=Path, metavar="FILE", help="the rows")
    check.add_argument(
        "--for", dest="purpose", choices=("sft", "dpo", "rft"), required=True, help="the stage that shall read them"
    )
    check.add_argument("--model", metavar="M", help="count tokens and render rows as this model reads them")
    check.add_argument(
        "--chat-template-kwargs",
        metavar="MAPPING",
        help="what the model's chat template is told, as in a recipe: '{enable_thinking: false}'",
    )
    check.add_argument(
        "--against",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="held-out files, to find shared prompts",
    )
    check.add_argument(
        "--max-length", type=int, metavar="N", help="the longest row in tokens (not for rft; a recipe's default)"
    )
    check.add_argument("--json", action="store_true", help="print the findings as JSON")


def data(options: Namespace) -> int:
    """Check a file and print what was found."""
    from sharpen.cli import data_report
    from sharpen.data.check import check

    report = check(
        options.file,
        options.purpose,
        max_length=_max_length(options),
        renderer=_renderer(options.model, options.chat_template_kwargs),
        against=options.against,
    )
    print(data_report.as_json(report) if options.json else data_report.as_text(report, colour=_colour()))
    return FAULTY if report.faults else 0


def _renderer(model: str | None, told: str | None) -> Renderer | None:
    if model is None and told:
        raise ConfigError("there is no chat template to tell", path="--chat-template-kwargs", remedy="Add --model")
    if model is None:
        return None
    from sharpen.cli.evaluate import mapping
    from sharpen.data.render import Renderer
    from sharpen.models.load import load_tokenizer  # imports torch

    kwargs = mapping(told, "--chat-template-kwargs") if told else {}
    return Renderer(*load_tokenizer(model, lambda line: print(line, file=sys.stderr), kwargs))


def _max_length(options: Namespace) -> int | None:
    if options.max_length is None:
        from sharpen.config.stages import DPO, SFT, Stage  # imports pydantic

        stages: dict[str, type[Stage]] = {"sft": SFT, "dpo": DPO}
        stage = stages.get(options.purpose)
        return int(stage.model_fields["max_length"].default) if stage and options.model else None
    if options.model is None:
        raise ConfigError("tokens cannot be counted without a model", path="--max-length", remedy="Add --model")
    if options.max_length < 1:
        raise ConfigError("must be 1 or more", path="--max-length", value=options.max_length)
    return int(options.max_length)


def _colour() -> bool:
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
