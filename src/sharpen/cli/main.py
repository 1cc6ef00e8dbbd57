"""The command line: one table of commands, one parser.

Nothing heavy is imported here or at the top of the commands' modules: `sharpen --help` answers at once.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sharpen.cli import (
    bench,
    chat,
    compare,
    data,
    doctor,
    evaluate,
    export,
    grade,
    importing,
    init,
    keys,
    models,
    predict,
    preflight,
    quickstart,
    regrade,
    run,
    runs,
    serve,
    show,
)
from sharpen.cli.boundary import guarded

Parser = argparse.ArgumentParser


@dataclass(frozen=True, slots=True)
class Command:
    """A row of the table: how a command is called, described, read and run."""

    name: str
    summary: str
    arguments: Callable[[Parser], None]
    action: Callable[[argparse.Namespace], int]
    examples: tuple[str, ...]


COMMANDS = (
    Command(
        "quickstart",
        "teach a small model something, with proof, in about seven minutes",
        quickstart.arguments,
        quickstart.quickstart,
        ("sharpen quickstart", "sharpen quickstart --seed 2 --out runs/second"),
    ),
    Command(
        "init",
        "write a project for your own data: a recipe, a grader, a split",
        init.arguments,
        init.init,
        (
            "sharpen init tickets --data my.csv --task classify",
            "sharpen init faq --data my.csv --columns prompt=question,completion=answer --yes",
            "sharpen init sums --task math --yes",
        ),
    ),
    Command(
        "run",
        "run a recipe, or go on with a stopped run",
        run.arguments,
        run.run,
        (
            "sharpen run recipe.yaml",
            "sharpen run recipe.yaml --set stages.rft.steps=20 --set seed=3 --out runs/third",
            "sharpen run --resume runs/third",
        ),
    ),
    Command(
        "runs",
        "list, look at or follow runs, and free the disk they need no more",
        runs.arguments,
        runs.runs,
        ("sharpen runs list", "sharpen runs watch runs/first", "sharpen runs clean runs/first --dry-run"),
    ),
    Command(
        "bench",
        "measure a recipe's speed and memory here, and forecast its time",
        bench.arguments,
        bench.bench,
        ("sharpen bench recipe.yaml", "sharpen bench recipe.yaml --set stages.rft.group_size=4 --json"),
    ),
    Command(
        "preflight",
        "try a recipe's RFT stages on its model, or on several, before any training",
        preflight.arguments,
        preflight.preflight,
        (
            "sharpen preflight recipe.yaml",
            "sharpen preflight recipe.yaml --models smollm2-135m-instruct,runs/first/models/sft",
        ),
    ),
    Command(
        "eval",
        "score a model on held-out problems",
        evaluate.arguments,
        evaluate.evaluate,
        (
            "sharpen eval runs/first/models/rft --data test.jsonl --grader math",
            "sharpen eval smollm2-135m-instruct --grader reasoning_gym --samples 4 \\\n"
            "      --data '{type: reasoning_gym, generator: chain_sum, start: 9000, count: 500}'",
        ),
    ),
    Command(
        "chat",
        "talk with a model, or with two side by side",
        chat.arguments,
        chat.chat,
        (
            "sharpen chat runs/first",
            "sharpen chat runs/first --compare",
            'echo "Who idolizes cheese making?" | sharpen chat smollm2-135m-instruct --max-tokens 64',
        ),
    ),
    Command(
        "predict",
        "a model's answers to the rows of a file; goes on where it was stopped",
        predict.arguments,
        predict.predict,
        (
            "sharpen predict runs/first --in rows.jsonl --out answers.jsonl",
            "sharpen predict smollm2-135m-instruct --in my.csv --columns prompt=question --out answers.csv",
        ),
    ),
    Command(
        "export",
        "a trained model as a transformers folder, adapter, GGUF or for Ollama",
        export.arguments,
        export.export,
        (
            "sharpen export runs/first --to hf",
            "sharpen export runs/first/models/sft --to gguf --quantize q8_0 --out exports/small",
            "sharpen export runs/first --to ollama",
        ),
    ),
    Command(
        "grade",
        "look a grader over: samples, gold answers, attacks, people's labels",
        grade.arguments,
        grade.grade,
        (
            "sharpen grade --grader math --data rows.jsonl --red-team",
            "sharpen grade --grader grader.yaml --data rows.jsonl --model smollm2-135m-instruct --k 8",
            "sharpen grade --grader grader.yaml --data rows.jsonl --samples samples.jsonl --labels human --json",
        ),
    ),
    Command(
        "regrade",
        "a run's rollouts under another grader: what it would have taught",
        regrade.arguments,
        regrade.regrade,
        ("sharpen regrade runs/first --grader grader.yaml", "sharpen regrade runs/first --grader math --json"),
    ),
    Command(
        "data",
        "check a training file: faults, duplicates, secrets, what is trained",
        data.arguments,
        data.data,
        (
            "sharpen data check labelled.jsonl --for sft --model smollm2-135m-instruct",
            "sharpen data check rows.jsonl --for rft --against test.jsonl --json",
        ),
    ),
    Command(
        "import",
        "make a recipe of a TRL, LLaMA-Factory or Axolotl configuration",
        importing.arguments,
        importing.translate,
        (
            "sharpen import trl_config.yaml --out imported.yaml",
            "sharpen import axolotl.yaml --from axolotl --out new.yaml",
        ),
    ),
    Command(
        "serve",
        "serve OpenAI's fine-tuning API: files, jobs, graders, chat",
        serve.arguments,
        serve.serve,
        (
            "sharpen serve --no-auth",
            "sharpen serve --config server.yaml --port 8080",
            "sharpen serve --check",
        ),
    ),
    Command(
        "keys",
        "make, list and revoke API keys of `sharpen serve`",
        keys.arguments,
        keys.keys,
        (
            "sharpen keys create --project research --scope read,write,chat --days 90",
            "sharpen keys list",
            "sharpen keys revoke key-…",
        ),
    ),
    Command(
        "report",
        "write a run's report.html anew",
        show.report_arguments,
        show.report,
        ("sharpen report runs/first",),
    ),
    Command(
        "compare",
        "compare runs: recipes, curves, paired tests, answers won and lost",
        compare.arguments,
        compare.compare,
        ("sharpen compare runs/first runs/second", "sharpen compare runs/first runs/second --out compared.html"),
    ),
    Command(
        "models",
        "list well-known models and what fits here, show or fetch one",
        models.arguments,
        models.models,
        ("sharpen models list", "sharpen models show qwen3-0.6b", "sharpen models pull smollm2-135m-instruct"),
    ),
    Command(
        "doctor",
        "look over this machine, and say how to mend what is missing",
        doctor.arguments,
        doctor.doctor,
        ("sharpen doctor", "sharpen doctor --sandbox"),
    ),
    Command(
        "schema",
        "print the JSON Schema of a recipe",
        show.schema_arguments,
        show.schema,
        ("sharpen schema > recipe.schema.json",),
    ),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that `argv` names (the process's own arguments by default); returns its exit code."""
    top = parser()
    options = top.parse_args(argv)
    if options.action is None:
        top.print_help()
        return 0
    return guarded(options.action, options)


