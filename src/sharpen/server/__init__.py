"""OpenAI's HTTP API over recipes and run directories: jobs are subprocesses, and nothing here imports torch."""
