"""Does a test fail when the arithmetic is wrong? Flip signs, clip sides and normalisers, one at a time.

    OMP_NUM_THREADS=1 python -m bench.mutations            # all of them: a table, exit 1 if one survives
    OMP_NUM_THREADS=1 python -m bench.mutations clip cap   # those whose name holds one of the words

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
TESTS = (
    "test_losses.py",
    "test_family.py",
    "test_credit.py",
    "test_head.py",
    "test_pack.py",
    "test_draw.py",
    "test_engine.py",
    "test_attention.py",
    "test_fused.py",
)
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
        ("cross-entropy: mean over rows", "float(sum(row.trained for row in rows))\n\n", "float(len(rows))\n\n"),
        (
            "cross-entropy: counts prompts",
            "(row.trained for row in rows))\n\n",
            "(len(row.tokens) for row in rows))\n\n",
        ),
        ("policy: sign", "-objective.sum()", "objective.sum()"),
        ("policy: mean for sum", "-objective.sum()", "-objective.mean()"),
        ("clip: maximum for minimum", "torch.minimum(", "torch.maximum("),
        ("clip: sides swapped", "(1 - self.clip_low, 1 + self.clip_high)", "(1 - self.clip_high, 1 + self.clip_low)"),
        ("clip: none above", "(1 - self.clip_low, 1 + self.clip_high)", "(min=1 - self.clip_low)"),
        ("clip: none below", "(1 - self.clip_low, 1 + self.clip_high)", "(max=1 + self.clip_high)"),
        ("clip: lower side's sign", "1 - self.clip_low", "1 + self.clip_low"),
        ("clip: upper side's sign", "1 + self.clip_high", "1 - self.clip_high"),
        ("clip: always the clipped", "torch.minimum(plain, ", "torch.add(0 * plain, "),
        ("clip: never", "torch.minimum(plain, ratio.clamp(", "torch.add(plain, 0 * ratio.clamp("),
        ("clip: dapo's upper default", "clip_high: float = 0.28", "clip_high: float = 0.2"),
        ("clip fraction: sign", "gain < plain", "gain > plain"),
        ("clip: ppo where none is asked", 'if self.clip == "ppo":', 'if self.clip != "cispo":'),
        ("clip: cispo as ppo", 'if self.clip == "ppo":', 'if self.clip != "none":'),
        ("clip: none where cispo is asked", 'if self.clip == "cispo":', 'if self.clip == "other":'),
        ("cispo: gradient through the ratio", "ratio.detach().clamp(", "ratio.clamp("),
        ("cispo: cap of 1 + clip_high", "clamp(max=self.clip_high)", "clamp(max=1 + self.clip_high)"),
        ("cispo: floor for cap", "clamp(max=self.clip_high)", "clamp(min=self.clip_high)"),
        ("cispo: no log-probability", "* advantages * logprobs,", "* advantages * change,"),
        ("cispo: sign of the advantage", "clip_high) * advantages * logprobs", "clip_high) * -advantages * logprobs"),
        ("cispo: fraction below the cap", "ratio > self.clip_high", "ratio < self.clip_high"),
        ("unclipped: no ratio", "return plain, torch", "return advantages * logprobs, torch"),
        ("unclipped: sign", "return plain, torch", "return -plain, torch"),
        ("ratio: inverted", "change = logprobs - old", "change = old - logprobs"),
        ("ratio: no exponential", "ratio, advantages = change.exp()", "ratio, advantages = 1 + change"),
        ("ratio: old ones ignored", "if batch.old_logprobs is None", "if True"),
        ("ratio: tokens' for sequences'", 'self.ratio == "sequence"', 'self.ratio == "other"'),
        ("ratio: sequences' for tokens'", 'self.ratio == "sequence"', 'self.ratio == "token"'),
        ("ratio: sequence's sum for mean", "(sums / batch.lengths)", "(sums * 1)"),
        ("ratio: another sequence's", "batch.lengths)[batch.sequence]", "batch.lengths)[batch.sequence.flip(0)]"),
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
        ("mismatch: left out", "objective = mismatch * gain", "objective = gain"),
        ("normaliser: swapped in the sum", 'if self.normalizer == "sequence":', 'if self.normalizer == "token":'),
        ("normaliser: all by length", 'if self.normalizer == "sequence":', 'if self.normalizer != "token":'),
        ("normaliser: swapped in the count", 'if self.normalizer == "token":', 'if self.normalizer == "sequence":'),
        ("normaliser: times the length", "objective / batch.lengths", "objective * batch.lengths"),
        ("normaliser: length of another", "batch.lengths[batch.sequence]", "batch.lengths[0]"),
        (
            "normaliser: only what teaches",
            "any(row.trained for row in rollout)",
            "any(any(r.advantages) for r in rollout)",
        ),
        ("normaliser: counts empty rows", "any(row.trained for row in rollout)", "bool(rollout)"),
        ("normaliser: counts segments", "in sequences(rows))", "in ([row] for row in rows))"),
        (
            "normaliser: only tokens that teach",
            "rows))\n        rollouts",
            "rows if any(row.advantages)))\n        rollouts",
        ),
        ("normaliser: max_tokens left out", "float(rollouts * self.max_tokens)", "float(rollouts)"),
        ("normaliser: max_tokens in every one", 'if self.normalizer == "max_tokens":', "if self.max_tokens:"),
        ("teaches: only the good", "else any(row.advantages)", "else any(a > 0 for a in row.advantages)"),
        ("teaches: kl only with advantage", "row.trained > 0 if self.kl or", "row.trained > 0 if"),
        ("teaches: entropy only with advantage", "if self.kl or self.entropy_coef else", "if self.kl else"),
        ("kl: sign in the loss", "objective - self.kl(", "objective + self.kl("),
        ("kl: coefficient left out", "self.coef * (weight", "(weight"),
        ("kl: difference inverted", "difference = reference - logprobs", "difference = logprobs - reference"),
        ("kl: k3 for k2", 'self.estimator == "k2"', 'self.estimator == "k0"'),
        ("kl: k2 for k3", 'self.estimator == "k2"', "self.estimator"),
        ("kl: k2 not halved", "difference.square() / 2", "difference.square()"),
        ("kl: k3's sign of d", "difference.expm1() - difference", "difference.expm1() + difference"),
        ("kl: k3 without its 1", "difference.expm1()", "difference.exp()"),
        ("kl: always weighted", "if self.importance_weighted else penalty", "if True else penalty"),
        ("kl: never weighted", "if self.importance_weighted else penalty", "if False else penalty"),
        ("kl: weighted without gradient", "mismatch * change.exp())", "mismatch * change.exp().detach())"),
        ("kl: weighted without mismatch", "mismatch * change.exp())", "change.exp())"),
        ("kl: weighted without ratio", "mismatch * change.exp())", "mismatch)"),
        ("entropy: sign", "objective + self.entropy_coef", "objective - self.entropy_coef"),
        ("entropy: coefficient left out", "self.entropy_coef * predictions.entropy", "predictions.entropy"),
        ("entropy: metric with gradient", "predictions.entropy.detach().sum()", "predictions.entropy.sum()"),
        ("gap: signed", "(old - batch.rollout_logprobs).abs()", "(old - batch.rollout_logprobs)"),
        ("gap: smallest", "gap.max()", "gap.min()"),
    ),
    *_of(
        "rl/advantages.py",
        ("advantage: ddof 0", "ddof=1", "ddof=0"),
        ("advantage: sign", "(valid - valid.mean()) /", "(valid.mean() - valid) /"),
        ("advantage: no deviation", " / valid.std(ddof=1)", ""),
        ("advantage: no mean", "(valid - valid.mean()) / valid", "valid / valid"),
        ("advantage: centered's sign", "lambda valid: valid - valid.mean()", "lambda valid: valid.mean() - valid"),
        (
            "advantage: centered by the median",
            "lambda valid: valid - valid.mean()",
            "lambda valid: valid - np.median(valid)",
        ),
        ("advantage: none is left out", "(valid.sum() - valid) / (len(valid) - 1)", "valid.sum() / len(valid)"),
        ("advantage: mean of n for n - 1", "/ (len(valid) - 1)", "/ len(valid)"),
        ("advantage: leave-one-out's sign", "valid - (valid.sum()", "-valid + (valid.sum()"),
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
        "stages/credit.py",
        ("credit: k1's sign", "overlong - algorithm.kl.coef * strayed", "overlong + algorithm.kl.coef * strayed"),
        ("credit: k1 without coefficient", "algorithm.kl.coef * strayed", "strayed"),
        ("credit: k1 of the last segment", "found.get(key, 0.0) + sum(", "sum("),
        ("credit: k1 with the others", 'kl.estimator == "k1_reward" else', 'kl.estimator != "none" else'),
        ("credit: k1 in the loss too", 'if kl.coef and kl.estimator != "k1_reward"', "if kl.coef"),
        ("credit: overlong's sign", "return overlong - ", "return -overlong - "),
        ("credit: truncated ones always masked", "truncated and stage.algorithm.mask_truncated", "truncated"),
        ("credit: truncated ones never masked", "truncated and stage.algorithm.mask_truncated", "False"),
        ("credit: all masked", 'sample.finish == "length"', "sample.finish"),
        ("credit: one rollout for all", "attempt=attempt,", "attempt=0,"),
        ("credit: support lost", "support=segment.support,", "support=None,"),
        ("credit: faults teach", "if made.score is not None\n", "if made is not None\n"),
    ),
    *_of(
        "rollout/draw.py",
        ("cut: top-k one more", "kept[:, top_k:]", "kept[:, top_k + 1 :]"),
        (
            "cut: top-p without the last needed",
            "probabilities.cumsum(-1) - probabilities < top_p",
            "probabilities.cumsum(-1) < top_p",
        ),
        ("cut: top-p before top-k", "ordered.masked_fill(~kept, -torch.inf).double()", "ordered.double()"),
        ("cut: top-p of all but", "- probabilities < top_p", "- probabilities > top_p"),
        ("cut: min-p's sign", "+ math.log(min_p)", "- math.log(min_p)"),
        ("cut: min-p of the second", "ordered[:, :1] + math", "ordered[:, 1:2] + math"),
        ("cut: the least likely", "descending=True", "descending=False"),
        (
            "cut: not undone",
            "scatter_(-1, order, ordered.masked_fill(~kept, -torch.inf))",
            "scatter_(-1, order, ordered)",
        ),
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
        ("head: no temperature forward", "scores.sub_(peak).div_(temperature)", "scores.sub_(peak)"),
        ("head: target without temperature", "[:, None] / temperature - peak", "[:, None] - peak"),
        ("head: no temperature backward", ".div_(ctx.temperature)", ""),
        ("head: slope without temperature", "-of_logprobs[:, None] / ctx.temperature", "-of_logprobs[:, None]"),
        ("head: entropy's slope without it", "of_entropy[:, None] / ctx.temperature", "of_entropy[:, None]"),
        ("head: entropy's slope has another sign", "probabilities * entropy).neg_()", "probabilities * entropy)"),
        ("head: entropy's slope without H", "plogp.add_(probabilities * entropy)", "plogp"),
        ("head: entropy's H has another sign", "entropy = -plogp.sum", "entropy = plogp.sum"),
        ("head: entropy's slope left out", "is None else d_scores.add_(bonus)", "is None else d_scores"),
        ("head: support ignored forward", "partial(support.restrict, first=start) if support else None", "None"),
        ("head: support ignored backward", "probabilities = ctx.support.restrict(probabilities, rows.start)", "pass"),
        ("head: support of the first chunk", "support.restrict, first=start", "support.restrict, first=0"),
        ("head: set of the first chunk", "self.which[first : first + len(logits)]", "self.which[: len(logits)]"),
        ("head: what is outside the set", "~unpacked(self.sets[which]", "unpacked(self.sets[which]"),
        ("head: bits from the highest", "1 << place for place", "128 >> place for place"),
        (
            "head: support of the first chunk, backward",
            "restrict(probabilities, rows.start)",
            "restrict(probabilities, 0)",
        ),
        ("head: support left far below", "scores.sub_(above), peak + above", "scores, peak"),
        (
            "head: support reversed",
            "restricted[rows, ids] = logits[rows, ids]",
            "restricted[rows, -ids] = logits[rows, ids]",
        ),
        ("head: excluded are likely", "EXCLUDED = -1e30", "EXCLUDED = 0.0"),
        ("head: normaliser added", "chosen - log_total", "chosen + log_total"),
        ("head: probabilities' sign", "slopes = -of_logprobs", "slopes = of_logprobs"),
        ("head: kept ones not normalized", "slope = slopes[block] / total", "slope = slopes[block]"),
        ("head: kept ones not normalized, entropy", "ctx.kept[rows] / totals[rows, None]", "ctx.kept[rows] / 1.0"),
        ("head: states without slope", "part = (part * slope)", "part = (part * 1)"),
        ("head: target's sign, kept", "at_target = logprobs", "at_target = -logprobs"),
        (
            "head: anew ones not normalized",
            "probabilities /= probabilities.sum(-1, keepdim=True)",
            "probabilities *= 2",
        ),
        ("head: target's sign", "None], logprobs[rows, None]", "None], -logprobs[rows, None]"),
        ("head: target as another token", "[rows, None].expm1())", "[rows, None].exp())"),
        ("head: chunks overlap", "hidden[start : start + CHUNK]", "hidden[start : start + CHUNK + 1]"),
        ("head: blocks leave gaps", "min(first + BLOCK, len(hidden))", "min(first + BLOCK - 1, len(hidden))"),
        ("head: another chunk's probabilities", "rows.start - first, rows.stop - first", "0, rows.stop - rows.start"),
        ("head: last chunk's weights only", "else d_weight.add_(update)", "else update"),
        ("head: no gradient to the weights", "return d_hidden, d_weight,", "return d_hidden, None,"),
        ("head: no gradient to the states", "return d_hidden, d_weight,", "return None, d_weight,"),
        ("head: entropy's sign", "log_total - mean", "mean - log_total"),
        ("head: least likely is correct", "likeliest = scores.amax(-1", "likeliest = scores.amin(-1"),
        ("head: bfloat16 logits", "scores[:, tokens] = exact", "exact"),
        ("head: of other tokens", "(scores.amax(0) > temperature", "(scores.amax(0) < temperature"),
    ),
    *_of(
        "models/passes.py",
        ("norm: mean of another width", "square_().div_(inputs.shape[-1])", "square_().div_(8)"),
        ("norm: gradient along the state", "gradient.sub_(unit.mul_(along))", "gradient"),
        ("norm: weight's gradient", "(gradient * unit).flatten", "gradient.flatten"),
        ("rotary: sign", "addcmul_(right, sin, value=-1)", "addcmul_(right, sin)"),
        ("gate: gradients exchanged", "d_gate, d_up = output.chunk(2, -1)", "d_up, d_gate = output.chunk(2, -1)"),
        ("gate: not gated", "silu_backward(gradients[0] * up, gate)", "silu_backward(gradients[0], gate)"),
    ),
    *_of(
        "models/fused.py",
        ("layer: no residual", "stream = stream + self._project", "stream = self._project"),
        ("layer: no scale", "scale, window = attention.scaling, ", "scale, window = 1.0, "),
    ),
    *_of(
        "models/attention.py",
        ("attention: gradient turned onward", "rotated(part, angles[0], -angles[1])", "rotated(part, *angles)"),
        ("attention: padding teaches", "[call.places < 0] = 0", "[call.places < -1] = 0"),
        ("attention: branches overwrite", "d_key.index_add_(0", "d_key.index_copy_(0"),
        (
            "attention: gradient of another order",
            "torch.cat(d_queries).index_select(0, packed.order)",
            "torch.cat(d_queries)[: len(query)]",
        ),
        ("attention: future seen", "visible = (distance >= 0)", "visible = (distance >= -1)"),
        ("attention: window wider", "distance < window", "distance <= window"),
    ),
    *_of(
        "models/joined.py",
        (
            "joined: weights in another order",
            "torch.cat([weight.detach() for weight in weights]) if found",
            "torch.cat([weight.detach() for weight in weights[::-1]]) if found",
        ),
        (
            "joined: gradient of the transpose",
            "d_inputs = gradient @ together(weights)",
            "d_inputs = -gradient @ together(weights)",
        ),
        ("joined: bias's gradient", "list(gradient.sum(0).split(sizes))", "list(gradient.mean(0).split(sizes))"),
    ),
    *_of(
        "data/pack.py",
        ("pack: predicted by itself", "before = index - 1", "before = index"),
        ("pack: prefix positions restart", "range(span.prefix, span.prefix + len(tokens))", "range(len(tokens))"),
        ("pack: atoms are split", "for atom in atoms(rows):", "for atom in ([row] for row in rows):"),
        ("pack: budget overrun", "used + cost(part) > budget", "used > budget"),
        ("pack: budget overrun by an atom", "part and used + own > budget", "part and used > budget"),
        ("pack: lengths count prompts", "counts = [sum(row.trained for", "counts = [sum(len(row.tokens) for"),
        ("pack: segments are sequences", "-1, row.attempt, row)", "index, row.attempt, row)"),
        ("pack: rows without attempt are one", "index if row.attempt is None else -1", "-1"),
        ("pack: atoms share attempts", "keyed[:3]", "keyed[1:3]"),
        ("pack: reference of another", 'ref_logprobs=given("ref_logprobs")', 'ref_logprobs=given("old_logprobs")'),
    ),
    *_of(
        "train/backward.py",
        ("backward: never divided", "(summed.total / errand.count).backward()", "summed.total.backward()"),
        ("backward: last microbatch only", "add(self._wide[parameter], ", "self._wide[parameter].copy_("),
        ("backward: predictions not counted", "len(batch.target), sums, peaks", "1, sums, peaks"),
    ),
    *_of(
        "train/engine.py",
        ("engine: reports the sum", "value = totals.total / count if count", "value = totals.total if count"),
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
        (
            "engine: scores without temperature",
            "forward(model, batch, temperature, head)",
            "forward(model, batch, 1.0, head)",
        ),
    ),
    *_of(
        "train/optim.py",
        ("optim: betas swapped", "(config.beta1, config.beta2)", "(config.beta2, config.beta1)"),
        ("optim: no decay", '"weight_decay": config.weight_decay', '"weight_decay": 0.0'),
    ),
    *_of(
        "config/algorithms.py",
        ("preset: dapo clips as grpo", '"clip_high": 0.28', '"clip_high": 0.2'),
        ("preset: dr_grpo by tokens", '"normalizer": "max_tokens"', '"normalizer": "token"'),
        ("preset: dr_grpo normalised", '"advantage": "centered"', '"advantage": "normalized"'),
        ("preset: gspo by tokens' ratios", '"ratio": "sequence"', '"ratio": "token"'),
        ("preset: gspo's sides swapped", '"clip_low": 3e-4', '"clip_low": 4e-4'),
        ("preset: cispo's other cap", '"clip_high": 5.0', '"clip_high": 4.0'),
        ("preset: cispo clips as ppo", '"clip": "cispo"', '"clip": "none"'),
        ("preset: rloo by mean", '"normalizer": "sequence_sum"', '"normalizer": "sequence"'),
        ("preset: rloo centered", '"advantage": "leave_one_out"', '"advantage": "centered"'),
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
        return _test(folder, path.stem)
    finally:
        path.write_text(right, "utf-8")


def _test(folder: Path, stem: str) -> str:
    """The first test that fails; those named after the module of that stem come first."""
    names = sorted(TESTS, key=lambda name: stem not in name)
    log = folder / "log"
    child = os.fork()
    if child == 0:
        _become_pytest(folder, log, names)
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


def _become_pytest(folder: Path, log: Path, names: list[str]) -> None:
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
            ["-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider", *(f"tests/core/{name}" for name in names)]
        )
        sys.stdout.flush()
    finally:
        os._exit(0)


def copy(folder: Path) -> Path:
    """What the quick tests need of the project."""
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "src", folder / "src", ignore=ignore)
    shutil.copytree(ROOT / "tests/core", folder / "tests/core", ignore=ignore)
    shutil.copy(ROOT / "tests/tiny.py", folder / "tests")
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
