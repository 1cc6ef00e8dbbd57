"""What every number of a run means, which range is healthy, and what to do outside of it: said here and nowhere else.

The report's tooltips, its list of meanings and docs/metrics.md are made from this table. Where no range can honestly be
given, it says so; where one rests on a paper or on runs of ours, `source` names them.
"""

from __future__ import annotations

from sharpen.reports.meaning import OURS, Meaning
from sharpen.reports.meanings_of_results import COST, RESULTS, TRIAL

TRAINING = {
    "loss": Meaning(
        "Loss",
        "SFT: the mean surprise per answer token, in nats (0: certain of every token). Preferences: what the stage's "
        "`loss` says (docs/preferences.md); DPO's begins at 0.69, -log(1/2). RFT: the objective's value, which "
        "hovers around 0 and says nothing of progress; read the reward.",
        "in SFT and on preferences training and validation both fall, then level off; no number holds for all data",
        "Validation turning up while training falls is overfitting: more rows, fewer epochs, or `final: best`. "
        "Training that rises or jumps: a lower `optim.lr`.",
        metrics=("loss", "validation.loss"),
    ),
    "token_accuracy": Meaning(
        "Token accuracy",
        "Share of the answers' tokens that the model itself would have chosen next.",
        "rises, then levels off, training and validation together; no number holds for all data",
        "Training far above validation is overfitting: more rows, or fewer epochs. Near 100% from the start: there is "
        "nothing left to imitate.",
        metrics=("token_accuracy", "validation.token_accuracy"),
    ),
    "margin": Meaning(
        "Margin",
        "Preferences: the reward of the better answer less that of the worse, mean over pairs. 0 where the policy "
        "prefers neither more than its start does; without a reference it is what the policy itself prefers.",
        "grows, training and validation together; its height goes with `loss.beta`",
        "Training alone growing is overfitting: more pairs, fewer epochs. None growing: see preference accuracy.",
        metrics=("rewards.margins", "validation.rewards.margins"),
    ),
    "preference_accuracy": Meaning(
        "Preference accuracy",
        "Share of pairs whose better answer has the higher reward; in KTO share of answers on the right side of z0. "
        "Where the policy is still its start it is 0%, for no reward is then higher.",
        "leaves 50% within the first epoch; validation little below training",
        "Around 50%: a higher `optim.lr`, more pairs, or a look whether the labels agree with one another. 100% in "
        "training alone: overfitting.",
        metrics=("rewards.accuracies", "validation.rewards.accuracies"),
    ),
    "answer_reward": Meaning(
        "Reward of answers",
        "Preferences: beta times the log-probability of a whole answer less what the stage's start gives it, mean over "
        "better and over worse answers. SimPO and ORPO take the mean over tokens; these two and CPO have no start. A "
        "reward model's is its score.",
        "the better above the worse; both may fall, the better by little",
        "The better falling far too: both become unlikely. A lower `optim.lr`, a larger `loss.beta`, a loss with a "
        "likelihood term (`cpo`, `orpo`), or an SFT stage on the better answers first.",
        "arXiv:2402.13228 and arXiv:2410.08847 on better answers that become unlikely",
        metrics=(
            "rewards.chosen",
            "rewards.rejected",
            "validation.rewards.chosen",
            "validation.rewards.rejected",
        ),
    ),
    "answer_logprob": Meaning(
        "Log-probability of answers",
        "Preferences: what the policy gives a whole answer, in nats, mean over a step's better and worse answers.",
        "no range: it goes with the answers' length. What counts is its change, which the reward of answers shows",
        metrics=("logps.chosen", "logps.rejected", "validation.logps.chosen", "validation.logps.rejected"),
    ),
    "grad_norm": Meaning(
        "Gradient norm",
        "Length of the gradient, before it is clipped to `optim.max_grad_norm`.",
        "steady, whatever its height; a single spike is one odd batch",
        "A climb over many steps is instability: a lower `optim.lr`, or larger batches.",
        metrics=("grad_norm",),
    ),
    "lr": Meaning(
        "Learning rate",
        "The size of each update: warm-up, then the schedule of the recipe.",
        "what `lr: auto` chooses for the size of the model (docs/settings.md)",
        "Loss or reward that swings: a quarter of it. No change at all over many steps: twice as much.",
        "Tülu 3 (arXiv:2411.15124), DeepSeekMath (arXiv:2402.03300), DAPO (arXiv:2503.14476), and our quickstart",
        metrics=("lr",),
    ),
    "skipped": Meaning(
        "Skipped",
        "True where loss or gradient were no finite numbers, so that the step changed nothing.",
        "never there; three such steps running end the run",
        "A lower `optim.lr`, or `dtype: float32`.",
        metrics=("skipped",),
    ),
    "reward": Meaning(
        "Reward",
        "What the grader gave: the mean over a step's completions, drawn at the recipe's temperature; the band is one "
        "standard deviation. Validation: greedy answers to held-out prompts.",
        "both rise together; how far depends on the task",
        "Training alone rising is overfitting (more prompts), or a grader that can be fooled (`sharpen grade "
        "--red-team`). Neither rising: see groups without spread.",
        metrics=("reward.mean", "reward.std", "validation.reward", "validation.n"),
    ),
    "by_grader": Meaning(
        "Score by grader",
        "The mean score that each grader gave, or each part of a `multi`.",
        "all rise, or hold",
        "One that rises at the cost of another is being gamed: weigh the parts anew.",
        metrics=("reward.by_grader.*",),
    ),
    "no_spread": Meaning(
        "Groups without spread",
        "Share of prompts whose completions all scored alike. Their advantages are 0: they teach nothing.",
        "below 90%; it grows as the model gets better (12% at first, 75% later in our quickstart)",
        "All wrong: an SFT stage first, easier prompts, partial credit. All right: harder prompts. Else a larger "
        "`group_size`.",
        "DAPO (arXiv:2503.14476, section 3.2) on why such groups are lost; the numbers are of " + OURS,
        metrics=("no_spread_share",),
    ),
    "dropped_groups": Meaning(
        "Dropped groups",
        "Groups of a step that had fewer than two completions with a grade, so that nothing could be compared.",
        "0",
        "The grader fails: see faults.",
        metrics=("dropped_groups",),
    ),
    "length": Meaning(
        "Completion length",
        "Tokens per completion: the mean, and the longest of the step.",
        "settles; no number holds for all tasks",
        "Growth without reward is padding: a length penalty (`algorithm.overlong_buffer`). A collapse is a shortcut: "
        "read the rollouts.",
        metrics=("length.mean", "length.max"),
    ),
    "truncated": Meaning(
        "Cut off at the limit",
        "Share of completions that ran into `max_tokens`, and mostly counted as wrong.",
        "near 0%; above 25% in training, or 10% in an eval, the verdict says so",
        "Raise `max_tokens`, or ask for shorter answers in the prompt.",
        "thresholds of ours",
        metrics=("length.truncated_share",),
    ),
    "entropy": Meaning(
        "Entropy",
        "How undecided the policy is at a token, in nats: 0 is certain, 0.69 a coin toss.",
        "falls slowly (from 1.0 to between 0.3 and 0.9 in our quickstart); no number holds for all tasks",
        "Near 0 it no longer explores, and the reward stands still: a higher `clip_high`, an `entropy_coef`, a lower "
        "`optim.lr`. A rise: the rate is too high.",
        "arXiv:2505.22617 on its collapse; the numbers are of " + OURS,
        metrics=("entropy",),
    ),
    "kl": Meaning(
        "KL to the start",
        "How far the policy has moved from where its stage began, in nats per token. RFT estimates it on four groups a "
        "step; preferences on the better answers, which are not the policy's own, so that it is no true KL. KTO: z0, "
        "that of whole answers. Not there for losses without a reference.",
        "grows slowly; 0.06 after 8 steps, 0.2 to 1.7 around the 32nd in our quickstart, by a noisy estimate; above 5 "
        "the verdict says so. No paper's number carries over to another task",
        "A lower `optim.lr`, fewer steps, or a penalty on it (`algorithm.kl`).",
        "k3 of http://joschu.net/blog/kl-approx.html; the numbers are of " + OURS,
        metrics=("kl", "validation.kl"),
    ),
    "clip_fraction": Meaning(
        "Clip fraction",
        "Share of tokens whose update was clipped, as the policy had moved too far on them.",
        "0% with one update per batch; with several, below 20%, which is a rule of thumb without a source",
        "A lower `optim.lr`, or fewer `algorithm.num_iterations`.",
        metrics=("clip_fraction",),
    ),
    "logprob_gap": Meaning(
        "Sampler against trainer",
        "By how much the two differ in the log-probability of a sampled token, in nats. Updates rest on it.",
        "mean below 0.02 in bfloat16, none above 0.001 in float32; with `max_lag` the policy's own movement is in it",
        "`dtype: float32`; tell us, for it is a fault of ours.",
        "measured: at most 0.010 to 0.015 in a step, in bfloat16, in " + OURS,
        metrics=("logprob_gap.mean", "logprob_gap.max"),
    ),
    "policy_lag": Meaning(
        "Policy lag",
        "Steps between the policy that sampled a completion and the one that is trained on it.",
        "0, or up to `algorithm.max_lag` where the recipe sets it",
        metrics=("policy_lag",),
    ),
    "faults": Meaning(
        "Faults",
        "How often grading met each kind of fault. One of the completion (`sample_parse_error`) scores 0; one of the "
        "grader gives no score, and the completion is left out (docs/grader-faults.md).",
        "the grader's: 0; from 1% of completions on the verdict says so, above `max_fault_share` the run pauses",
        "Mend the grader; `sharpen grade` tries it.",
        metrics=("faults.*",),
    ),
    "step_time": Meaning(
        "Time per step",
        "Seconds by phase: sampling completions, grading them, training on them.",
        "steady; sampling usually dominates. Its height is that of machine and recipe (`sharpen bench`)",
        "A growing part shows where time goes: longer completions, a slow judge, or other work on the machine.",
        metrics=("time.step", "time.sample", "time.grade", "time.train"),
    ),
    "tokens": Meaning(
        "Tokens",
        "Tokens of completions: sampled from the model, and trained on.",
        "no range: it is a cost. In RFT fewer are trained than sampled where groups have no spread",
        metrics=("tokens.sampled", "tokens.trained"),
    ),
    "sources": Meaning(
        "Rows by source",
        "How many of a step's rows were drawn from each source, where they are mixed (docs/data.md).",
        "in the proportion of the weights",
        metrics=("rows.*",),
    ),
    "step": Meaning(
        "Step",
        "Which step, of how many, of which stage the line tells of; from 1.",
        "no range: it is a place",
        metrics=("stage", "type", "step", "steps"),
    ),
}

GROUPS = {
    "Training": TRAINING,
    "Results": RESULTS,
    "The trial before a stage": TRIAL,
    "Cost": COST,
}
"""The meanings by where they stand."""

MEANINGS = {key: meaning for group in GROUPS.values() for key, meaning in group.items()}
