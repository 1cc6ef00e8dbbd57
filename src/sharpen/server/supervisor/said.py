"""A run's events and steps in the words and fields of OpenAI's API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from sharpen.server.jobs.change import Level

Record = Mapping[str, Any]


LEARNED: dict[str, Callable[[Record], Any]] = {
    "loss": lambda line: line.get("loss"),
    "mean_token_accuracy": lambda line: line.get("token_accuracy"),
    "mean_reward_accuracy": lambda line: _rewards(line).get("accuracies"),
    "mean_reward_margin": lambda line: _rewards(line).get("margins"),
}
"""What `supervised` and `dpo` measure, of a step and of a look at the validation rows, without train_ and valid_."""


class Said(NamedTuple):
    """An event of a job, without its id."""

    message: str
    level: Level = "info"
    data: dict[str, Any] | None = None
    """Of a step; such an event is of the type `metrics`."""


def of_event(event: Record) -> Said | None:
    """What a client is told of a line of events.jsonl; None: nothing."""
    say = EVENTS.get(str(event.get("event")))
    return say(event) if say else None


def of_step(line: Record) -> Said | None:
    """What a client is told of a line of metrics.jsonl; None: it is no step's."""
    if not isinstance(line.get("step"), int):
        return None
    data = reinforced(line) if "reward" in line else taught(line)
    name, value = ("reward", data["train_mean_reward"]) if "reward" in line else ("training loss", data["train_loss"])
    shown = "none" if value is None else f"{value:.4f}"
    looked = data.get("full_valid_mean_reward", data.get("full_valid_loss"))
    more = "" if looked is None else f", {'validation reward' if 'reward' in line else 'validation loss'}={looked:.4f}"
    return Said(f"Step {line['step']}/{line.get('steps')}: {name}={shown}{more}", data=data)


def taught(line: Record) -> dict[str, Any]:
    """The data of a step of `supervised` or `dpo`; the look at the validation rows is at all of them."""
    data = {
        "step": line["step"],
        "total_steps": line.get("steps"),
        "train_loss": line.get("loss"),
        "learning_rate": line.get("lr"),
    }
    looked = line.get("validation") or {}
    for name, of in LEARNED.items():
        if (value := of(line)) is not None:
            data[f"train_{name}"] = value
        if (value := of(looked)) is not None:
            data[f"valid_{name}"] = data[f"full_valid_{name}"] = value
    return data


def reinforced(line: Record) -> dict[str, Any]:
    """The data of a step of `reinforcement`; null is what the run does not measure."""
    reward, length, time = (line.get(name) or {} for name in ("reward", "length", "time"))
    looked, tokens = line.get("validation") or {}, line.get("tokens") or {}
    by_grader = reward.get("by_grader") or {}
    faults = line.get("faults") or {}
    return {
        "step": line["step"],
        "total_steps": line.get("steps"),
        "train_mean_reward": reward.get("mean"),
        "full_valid_mean_reward": looked.get("reward"),
        "full_valid_mean_parse_error": None,
        "mean_unresponsive_rewards": None,
        "reasoning_tokens_mean": None,
        "completion_tokens_mean": length.get("mean"),
        "scores": {
            "train_reward_mean": reward.get("mean"),
            "valid_reward_mean": looked.get("reward"),
            "graders": [{"name": name, "train_reward_mean": mean} for name, mean in by_grader.items()],
        },
        "usage": {"sampled_tokens": tokens.get("sampled"), "trained_tokens": tokens.get("trained")},
        "errors": {"graders": [{"kind": kind, "count": count} for kind, count in faults.items()]},
        "timing": {
            "step": {
                "sampling": time.get("sample"),
                "training": time.get("train"),
                "eval": None,
                "full_iteration": time.get("step"),
            },
            "graders": [{"name": "all", "seconds": time.get("grade")}],
        },
        "train_loss": line.get("loss"),
        "kl": line.get("kl"),
    }


def checkpoint_metrics(line: Record) -> dict[str, Any]:
    """The `metrics` of a checkpoint, by the step that it stands after."""
    if "reward" not in line:
        return {name: value for name, value in taught(line).items() if name not in ("total_steps", "learning_rate")}
    names = ("step", "train_loss", "train_mean_reward", "full_valid_mean_reward", "completion_tokens_mean")
    data = reinforced(line)
    return {name: data[name] for name in names if data[name] is not None}


def _rewards(line: Record) -> Record:
    """Those of DPO."""
    found = line.get("rewards")
    return found if isinstance(found, Mapping) else {}


def _message(event: Record) -> Said:
    return Said(str(event.get("message", "")))


def _checkpoint(event: Record) -> Said:
    return Said(f"Checkpoint created at step {event.get('step')}")


def _alert(event: Record) -> Said:
    return Said(str(event.get("message") or event.get("kind")), "warn")


def _sandbox(event: Record) -> Said:
    return Said(f"Graders run isolated by: {event.get('isolation')}")


def _held_out(event: Record) -> Said | None:
    dropped = event.get("dropped")
    counts = dropped if isinstance(dropped, Mapping) else {"rows": dropped}
    found = {name: n for name, n in counts.items() if isinstance(n, int) and n}
    if not found:
        return None
    told = ", ".join(f"{n} of {name}" for name, n in found.items())
    return Said(f"Generated problems that the training rows have too were left out: {told}", "warn")


EVENTS: dict[str, Callable[[Record], Said | None]] = {
    "resumed": lambda event: Said("Training goes on from its newest checkpoint"),
    "trains": _message,
    "lr_chosen": _message,
    "remote": _message,
    "probed": _message,
    "alert": _alert,
    "sandbox": _sandbox,
    "held_out_checked": _held_out,
    "checkpoint": _checkpoint,
    "early_stopped": lambda event: Said(f"Stopped early at step {event.get('step')}: {event.get('cause')}"),
    "best_taken": lambda event: Said(f"The weights of step {event.get('step')} did best, and are the job's model"),
}
"""The others are told by the job's state, or are the run's own."""