def parser() -> Parser:
    """The parser of all commands."""
    top = Parser(
        "sharpen",
        usage="sharpen COMMAND ...",
        description=f"Post-train a language model. A recipe goes in, a run directory comes out.\n\n{_overview()}",
        epilog=_examples(("sharpen doctor", "sharpen quickstart", "sharpen run --help")),
        formatter_class=_Help,
    )
    top.set_defaults(action=None, debug=False)
    top.add_argument("--version", action=_Version, help="print the version and exit")
    top.add_argument("--debug", action="store_true", help="show the traceback of an unexpected error")
    commands = top.add_subparsers(prog="sharpen", metavar="COMMAND", help=argparse.SUPPRESS)
    for command in COMMANDS:
        sub = commands.add_parser(
            command.name,
            description=f"{command.summary[0].upper()}{command.summary[1:]}.",
            epilog=_examples(command.examples),
            formatter_class=_Help,
        )
        sub.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        command.arguments(sub)
        sub.set_defaults(action=command.action)
    return top


def _overview() -> str:
    return "\n".join(["commands:", *(f"  {command.name:<12}{command.summary}" for command in COMMANDS)])


def _examples(lines: Sequence[str]) -> str:
    return "\n  ".join(["examples:", *lines])


class _Help(argparse.RawDescriptionHelpFormatter):
    """Wider than argparse's own, examples left as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28, width=100)


class _Version(argparse.Action):
    """`--version`; the package's metadata is looked up only when asked for."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: Parser, *_: object) -> None:
        from importlib.metadata import PackageNotFoundError, version

        try:
            print(f"sharpen {version('sharpen')}")
        except PackageNotFoundError:
            print("sharpen, from a source tree that is not installed")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
