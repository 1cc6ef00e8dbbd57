"""Two values of each field of a recipe, and what else is said, for tests/stages/test_fields.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.runs.lab import PLUGIN, labelled, prompts


@dataclass(frozen=True)
class Case:
    """Two values of a field, in a recipe where it matters."""

    before: Any
    after: Any
    around: dict[str, Any] = field(default_factory=dict)
    faulty: bool = False
    raises: str = ""


def inline(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "inline", "rows": rows}


HERE = "tests.stages.test_fields"
COUNT = {"type": "plugin", "use": "tests.stages.episodes:Count"}
SECOND_MODEL = "another model"
STEEP = {"lr": 0.03, "warmup_ratio": 0.0}
TWICE = {"num_iterations": 4}
LOOSE = {"lr": 1e-3, "max_grad_norm": 1e9}  # so that clipping does not take the scale of the gradient away
LOOK = {"eval_every": 1}
NO_PATIENCE = {"patience": 1, "min_delta": 9.0}
WORSE = {"eval_every": 1, "optim": STEEP}

CHOICE = [{**row, "other": row["prompt"] + " again"} for row in labelled("five", 8)]
SUMS: dict[str, Any] = {
    "params": {"min_terms": 2, "max_terms": 2, "min_digits": 1, "max_digits": 1},
    "start": 0,
    "count": 6,
}

CASES: dict[str, Case] = {
    "Recipe.model": Case(None, SECOND_MODEL),
    "Recipe.seed": Case(3, 4),
    "Recipe.dtype": Case("float32", "bfloat16"),
    "Recipe.adapter": Case(None, "lora"),
    "Recipe.stages": Case("sft", "rft"),
    "Recipe.evals": Case(0, 1),
    "Recipe.report_to": Case((), "tensorboard"),
    "SFT.name": Case("one", "two"),
    "SFT.data": Case(inline(labelled("one", 6)), inline(labelled("two", 6))),
    "SFT.validation": Case(inline(labelled("three", 3)), inline(labelled("four", 3))),
    "SFT.adapter": Case("none", "lora"),
    "SFT.optim": Case({"lr": 1e-3}, {"lr": 2e-3}),
    "SFT.eval_every": Case(2, 3, {"validation": inline(labelled("three", 3))}),
    "SFT.save_every": Case(2, 3),
    "SFT.early_stopping": Case(None, NO_PATIENCE, {"validation": inline(labelled("three", 3)), **LOOK}),
    "SFT.final": Case("last", "best", {"validation": inline([{"prompt": "far", "completion": "ZZZZ"}]), **WORSE}),
    "SFT.tokens_per_microbatch": Case(4096, 40),
    "SFT.replay": Case(None, {"data": inline(labelled("five", 4)), "share": 0.25}),
    "SFT.epochs": Case(1, 1.5),
    "SFT.batch_size": Case(4, 3),
    "SFT.max_length": Case(2048, 30, raises="DataError"),
    "RFT.name": Case("one", "two"),
    "RFT.data": Case(inline(prompts("one", 4)), inline(prompts("two", 4))),
    "RFT.validation": Case(inline(prompts("three", 3)), inline(prompts("four", 3))),
    "RFT.adapter": Case("none", "lora"),
    "RFT.optim": Case({"lr": 1e-3}, {"lr": 2e-3}),
    "RFT.eval_every": Case(2, 3, {"validation": inline(prompts("three", 3))}),
    "RFT.save_every": Case(1, 2),
    "RFT.early_stopping": Case(None, NO_PATIENCE, {"validation": inline(prompts("three", 3)), **LOOK}),
    "RFT.final": Case("last", "best", {"validation": inline(prompts("three", 3)), **WORSE}),
    "RFT.tokens_per_microbatch": Case(4096, 40),
    "RFT.grader": Case(PLUGIN, {**PLUGIN, "use": "tests.stages.test_fields:digits"}),
    "RFT.env": Case(COUNT, {"type": "tools"}),
    "RFT.algorithm": Case({"preset": "dapo", **TWICE}, {"preset": "grpo", **TWICE}),
    "RFT.prompts_per_step": Case(2, 3),
    "RFT.group_size": Case(3, 4),
    "RFT.steps": Case(2, 3),
    "RFT.sampling": Case({"max_tokens": 8}, {"max_tokens": 7}),
    "RFT.response_format": Case(None, {"type": "json_object"}),
    "RFT.max_fault_share": Case(0.2, 0.1, {"max_fault_steps": 9}, faulty=True, raises="GraderError"),
    "RFT.max_fault_steps": Case(9, 2, faulty=True, raises="GraderError"),
    "EarlyStopping.patience": Case(1, 2),
    "EarlyStopping.min_delta": Case(0.0, 9.0),
    "Sampling.temperature": Case(1.0, 0.9),
    "Sampling.max_tokens": Case(8, 7),
    "Sampling.top_k": Case(None, 3),
    "Sampling.top_p": Case(1.0, 0.5),
    "Sampling.min_p": Case(0.0, 0.3),
    "Optim.type": Case("adamw", "adamw_8bit"),
    "Optim.lr": Case(1e-3, 2e-3),
    "Optim.schedule": Case("cosine", "linear"),
    "Optim.warmup_ratio": Case(0.1, 0.5),
    "Optim.weight_decay": Case(0.0, 0.1),
    "Optim.beta1": Case(0.9, 0.8),
    "Optim.beta2": Case(0.99, 0.9),
    "Optim.max_grad_norm": Case(1.0, 0.1),
    "Lora.rank": Case(4, 5),
    "Lora.alpha": Case(32, 16),
    "Lora.dropout": Case(0.0, 0.1),
    "Lora.dora": Case(False, True),
    "Lora.rslora": Case(False, True),
    "Lora.targets": Case("all-linear", "attention"),
    "Lora.stack": Case(False, True),
    "QLora.quant_type": Case("nf4", "fp4"),
    "QLora.double_quant": Case(True, False),
    "Algorithm.preset": Case("grpo", "dapo"),
    "Algorithm.advantage": Case("centered", "leave_one_out", {"optim": LOOSE}),
    "Algorithm.ratio": Case("token", "sequence", {"optim": STEEP, **TWICE}),
    "Algorithm.clip": Case("ppo", "none", {"optim": STEEP, **TWICE}),
    "Algorithm.clip_low": Case(0.2, 0.02, {"optim": STEEP, **TWICE}),
    "Algorithm.clip_high": Case(0.28, 0.02, {"optim": STEEP, **TWICE}),
    "Algorithm.normalizer": Case("sequence", "token"),
    "Algorithm.overlong_buffer": Case(0.0, 0.5),
    "Algorithm.mask_truncated": Case(False, True),
    "Algorithm.kl": Case({"coef": 0.0}, {"coef": 0.5}),
    "Algorithm.entropy_coef": Case(0.0, 0.1),
    "Algorithm.max_lag": Case(0, 1),
    "KL.coef": Case(0.1, 0.5),
    "KL.estimator": Case("k2", "k3"),
    "KL.importance_weighted": Case(False, True),
    "Algorithm.mismatch_cap": Case(2.0, 0.5),  # below 1, so that it caps the ratio of equal policies
    "Algorithm.num_iterations": Case(1, 2),
    "FileData.path": Case("sft.jsonl", "sft-validation.jsonl"),
    "FileData.limit": Case(4, 8),
    "FileData.columns": Case({}, {"prompt": "completion", "completion": "prompt"}),
    "FileData.split": Case({"test": 0.3}, {"test": 0.3, "part": "test"}),
    "FileData.grader": Case(None, PLUGIN, raises="ConfigError"),
    "InlineData.rows": Case(CHOICE[:6], CHOICE[2:]),
    "InlineData.columns": Case({}, {"prompt": "other", "old": "prompt"}),
    "InlineData.split": Case({"test": 0.3}, {"test": 0.3, "part": "test"}),
    "InlineData.grader": Case(None, PLUGIN, raises="ConfigError"),
    "ReasoningGymData.generator": Case("chain_sum", "basic_arithmetic", {**SUMS, "params": {}}),
    "ReasoningGymData.params": Case(SUMS["params"], {**SUMS["params"], "max_digits": 2}, SUMS),
    "ReasoningGymData.start": Case(0, 50, SUMS),
    "ReasoningGymData.count": Case(6, 9, SUMS),
    "ReasoningGymData.suffix": Case("", " Only the number.", SUMS),
    "ReasoningGymData.grader": Case(None, PLUGIN, SUMS, raises="ConfigError"),
    "Replay.data": Case(inline(labelled("five", 4)), inline(labelled("six", 4))),
    "Replay.share": Case(0.25, 0.5),
    "Split.test": Case(0.3, 0.6),
    "Split.part": Case("train", "test"),
    "Split.group_by": Case("", "prompt.0", raises="DataError"),
    "Split.seed": Case(0, 1),
    "Eval.name": Case("one", "two"),
    "Eval.data": Case(inline(prompts("one", 4)), inline(prompts("two", 4))),
    "Eval.grader": Case(PLUGIN, {**PLUGIN, "use": "tests.stages.test_fields:digits"}),
    "Eval.env": Case(None, COUNT),
    "Eval.max_tokens": Case(8, 7),
    "Eval.response_format": Case(None, {"type": "regex", "pattern": "[0-9]{1,6}"}),
    "Eval.samples": Case(1, 2),
    "Eval.temperature": Case(1.0, 0.9),
    "JsonSchemaFormat.schema": Case({"enum": ["ab", "cd"]}, {"enum": ["ef", "gh"]}),
    "JsonSchemaFormat.strict": Case(True, False),
    "RegexFormat.pattern": Case("[a-z]{1,6}", "[0-9]{1,6}"),
    "Tools.max_turns": Case(1, 2),
    "Tools.use": Case("calculator", f"{HERE}:echo"),
    "Tools.announce": Case(True, False),
    "Tools.reply_role": Case("tool", "user"),
    "Tools.max_reply": Case(1000, 5),
    "PluginEnv.max_turns": Case(1, 2),
    "PluginEnv.use": Case(COUNT["use"], f"{HERE}:shouting"),
    "PluginEnv.args": Case({}, {"opening": "Count."}),
}
