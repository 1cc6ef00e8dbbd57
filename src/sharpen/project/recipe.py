"""The commented recipe of a project."""

from __future__ import annotations

import json
import re

from sharpen.project.parts import Parts
from sharpen.project.plan import BATCH, GROUP, PROMPTS, Plan
from sharpen.project.tasks import Task

COMMENT = 54
"""The column at which comments begin."""


def recipe(task: Task, model: str, plan: Plan, parts: Parts, grader: str, minutes: float) -> str:
    """The text of recipe.yaml."""
    lines = [
        "# What is done to which model; `sharpen run recipe.yaml --out runs/first` does it.",
        f"# About {about(plan.seconds)} for smollm2-135m-instruct on 2 cores; `sharpen bench recipe.yaml` measures it.",
        "",
        *_commented(f"model: {_plain(model)}", "an alias (`sharpen models list`), a folder, or a hub id"),
        *_commented("seed: 7", "the same seed gives the same result"),
        "",
        "stages:",
        *_sft(plan, parts),
        *_rft(task, plan, grader, minutes),
        "",
        "evals:",
        *_commented("  - name: held_out", "asked before training and after every stage"),
        *_limited(
            "    data: ", "data/test.jsonl", plan.test_limit, len(parts.test), "nothing is trained on these rows"
        ),
        *_commented(f"    grader: {grader}", _scored(grader)),
        *_commented(f"    max_tokens: {plan.max_tokens}", "an answer is cut off here; all of the rows fit"),
    ]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def about(seconds: float) -> str:
    """`4 minutes`."""
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute" if minutes == 1 else f"{minutes} minutes"


def _sft(plan: Plan, parts: Parts) -> list[str]:
    return [
        *_commented("  - type: sft", "supervised fine-tuning: learn the answers of the rows"),
        *_limited("    data: ", "data/train.jsonl", plan.train_limit, len(parts.train), "the rows to learn from"),
        *_commented("    validation: {path: data/validation.jsonl}", "watched: does it learn, or learn by heart?"),
        *_commented(f"    epochs: {plan.epochs}", "how often it sees every row"),
        *_commented(f"    batch_size: {BATCH}", "so many rows make one step"),
        *_commented(f"    eval_every: {plan.eval_every}", "steps between looks at the validation rows: one epoch"),
        *_commented("    final: best", "keep the weights that did best on validation rows"),
        *_commented("    optim: {lr: auto}", "the learning rate, by the model's size"),
    ]


def _rft(task: Task, plan: Plan, grader: str, minutes: float) -> list[str]:
    steps = plan.rft_steps or 10
    stage = [
        *_commented("  - type: rft", "reinforcement: what the grader likes becomes likelier"),
        *_commented("    data: {path: data/train.jsonl}", "the prompts; only the grader sees their answers"),
        *_commented(f"    grader: {grader}", "what scores the attempts"),
        *_commented(f"    prompts_per_step: {PROMPTS}", "so many prompts make one step"),
        *_commented(f"    group_size: {GROUP}", "attempts at each, compared with one another"),
        *_commented(f"    steps: {steps}", "more steps learn more; a step takes some seconds"),
        *_commented(f"    sampling: {{max_tokens: {plan.max_tokens}}}", "the longest attempt"),
        *_commented("    probe: {min_learnable: 0}", "a trial comes first, and does not end the run"),
    ]
    if plan.rft_steps:
        return ["", *stage]
    why = f"it does not fit into {minutes:g} minutes" if task.reinforced else task.instead
    return ["", f"# An RFT stage is left out: {why}.", *(f"# {line}" for line in stage)]


def _scored(grader: str) -> str:
    """What the eval's comment says of its grader."""
    if "code_tests" in grader:
        return "1 where the program passes the unit tests of its row"
    return "`grade` in grader.py: 1 is right"


def _limited(start: str, path: str, limit: int, rows: int, comment: str) -> list[str]:
    """A source of rows, and where time does not suffice for all, how many of them."""
    if not limit:
        return _commented(f"{start}{{path: {path}}}", f"{comment} ({rows})")
    return _commented(f"{start}{{path: {path}, limit: {limit}}}", f"{comment}; without the limit, all {rows:,}")


def _commented(line: str, comment: str) -> list[str]:
    """The line with its comment beside it, or above where it is long."""
    if len(line) < COMMENT:
        return [f"{line:<{COMMENT}}# {comment}"]
    indent = line[: len(line) - len(line.lstrip(" -"))].replace("-", " ")
    return [f"{indent}# {comment}", line]


def _plain(value: str) -> str:
    """A text as YAML reads it back: bare where that is safe, else in quotes."""
    bare = re.fullmatch(r"[A-Za-z/][\w./@-]*", value) and value.lower() not in ("null", "true", "false", "yes", "no")
    return value if bare else json.dumps(value, ensure_ascii=False)
