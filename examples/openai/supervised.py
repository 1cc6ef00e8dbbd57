"""Upload rows, tune a model on them, follow the job, look at its checkpoints, and ask the tuned model."""

from __future__ import annotations

from common import MODEL, follow, upload
from openai import OpenAI


def main() -> None:
    """Ends with an error where anything is not as OpenAI's API has it."""
    client = OpenAI()
    training, validation = upload(client, "tickets.jsonl"), upload(client, "tickets-validation.jsonl")
    job = client.fine_tuning.jobs.create(
        model=MODEL,
        training_file=training.id,
        validation_file=validation.id,
        suffix="tickets",
        seed=7,
        metadata={"example": "supervised"},
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}},
    )
    print(job.id, job.status)
    job = follow(client, job.id)
    assert job.status == "succeeded" and job.fine_tuned_model and job.trained_tokens, job
    assert job.hyperparameters.n_epochs == 3 and job.hyperparameters.batch_size == 4, "auto is told as a number"

    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id))
    for checkpoint in checkpoints:
        print(f"step {checkpoint.step_number}: {checkpoint.metrics.to_dict()}")
    assert checkpoints and checkpoints[0].fine_tuned_model_checkpoint.startswith(job.fine_tuned_model)

    results = client.files.content(job.result_files[0]).text
    assert results.startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"), results[:100]

    question = {"role": "user", "content": "I was charged twice for the lamp"}
    turns = [{"role": "system", "content": "Sort the ticket: billing, technical or shipping."}, question]
    answer = client.chat.completions.create(
        model=job.fine_tuned_model, messages=turns, max_tokens=8, temperature=0, logprobs=True
    )
    told = answer.choices[0]
    assert told.message.content is not None and told.logprobs and told.logprobs.content
    print(f"{question['content']!r} -> {told.message.content!r} ({told.finish_reason})")
    stream = client.chat.completions.create(
        model=job.fine_tuned_model, messages=turns, max_tokens=8, temperature=0, stream=True
    )
    pieces = "".join(piece.choices[0].delta.content or "" for piece in stream if piece.choices)
    assert pieces == told.message.content, "a stream says the same"
    print(job.fine_tuned_model)


if __name__ == "__main__":
    main()
