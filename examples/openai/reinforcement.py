"""Reinforcement with a `multi` grader: a comparison, a Python function, and a judge that this same server serves."""

from __future__ import annotations

from typing import Any

from common import MODEL, follow, upload
from openai import OpenAI

SOURCE = """
def grade(sample, item):
    said = sample["output_text"]
    return float(any(letter.isdigit() for letter in said)) if len(said) < 12 else 0.0
"""
GRADER: dict[str, Any] = {
    "type": "multi",
    "graders": {
        "exact": {
            "type": "string_check",
            "name": "exact",
            "input": "{{ sample.output_text }}",
            "reference": "{{ item.answer }}",
            "operation": "eq",
        },
        "short": {"type": "python", "name": "short", "source": SOURCE},
        "judged": {
            "type": "score_model",
            "name": "judged",
            "model": "gpt-4.1",
            "input": [
                {
                    "role": "user",
                    "content": "Is {{ sample.output_text }} the right answer, {{ item.answer }}? 1: yes, 0: no.",
                }
            ],
            "range": [0, 1],
        },
    },
    "calculate_output": "0.6 * exact + 0.2 * short + 0.2 * judged",
}


def main() -> None:
    """Ends with an error where anything is not as OpenAI's API has it."""
    client = OpenAI()
    graders = client.fine_tuning.alpha.graders
    graders.validate(grader=GRADER)
    tried = graders.run(grader=GRADER, item={"answer": "7"}, model_sample="7")
    print(f"reward {tried.reward:.2f} of {tried.sub_rewards}")
    assert tried.sub_rewards["exact"] == tried.sub_rewards["short"] == 1.0, tried

    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=upload(client, "sums.jsonl").id,
        validation_file=upload(client, "sums-validation.jsonl").id,
        suffix="sums",
        seed=7,
        method={
            "type": "reinforcement",
            "reinforcement": {
                "grader": GRADER,
                "hyperparameters": {
                    "n_epochs": 1,
                    "batch_size": 4,
                    "compute_multiplier": 0.25,
                    "eval_interval": 2,
                    "eval_samples": 4,
                    "reasoning_effort": "low",
                },
            },
        },
    )
    job = follow(client, job.id)
    assert job.status == "succeeded" and job.fine_tuned_model, job
    metrics = [event for event in client.fine_tuning.jobs.list_events(job.id, limit=100) if event.type == "metrics"]
    for event in reversed(metrics):
        told: Any = event.data
        print(f"step {told['step']} of {told['total_steps']}: mean reward {told['train_mean_reward']:.2f}")
    assert metrics
    print(job.fine_tuned_model)


if __name__ == "__main__":
    main()
