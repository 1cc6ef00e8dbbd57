"""Two processes under torchrun give what one gives: gradients, metrics, weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from sharpen.config.load import dump
from sharpen.config.recipe import Recipe
from sharpen.rollout.base import Request
from sharpen.runs.store import read_lines
from sharpen.stages.following import split
from sharpen.train.ranks import shares
from sharpen.types import Sequence as Row
from tests.runs.lab import World, prompts
from tests.stages.field_cases import inline

ROOT = Path(__file__).parent.parent.parent
ADAPTER = {"type": "lora", "rank": 4}


def launch(recipe: Recipe, world: World, out: Path, ranks: int, *more: str) -> subprocess.CompletedProcess[str]:
    """`sharpen run`, alone or under torchrun."""
    file = world.folder / f"{out.name}.yaml"
    file.write_text(dump(recipe))
    alone = [sys.executable]
    together = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    words = ["-m", "sharpen.cli.main", "run", *(more or (str(file), "--out", str(out)))]
    return subprocess.run(
        [*(together if ranks > 1 else alone), *words],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )


PAIRS = [{"prompt": f"like {n}", "chosen": f"{n * 7 % 10}ab", "rejected": f"{n * 3 % 10}XYZ"} for n in range(8)]
PREFERRED = [
    {
        "type": "dpo",
        "name": loss,
        "loss": loss,
        "from": "base",
        "data": inline(PAIRS),
        "batch_size": 4,
        "save_every": 1,
        "keep_last": 9,
    }
    for loss in ("ipo", "cpo", "kto")
]


def whole(world: World, *more: dict[str, Any], **settings: Any) -> Recipe:
    """SFT in float32 with several atoms a step, RFT with validation, KL and an evaluation, and what else there is."""
    return world.recipe(
        world.sft_stage(validation=world.sft_validation, epochs=1, save_every=1),
        world.rft_stage(
            validation=inline(prompts("three", 3)),
            eval_every=2,
            save_every=1,
            algorithm={"preset": "grpo", "kl": {"coef": 0.1}},
        ),
        *more,
        evals=[world.eval_config()],
        threads=1,
        **settings,
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same recipe on one rank and on two."""
    folder = tmp_path_factory.mktemp("ranks")
    world = World(folder / "world")
    recipe = whole(world, *PREFERRED)
    for name, ranks in (("one", 1), ("two", 2)):
        done = launch(recipe, world, folder / name, ranks)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("stage sft is done") == 1  # only rank 0 speaks
    return folder / "one", folder / "two"


def test_two_ranks_give_the_metrics_of_one(runs: tuple[Path, Path]) -> None:
    one, two = (read_lines(run / "metrics.jsonl") for run in runs)
    assert len(one) == len(two) > 3
    for alone, together in zip(one, two, strict=True):
        for name in ("loss", "grad_norm", "token_accuracy", "kl", "entropy", "clip_fraction", "logprob_gap"):
            if name in alone:
                assert together[name] == pytest.approx(alone[name], rel=2e-3, abs=1e-5), name
        for name in ("tokens", "validation"):
            if name in alone:
                assert together[name] == pytest.approx(alone[name], rel=1e-3), name
        if "reward" in alone:
            assert together["reward"]["mean"] == pytest.approx(alone["reward"]["mean"], rel=1e-3)
            assert together["reward"]["std"] == pytest.approx(alone["reward"]["std"], rel=1e-3)
        if "rewards" in alone:
            for name in alone["rewards"].keys() - ({"accuracies"} if alone["step"] == 1 else set()):  # of margins of 0
                assert together["rewards"][name] == pytest.approx(alone["rewards"][name], rel=2e-3, abs=1e-5), name


@pytest.mark.parametrize("stage", ["01-sft", "03-ipo", "04-cpo", "05-kto"])
def test_two_ranks_give_the_gradients_of_one(runs: tuple[Path, Path], stage: str) -> None:
    """After the first step Adam's first moment is (1 − β₁) times the clipped gradient."""
    files = [run / f"stages/{stage}/checkpoints/step-00001/trainer.safetensors" for run in runs]
    one, two = (load_file(file) for file in files)
    moments = [name for name in one if name.startswith("exp_avg.")]
    assert len(moments) > 10
    for name in moments:
        assert one[name].abs().max() > 0
        torch.testing.assert_close(two[name], one[name], rtol=1e-3, atol=1e-7)


def test_on_two_ranks_policy_and_start_agree_to_the_last_bit_at_the_first_step(runs: tuple[Path, Path]) -> None:
    firsts = {line["stage"]: line for line in read_lines(runs[1] / "metrics.jsonl") if line["step"] == 1}
    for name in ("ipo", "kto"):
        assert firsts[name]["kl"] == 0.0 and set(firsts[name]["rewards"].values()) == {0.0}


def test_two_ranks_come_to_the_same_evaluation_and_say_it_once(runs: tuple[Path, Path]) -> None:
    one, two = (json.loads((run / "summary.json").read_text()) for run in runs)
    for alone, together in zip(one["stages"], two["stages"], strict=True):
        assert together["evals"] == alone["evals"]
        assert together["tokens"] == alone["tokens"]
    assert len([line for line in read_lines(runs[1] / "events.jsonl") if line["event"] == "finished"]) == 1


@pytest.mark.long
def test_two_ranks_train_an_adapter_in_bfloat16_and_a_run_of_one_goes_on_with_two(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    out = tmp_path / "out"
    recipe = whole(world, dtype="bfloat16", adapter=ADAPTER)
    done = launch(recipe, world, out, 1)
    assert done.returncode == 0, done.stderr[-3000:]
    done = launch(recipe, world, out, 2, "--resume", str(out), "--set", "stages.1.steps=7")
    assert done.returncode == 0, done.stderr[-3000:]
    steps = [line["step"] for line in read_lines(out / "metrics.jsonl") if line["stage"] == "rft"]
    assert steps == list(range(1, 8))


def test_an_error_on_the_leader_ends_all_ranks_with_its_words(tmp_path: Path) -> None:
    world = World(tmp_path / "world")
    done = launch(whole(world, model="no-such-model"), world, tmp_path / "out", 2)
    assert done.returncode != 0
    assert done.stderr.count("error:") == 1 and "no-such-model" in done.stderr


def test_shares_hold_every_row_once_part_no_atom_and_weigh_alike() -> None:
    rows = [Row(tuple(range(size)), (False,) + (True,) * (size - 1), atom=str(size // 2)) for size in range(2, 40)]
    for size in (1, 2, 3):
        parts = shares(rows, size)
        assert sorted((row.tokens for part in parts for row in part), key=len) == [row.tokens for row in rows]
        homes = [{row.atom for row in part} for part in parts]
        assert sum(len(home) for home in homes) == len({row.atom for row in rows})
        loads = [sum(len(row.tokens) for row in part) for part in parts]
        assert max(loads) - min(loads) <= 2 * 40
    assert shares(rows, 1) == [rows]


def test_requests_are_split_between_prompts_and_keep_their_order() -> None:
    requests = [Request((prompt,) * 3, (prompt, sample)) for prompt in range(5) for sample in range(4)]
    for size in (1, 2, 3, 7):
        parts = split(requests, size)
        assert [request for part in parts for request in part] == requests
        assert len(parts) == size
        assert all(len(part) % 4 == 0 for part in parts)
    assert [len(part) for part in split(requests, 2)] == [12, 8]
