"""What the numbers of results, trials and cost mean; those of training, and all together, stand in `meanings`."""

from __future__ import annotations

from sharpen.reports.meaning import Meaning

RESULTS = {
    "accuracy": Meaning(
        "Accuracy",
        "Share of held-out problems whose greedy answer scores 1 or more: fully right, and in the form asked for. "
        "Brackets and whiskers are its 95% interval over problems.",
        "no range: what counts is the change, and its interval",
        "0% for every model: see found, then try an SFT stage first.",
        "bootstrap over problems, 10,000 draws; Clopper and Pearson where all are alike",
    ),
    "problems": Meaning(
        "Problems",
        "How many held-out problems were answered; none of them occurs in training.",
        "no range: it decides which differences can be shown (520 show about 7 points in our quickstart)",
        "More rows: four times as many show differences half as large.",
    ),
    "in_form": Meaning(
        "In form",
        "Share of answers in the form that the grader reads, right or wrong.",
        "near 100% after SFT",
        "Ask for the form in the prompt, hold answers to it (`response_format`), or label more rows.",
    ),
    "found": Meaning(
        "Found",
        "Share of answers in which the right answer stands anywhere, in form or not.",
        "little above the accuracy; a wide gap is knowledge that the form hides",
        "An SFT stage on the form.",
    ),
    "change": Meaning(
        "Change",
        "Difference in accuracy against the row above, or the stage that `from` names, in percentage points, on the "
        "same problems (paired), with its 95% interval. Bold: the interval is clear of 0.",
        "an interval above 0; where it touches 0, no difference is shown",
        "More problems, or another seed and `sharpen compare`; not: more tries until one looks good.",
        "paired bootstrap over problems",
    ),
    "format_gain": Meaning(
        "Format gain",
        "The part of the change that comes from giving what is found in the form asked for more often.",
        "no range; a change that is all form is no new knowledge",
    ),
    "task_gain": Meaning(
        "Task gain",
        "The part of the change that comes from finding the right answer more often.",
        "above 0, where the model was to learn the task",
        "More varied rows, or a reward.",
        "Shapley value of the two factors of accuracy (docs/architecture.md)",
    ),
    "detectable": Meaning(
        "Detectable",
        "The smallest true difference that the test finds 4 times in 5: 2.80 times the difference's standard error.",
        "below the difference that would matter to you",
        "More problems: four times as many halve it. More seeds.",
        "power 80% at 5%, two-sided; Connor, Biometrics 43 (1987) 207-211",
    ),
    "by_seed": Meaning(
        "By seed",
        "Accuracy of each run of the arm, one for each seed.",
        "close together; their spread is what luck alone does",
        "More seeds, and the difference judged over all of them.",
    ),
    "at_k": Meaning(
        "avg@k and pass@k",
        "Of k answers drawn at temperature: the mean share that is right, and the share of problems with at least one.",
        "no range; pass@k far above the accuracy is room that RFT can use",
        source="pass@k: arXiv:2107.03374, eq. 1",
    ),
    "macro_f1": Meaning(
        "Macro-F1",
        "The plain mean of the classes' F1: rare classes count as much as frequent ones.",
        "close to the accuracy; far below it, rare classes are lost",
        "More rows of the rare classes.",
    ),
    "precision": Meaning(
        "Precision",
        "Of the answers that name this class, the share that is right.",
        "no range; low means it is named too often",
    ),
    "recall": Meaning(
        "Recall",
        "Of the problems of this class, the share that is answered so.",
        "no range; low means it is overlooked",
        "More rows of this class.",
    ),
    "f1": Meaning("F1", "The harmonic mean of precision and recall.", "no range; as high as its lower part allows"),
    "advantage": Meaning(
        "Advantage",
        "The reward against those of the prompt's other completions. Above 0 a completion becomes likelier, below 0 "
        "rarer.",
        "both signs in a group; all 0 where all scored alike",
    ),
}

TRIAL = {
    "tried": Meaning(
        "tried",
        "Prompts of the stage that its model was tried on before any training, and completions of each.",
        "16 or more",
    ),
    "trial_reward": Meaning(
        "reward",
        "What the grader gave: mean and variance over all completions.",
        "neither the lowest nor the highest score; a variance above 0",
        "See always right and always wrong.",
    ),
    "learnable": Meaning(
        "learnable",
        "Share of groups with different rewards, with its 95% interval: only those teach.",
        "the higher the faster it learns; 50% in our quickstart; surely below 2% the stage is refused",
        "An SFT stage first, other prompts, partial credit, or a larger `group_size`.",
        "docs/probe.md",
    ),
    "always_right": Meaning(
        "always right",
        "Share of groups in which every completion is right.",
        "below 50%",
        "Harder prompts would teach more.",
        "threshold of ours",
    ),
    "always_wrong": Meaning(
        "always wrong",
        "Share of groups in which no completion gets anything.",
        "below 50%",
        "An SFT stage first, easier prompts, or partial credit.",
        "threshold of ours",
    ),
    "alike": Meaning(
        "alike",
        "Share of groups with the same score in between.",
        "below 50%",
        "A grader that tells answers apart.",
        "threshold of ours",
    ),
    "trial_form": Meaning(
        "in form",
        "Share of completions in the form that the grader reads.",
        "above 50%",
        "An SFT stage on the form.",
        "threshold of ours",
    ),
    "grader": Meaning(
        "grader",
        "How often the grader failed, how often it gave another score when asked again, and its time a completion.",
        "0% failures, 0 changes; little time against that of sampling",
        "Mend the grader. Where it is a judge that wavers: larger groups, or temperature 0.",
    ),
    "completions": Meaning(
        "completions",
        "Their mean length in tokens, and the share cut off at the limit.",
        "below 25% cut off",
        "Raise `sampling.max_tokens`, or ask for shorter answers.",
        "threshold of ours",
    ),
    "loss_mask": Meaning(
        "loss mask",
        "Whether what would be trained is the completion that was graded, and the rest is the prompt.",
        "covers the completions and nothing of the prompts",
        "The chat template rewrites turns: use another, or tell us.",
    ),
    "forecast": Meaning(
        "a step",
        "Predicted seconds of a training step, and of all; rough, without validation and checkpoints.",
        "no range: it is a cost",
        "Fewer `prompts_per_step` or `steps`, or a shorter `max_tokens`.",
    ),
    "forecast_memory": Meaning(
        "memory",
        "Predicted memory of the first step: what is in use, and 12 bytes a trained weight.",
        "below what the machine has",
        "An adapter (`adapter: {type: lora}`), or a smaller `tokens_per_microbatch`.",
    ),
}

COST = {
    "seconds": Meaning(
        "Time", "Wall-clock time of the run, over all its sessions; of a row, of the stage alone.", "no range: a cost"
    ),
    "core_seconds": Meaning("Core time", "Time multiplied by the run's threads.", "no range: a cost"),
    "memory": Meaning(
        "Peak memory",
        "The most memory that the run's processes held at once.",
        "below what the machine has",
        "An adapter (`adapter: {type: lora}`), or a smaller `tokens_per_microbatch`.",
    ),
}
