"""Tune a model on preferences: pairs of a better and a worse answer."""

from __future__ import annotations

from common import MODEL, follow, upload
from openai import OpenAI


def main() -> None:
    """Ends with an error where anything is not as OpenAI's API has it."""
    client = OpenAI()
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=upload(client, "pairs.jsonl").id,
        suffix="polite",
        seed=7,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1, "batch_size": 8}}},
    )
    assert job.method and job.method.dpo and job.method.dpo.hyperparameters
    assert job.method.dpo.hyperparameters.beta == 0.2
    job = follow(client, job.id)
    assert job.status == "succeeded" and job.fine_tuned_model, job
    answer = client.chat.completions.create(
        model=job.fine_tuned_model,
        messages=[{"role": "user", "content": "Where is my radio?"}],
        max_tokens=24,
        temperature=0,
    )
    print(answer.choices[0].message.content)
    print(job.fine_tuned_model)


if __name__ == "__main__":
    main()
