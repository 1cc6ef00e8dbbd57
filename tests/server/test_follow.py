"""A run directory told as events of the API, its checkpoints kept, its steps as a table; and how processes end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sharpen.server.supervisor import checkpoints
from sharpen.server.supervisor.cores import Cores
from sharpen.server.supervisor.ending import clean, ending, error
from sharpen.server.supervisor.follow import Follow
from sharpen.server.supervisor.place import LOG, Place
from sharpen.server.supervisor.results import table, trained_tokens
from sharpen.server.supervisor.said import of_step

SFT = {"stage": "sft", "type": "sft", "steps": 4, "lr": 0.1, "tokens": {"sampled": 0, "trained": 5}}
RFT = {
    "stage": "rft",
    "step": 3,
    "steps": 9,
    "loss": 0.1,
    "reward": {"mean": 0.5, "std": 0.1, "by_grader": {"same": 0.5}},
    "length": {"mean": 12.5, "max": 20},
    "faults": {"grader_error": 2},
    "kl": 0.01,
    "time": {"step": 4.0, "sample": 2.0, "grade": 1.0, "train": 1.0},
    "tokens": {"sampled": 100, "trained": 90},
    "validation": {"reward": 0.75, "n": 8},
}


def append(path: Path, *lines: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def step(number: int, **more: Any) -> dict[str, Any]:
    return {**SFT, "step": number, "loss": 1 / number, "token_accuracy": 0.5, **more}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    found = Place(tmp_path, "ftjob-abcdefghijklmnopqrstuvwx")
    found.make()
    return found


def test_steps_and_events_are_told_in_the_order_in_which_they_happened(place: Place) -> None:
    append(place.run / "events.jsonl", {"time": 1, "event": "started"}, {"time": 2, "event": "stage_started"})
    append(place.run / "events.jsonl", {"time": 3, "event": "trains", "stage": "sft", "message": "a LoRA adapter"})
    append(place.run / "metrics.jsonl", step(1), step(2), step(3))
    append(place.run / "events.jsonl", {"time": 4, "event": "checkpoint", "stage": "sft", "step": 2, "path": "x"})
    told = Follow(place).poll().told
    assert [one.said.message.split(":")[0] for one in told] == [
        "a LoRA adapter",
        "Step 1/4",
        "Step 2/4",
        "Checkpoint created at step 2",
        "Step 3/4",
    ]
    assert told[0].at == 3


def test_what_is_told_again_or_done_over_has_the_same_ids(place: Place) -> None:
    append(place.run / "events.jsonl", {"time": 1, "event": "alert", "message": "slow"})
    append(place.run / "metrics.jsonl", step(1), step(2))
    follow = Follow(place)
    first = [one.id for one in follow.poll().told]
    (place.run / "metrics.jsonl").write_text(json.dumps(step(1)) + "\n")
    assert not follow.poll()
    append(place.run / "metrics.jsonl", step(2, time=9), step(3))
    second = [one.id for one in follow.poll().told]
    assert len(set(first + second)) == 4 and second[0] == first[-1]
    assert {one.id for one in Follow(place).poll().told} == set(first + second)


def test_a_step_has_the_fields_of_openais_events() -> None:
    said = of_step(step(2, validation={"loss": 0.4, "token_accuracy": 0.6, "n": 3}))
    assert said and said.data == {
        "step": 2,
        "total_steps": 4,
        "train_loss": 0.5,
        "learning_rate": 0.1,
        "train_mean_token_accuracy": 0.5,
        "valid_loss": 0.4,
        "full_valid_loss": 0.4,
        "valid_mean_token_accuracy": 0.6,
        "full_valid_mean_token_accuracy": 0.6,
    }
    assert said.message == "Step 2/4: training loss=0.5000, validation loss=0.4000"


def test_a_step_of_reinforcement_has_its_rewards_times_and_faults() -> None:
    said = of_step(RFT)
    assert said and said.data
    assert said.message == "Step 3/9: reward=0.5000, validation reward=0.7500"
    assert said.data["scores"]["graders"] == [{"name": "same", "train_reward_mean": 0.5}]
    assert said.data["timing"]["step"] == {"sampling": 2.0, "training": 1.0, "eval": None, "full_iteration": 4.0}
    assert said.data["errors"]["graders"] == [{"kind": "grader_error", "count": 2}]
    assert said.data["completion_tokens_mean"] == 12.5


def test_a_step_without_numbers_is_told_too() -> None:
    assert of_step({**SFT, "step": 1, "loss": None}) is not None
    assert of_step({"stage": "sft"}) is None


def test_the_table_has_openais_columns_and_leaves_out_what_was_not_measured() -> None:
    text = table([step(1), step(2, validation={"loss": 0.4, "token_accuracy": 0.6})], "supervised")
    assert text.splitlines() == [
        "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy",
        "1,1,0.5,,",
        "2,0.5,0.5,0.4,0.6",
    ]
    assert table([RFT], "reinforcement").splitlines()[1] == "3,0.1,0.5,0.75,12.5"
    assert trained_tokens([step(1), RFT, {}]) == 95


def test_the_checkpoints_with_the_best_rewards_stay_when_the_run_has_dropped_them(place: Place) -> None:
    follow = Follow(place)
    for number, reward in enumerate([0.1, 0.9, 0.3, 0.8, 0.3], 1):
        folder = place.run / f"stages/01-rft/checkpoints/step-{number:05d}"
        folder.mkdir(parents=True)
        for name in ("adapter_model.safetensors", "trainer.safetensors", "state.json"):
            (folder / name).write_text(str(number))
        append(place.run / "metrics.jsonl", {**RFT, "step": number, "validation": {"reward": reward}})
        at = str(folder.relative_to(place.run))
        append(place.run / "events.jsonl", {"event": "checkpoint", "stage": "rft", "step": number, "path": at})
        kept = checkpoints.keep(place, follow, follow.poll().checkpoints)
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
    assert kept and [one.step for one in kept] == [2, 3, 4]
    assert kept[0].metrics["full_valid_mean_reward"] == 0.9
    assert [path.name for path in sorted(place.kept.glob("*/*"))] == ["adapter_model.safetensors"] * 3


@pytest.mark.parametrize(
    ("life", "code", "words", "kind"),
    [
        ("finished", 0, [], "finished"),
        ("finished", -9, [], "finished"),  # the model is there
        ("interrupted", 130, [], "stopped"),
        ("", -15, [], "stopped"),  # asked before it could listen
        ("paused", 2, [], "paused"),
        ("failed", 2, ["error: a row is too long"], "failed"),
        ("failed", 1, ["error: unexpected KeyError: 'x'. This is a bug"], "died"),
        ("failed", None, ["error: a row is too long"], "failed"),  # of an adopted process no code is known
        ("failed", None, ["error: unexpected KeyError: 'x'"], "died"),
        ("", 2, ["error: no such model"], "failed"),
        ("", None, ["error: no such model"], "failed"),
        ("started", -9, [], "died"),
        ("started", None, [], "died"),
        ("resumed", 1, ["Killed"], "died"),
        ("failed", 2, ["error: the disk is full; the last checkpoint is intact"], "paused"),
    ],
)
def test_how_a_process_has_ended(life: str, code: int | None, words: list[str], kind: str) -> None:
    assert ending({"event": life, "cause": "why"} if life else {}, code, words).kind == kind


def test_whose_fault_it_was_is_seen_from_the_file_that_is_named() -> None:
    assert error("file-a:3: no messages", "file-a", None)["code"] == "invalid_training_file"
    assert error("file-b:3: no messages", "file-a", "file-b")["param"] == "validation_file"
    assert error("what is this", "file-a", None)["code"] == "server_error"


def test_nothing_that_is_told_has_a_key_or_a_path_of_the_server() -> None:
    keys = "s3cretvalue, sk-abcdefghijklmnop and skj-abc.defghijklmnopqr"
    text = f"\x1b[1;31merror:\x1b[0m /data/files/ab/file-a:3 with {keys}"
    assert clean(text, ["s3cretvalue"], {"/data/files/ab/file-a": "file-a"}) == (
        "error: file-a:3 with [key], [key] and [key]"
    )


def test_a_log_that_grows_without_end_is_cut_to_its_end(place: Place) -> None:
    with place.log.open("ab") as writing:  # as the process has it open
        writing.write(b"x" * 99 + b"\n" + (b"y" * 99 + b"\n") * (LOG // 100 + 1))
        writing.flush()
        place.trim()
        writing.write(b"the last\n")
        writing.flush()
    assert place.log.stat().st_size < LOG // 2
    assert place.last_words(2) == ["y" * 99, "the last"]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 5))), st.integers(1, 8))
def test_cores_are_never_exceeded(asked: list[tuple[str, int]], total: int) -> None:
    cores, has = Cores(total), dict.fromkeys("abcd", 0)
    for owner, n in asked:
        if n == 0:
            cores.give(owner)
            has[owner] = 0
        elif cores.take(owner, n):
            has[owner] = n
        assert sum(has.values()) <= total and cores.free == total - sum(has.values())
