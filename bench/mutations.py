"""Does a test fail when the arithmetic is wrong? Flip signs, clip sides and normalisers, one at a time.

    OMP_NUM_THREADS=1 python bench/mutations.py            # all of them: a table, exit 1 if one survives
    OMP_NUM_THREADS=1 python bench/mutations.py clip cap   # those whose name holds one of the words

Each mutation is made in a copy of `src`; a process forked after the heavy imports runs the quick tests there.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TESTS = ("test_losses.py", "test_head.py", "test_pack.py", "test_engine.py")
LIMIT = 60.0
"""Seconds after which a mutant counts as caught: it hangs."""


class Mutation(NamedTuple):
    """One wrong text for one right one, which occurs exactly once in the file."""

    name: str
    file: str
    right: str
    wrong: str


def _of(file: str, *mutations: tuple[str, str, str]) -> list[Mutation]:
    return [Mutation(name, file, right, wrong) for name, right, wrong in mutations]


MUTATIONS = [
    *_of(
        "train/losses.py",
        ("cross-entropy: sign", "LossSum(-predictions.logprobs.sum()", "LossSum(predictions.logprobs.sum()"),
        ("cross-entropy: mean over rows", "float(sum(row.trained for row in rows))", "float(len(rows))"),
        ("cross-entropy: counts prompts", "(row.trained for row in rows)", "(len(row.tokens) for row in rows)"),
        ("policy: sign", "-(weight * gain).sum()", "(weight * gain).sum()"),
        ("policy: mean for sum", "-(weight * gain).sum()", "-(weight * gain).mean()"),
        ("clip: maximum for minimum", "torch.minimum(", "torch.maximum("),
        ("clip: sides swapped", "(1 - self.clip_low, 1 + self.clip_high)", "(1 - self.clip_high, 1 + self.clip_low)"),
        ("clip: none above", "(1 - self.clip_low, 1 + self.clip_high)", "(min=1 - self.clip_low)"),
        ("clip: none below", "(1 - self.clip_low, 1 + self.clip_high)", "(max=1 + self.clip_high)"),
        ("clip: lower side's sign", "1 - self.clip_low", "1 + self.clip_low"),
        ("clip: upper side's sign", "1 + self.clip_high", "1 - self.clip_high"),
        ("clip: always the clipped", "torch.minimum(ratio * batch.advantages, ", "torch.add(0 * ratio, "),
        ("clip: never", "torch.minimum(ratio * batch.advantages, clipped", "torch.add(0 * ratio, ratio"),
        ("clip: dapo's upper default", "clip_high: float = 0.28", "clip_high: float = 0.2"),
        ("clip fraction: sign", "(gain < ratio", "(gain > ratio"),
        ("ratio: inverted", "ratio = (logprobs - old)", "ratio = (old - logprobs)"),
        ("ratio: no exponential", "ratio = (logprobs - old).exp()", "ratio = 1 + (logprobs - old)"),
        ("ratio: old ones ignored", "if batch.old_logprobs is None", "if True"),
        ("detach: none on policy", "logprobs.detach() if", "logprobs if"),
        ("mismatch: gradient through it", "mismatch = (old -", "mismatch = (old + logprobs - logprobs.detach() -"),
        (
            "mismatch: inverted",
            "mismatch = (old - batch.rollout_logprobs)",
            "mismatch = -(old - batch.rollout_logprobs)",
        ),
        ("mismatch: no cap", ".clamp(max=self.mismatch_cap)", ""),
        ("mismatch: floor for cap", "clamp(max=self.mismatch_cap)", "clamp(min=self.mismatch_cap)"),
        ("mismatch: other cap", "mismatch_cap: float = 2.0", "mismatch_cap: float = 3.0"),
        ("mismatch: left out", "weight = mismatch\n", "weight = torch.ones_like(mismatch)\n"),
        ("normaliser: swapped in the sum", '== "sequence":', '== "token":'),
        ("normaliser: swapped in the count", '== "sequence" else', '== "token" else'),
        ("normaliser: times the length", "mismatch / batch.lengths", "mismatch * batch.lengths"),
        ("normaliser: length of another", "batch.lengths[batch.sequence]", "batch.lengths[0]"),
        ("normaliser: only what teaches", "for row in rows if row.trained]", "for row in rows if any(row.advantages)]"),
        ("normaliser: counts empty rows", "for row in rows if row.trained]", "for row in rows]"),
        ("teaches: only the good", "return any(row.advantages)", "return any(a > 0 for a in row.advantages)"),
        ("gap: signed", "(old - batch.rollout_logprobs).abs()", "(old - batch.rollout_logprobs)"),
        ("gap: smallest", "gap.max()", "gap.min()"),
    ),
    *_of(
        "rl/advantages.py",
        ("advantage: ddof 0", "ddof=1", "ddof=0"),
        ("advantage: sign", "(reward - mean)", "(mean - reward)"),
        ("advantage: no deviation", "(reward - mean) / std", "(reward - mean)"),
        ("advantage: no mean", "(reward - mean) / std", "reward / std"),
        (
            "advantage: faults count as 0",
            "reward for reward in rewards if reward is not None",
            "r or 0 for r in rewards",
        ),
        ("advantage: faults are punished", "[0.0 if reward is None", "[-1.0 if reward is None"),
        ("advantage: one valid suffices", "len(valid) < 2", "len(valid) < 1"),
        ("advantage: three are needed", "len(valid) < 2", "len(valid) < 3"),
        ("advantage: no spread divides by 0", "<= SPREAD", "< 0"),
        ("advantage: rounding is spread", "SPREAD = 1e-6", "SPREAD = 1e-20"),
        ("advantage: small spread is none", "SPREAD = 1e-6", "SPREAD = 1e-2"),
    ),
    *_of(
        "rl/lengths.py",
        ("overlong: sign", "return -max(", "return max("),
        ("overlong: begins elsewhere", "(1 - buffer) * max_tokens", "buffer * max_tokens"),
        ("overlong: slope", "/ (buffer * max_tokens)", "/ max_tokens"),
        ("overlong: no floor", "min(1.0, (length", "min(9.0, (length"),
        ("overlong: rewards short ones", "max(0.0, min(1.0,", "max(-9.0, min(1.0,"),
        ("overlong: cannot be switched off", "if buffer == 0:", "if buffer < 0:"),
    ),
    *_of(
        "models/head.py",
        ("head: no temperature forward", "logits(part, wide).div_(temperature)", "logits(part, wide)"),
        ("head: no temperature backward", ".div_(ctx.temperature)", ""),
        ("head: slope without temperature", "[rows, None] / ctx.temperature", "[rows, None] / 1"),
        ("head: normaliser added", "[:, 0] - normalizer", "[:, 0] + normalizer"),
        ("head: probabilities' sign", "mul_(-slope / total)", "mul_(slope / total)"),
        ("head: rounded logits' own sum", "mul_(-slope / total)", "mul_(-slope)"),
        ("head: target's sign", "targets[rows, None], slope)", "targets[rows, None], -slope)"),
        ("head: chunks overlap", "slice(start, start + CHUNK)", "slice(start, start + CHUNK + 1)"),
        ("head: chunks leave gaps", "slice(start, start + CHUNK)", "slice(start, start + CHUNK - 1)"),
        ("head: last chunk's weights only", "else d_weight.add_(update)", "else update"),
        ("head: no gradient to the weights", "return d_hidden, d_weight,", "return d_hidden, None,"),
        ("head: no gradient to the states", "return d_hidden, d_weight,", "return None, d_weight,"),
        ("head: entropy's sign", "normalizer - mean", "mean - normalizer"),
        ("head: least likely is correct", "argmax(-1) == target", "argmin(-1) == target"),
        ("head: bfloat16 logits", "wide = torch.promote_types(weight.dtype, torch.float32)", "wide = weight.dtype"),
    ),
    *_of(
        "data/pack.py",
        ("pack: predicted by itself", "before = index - 1", "before = index"),
        ("pack: prefix positions restart", "range(span.prefix, span.prefix + len(tokens))", "range(len(tokens))"),
        ("pack: atoms are split", "for atom in atoms(rows):", "for atom in ([row] for row in rows):"),
        ("pack: budget overrun", "used + cost(atom) > budget", "used > budget"),
        ("pack: lengths count prompts", "counts = [row.trained for", "counts = [len(row.tokens) for"),
    ),
    *_of(
        "train/engine.py",
        ("engine: never divided", "(summed.total / count).backward()", "summed.total.backward()"),
        ("engine: reports the sum", "value = totals.total / count if count", "value = totals.total if count"),
        ("engine: last microbatch only", "master.grad += parameter.grad", "master.grad = parameter.grad.float()"),
        ("engine: warm-up a step late", "(step + 1) / (warmup + 1)", "step / (warmup + 1)"),
        ("engine: no warm-up", "if step < warmup:", "if step < 0:"),
        ("engine: cosine's sign", "(1 + math.cos", "(1 - math.cos"),
        ("engine: linear rises", "1 - done", "done"),
        ("engine: no clipping", "self.masters, self.optim.max_grad_norm, norm", "self.masters, 1e9, norm"),
        ("engine: learns from NaN", "elif totals.predictions:", "if totals.predictions:"),
        ("engine: endless patience", "self.bad_steps += 1", "self.bad_steps += 0"),
        ("engine: never forgives", "self.bad_steps = 0\n            self._update", "self._update"),
        (
            "engine: gradients pile up",
            "            master.grad = None\n        self.step_count",
            "            pass\n        self.step_count",
        ),
        ("engine: bfloat16 never refreshed", "parameter.copy_(master)", "pass"),
        ("engine: moments not restored", "if names:", "if False:"),
        ("engine: scores without temperature", "forward(model, batch, temperature)", "forward(model, batch, 1.0)"),
    ),
    *_of(
        "train/optim.py",
        ("optim: betas swapped", "(config.beta1, config.beta2)", "(config.beta2, config.beta1)"),
        ("optim: no decay", '"weight_decay": config.weight_decay', '"weight_decay": 0.0'),
    ),
    *_of(
        "config/algorithms.py",
        ("preset: grpo by tokens", '"normalizer": "sequence"', '"normalizer": "token"'),
        ("preset: dapo clips as grpo", '"clip_high": 0.28', '"clip_high": 0.2'),
        ("preset: another cap", "Field(gt=0)] = 2.0", "Field(gt=0)] = 1.0"),
    ),
]


def mutated(source: str, mutation: Mutation) -> str:
    """The file with the mutation. Raises ValueError unless the right text occurs exactly once."""
    if source.count(mutation.right) != 1:
        times = source.count(mutation.right)
        raise ValueError(f"{mutation.name}: {mutation.right!r} occurs {times} times in {mutation.file}, not once")
    return source.replace(mutation.right, mutation.wrong)


def caught_by(folder: Path, mutation: Mutation | None) -> str:
    """The first test that fails on the mutant, or an empty string. `folder` is a copy of the project."""
    path = folder / "src/sharpen" / (mutation.file if mutation else "types.py")
    right = path.read_text("utf-8")
    if mutation:
        path.write_text(mutated(right, mutation), "utf-8")
    try:
        return _test(folder)
    finally:
        path.write_text(right, "utf-8")


def _test(folder: Path) -> str:
    log = folder / "log"
    child = os.fork()
    if child == 0:
        _become_pytest(folder, log)
    until = time.monotonic() + LIMIT
    while os.waitpid(child, os.WNOHANG)[0] == 0:
        if time.monotonic() > until:
            os.kill(child, 9)
            os.waitpid(child, 0)
            return f"a limit of {LIMIT:.0f} seconds"
        time.sleep(0.02)
    failed = [line for line in log.read_text("utf-8").splitlines() if line.startswith(("FAILED ", "ERROR "))]
    passed = " passed" in log.read_text("utf-8") and not failed
    return "" if passed else failed[0].split("::")[-1].split(" - ")[0] if failed else "an error before the tests"


def _become_pytest(folder: Path, log: Path) -> None:
    """In the forked child: run the quick tests on the copy, and end."""
    try:
        import pytest

        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.chdir(folder)
        sys.dont_write_bytecode = True  # a mutant of the same second and size must not serve as another's cache
        sys.path.insert(0, str(folder / "src"))
        pytest.main(
            ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *(f"tests/core/{name}" for name in TESTS)]
        )
        sys.stdout.flush()
    finally:
        os._exit(0)


def copy(folder: Path) -> Path:
    """What the quick tests need of the project."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignore)
    shutil.copytree(ROOT / "tests/core", folder / "tests/core", ignore=ignore)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def main(words: list[str]) -> int:
    """Print the table; 1 if a mutant survives."""
    import hypothesis  # noqa: F401 - imported before the forks, so that each need not
    import pydantic  # noqa: F401
    import pytest  # noqa: F401
    import torch

    torch.set_num_threads(1)
    chosen = [mutation for mutation in MUTATIONS if not words or any(word in mutation.name for word in words)]
    survivors, began = 0, time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = copy(Path(temporary))
        if not words and (failure := caught_by(folder, None)):
            print(f"the tests fail without any mutation: {failure}")
            return 1
        for mutation in chosen:
            caught = caught_by(folder, mutation)
            survivors += not caught
            print(f"{mutation.name:36} -> {caught or 'SURVIVED'}", flush=True)
    print(f"{len(chosen) - survivors} of {len(chosen)} caught, in {time.monotonic() - began:.0f} s")
    return 1 if survivors or not chosen else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
