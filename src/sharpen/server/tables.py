"""The database's tables. Times are whole seconds since 1970; JSON columns hold what the API shows."""

from __future__ import annotations

import time

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

KEY = BigInteger().with_variant(Integer, "sqlite")
"""A counter; SQLite counts only in its INTEGER."""

keys = Table(
    "keys",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("name", String(128), nullable=False),
    Column("hash", String(64), nullable=False, unique=True),  # SHA-256 of the secret, which is random itself
    Column("hint", String(16), nullable=False),  # its first and last letters
    Column("scopes", JSON, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

audit = Table(
    "audit",
    metadata,
    Column("seq", KEY, primary_key=True, autoincrement=True),
    Column("at", Float, nullable=False),
    Column("project", String(64), nullable=False),
    Column("key_id", String(64), nullable=False),
    Column("action", String(64), nullable=False),  # such as `job.create`
    Column("object", String(256), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("detail", JSON, nullable=False),
)

files = Table(
    "files",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("filename", String(512), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger),
    Column("checks", JSON, nullable=False),  # what is known of it, by method
    Index("files_by_project", "project", "created_at", "id"),
)

uploads = Table(
    "uploads",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("filename", String(512), nullable=False),
    Column("purpose", String(64), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("mime_type", String(128), nullable=False),
    Column("status", String(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("file_id", String(64)),
    Column("file_seconds", BigInteger),  # after which the file will expire
)

upload_parts = Table(
    "upload_parts",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("upload_id", String(64), ForeignKey("uploads.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("bytes", BigInteger, nullable=False),
    Column("created_at", BigInteger, nullable=False),
)

jobs = Table(
    "jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("project", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("finished_at", BigInteger),
    Column("estimated_finish", BigInteger),
    Column("status", String(32), nullable=False),  # of server/states.py
    Column("model", String(256), nullable=False),  # as the client asked
    Column("serves", JSON, nullable=False),  # what serves it: see server/names.py
    Column("suffix", String(64)),
    Column("seed", BigInteger, nullable=False),
    Column("method", JSON, nullable=False),  # as it is echoed, hyperparameters resolved
    Column("hyperparameters", JSON, nullable=False),  # OpenAI's old place of them
    Column("metadata", JSON),
    Column("integrations", JSON),
    Column("training_file", String(64), nullable=False),
    Column("validation_file", String(64)),
    Column("fine_tuned_model", String(256)),
    Column("trained_tokens", BigInteger),
    Column("result_files", JSON, nullable=False),
    Column("error", JSON),  # {code, message, param} of a failed one
    Column("warnings", JSON, nullable=False),  # sentences, shown in `metadata`'s place of ours: `sharpen.warnings`
    Column("retry_key", String(256)),  # what makes a repeated request the same
    Column("body_hash", String(64), nullable=False),
    Column("attempt", Integer, nullable=False, default=0),  # the request's x-stainless-retry-count
    Column("made_at", Float, nullable=False, default=time.time),  # `created_at`, to the microsecond
    Column("facts", JSON, nullable=False, default=dict),  # of its files, once checked: jobs/files.py
    # the supervisor's
    Column("wanted", String(16), nullable=False),  # run | pause | cancel
    Column("judges", JSON, nullable=False),  # models of this server that it asks while it runs
    Column("pid", Integer),
    Column("attempts", Integer, nullable=False),  # starts since it last got on
    Column("not_before", BigInteger, nullable=False),  # the next start
    Column("progress", JSON, nullable=False),  # {stage, step, steps, seconds} as last seen
    Column("budget_minutes", Float),
    Column("seconds", Float, nullable=False),  # spent in its processes
    Column("detail", JSON, nullable=False),  # state of the supervisor's own, such as `crash_loop`
    Index("jobs_by_project", "project", "made_at", "id"),
    Index("jobs_by_status", "status"),
    Index("jobs_by_retry", "project", "retry_key", unique=True),
    Index("jobs_by_body", "body_hash", "made_at"),
    Index("jobs_of_project_by_status", "project", "status"),
)

events = Table(
    "events",
    metadata,
    Column("seq", KEY, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("level", String(16), nullable=False),
    Column("type", String(16), nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON),
    Index("events_by_job", "job_id", "seq"),
)

checkpoints = Table(
    "checkpoints",
    metadata,
    Column("seq", KEY, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("job_id", String(64), ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("step_number", Integer, nullable=False),
    Column("model", String(256), nullable=False, unique=True),  # `ft:…:ckpt-step-N`
    Column("metrics", JSON, nullable=False),
    Index("checkpoints_by_job", "job_id", "seq"),
)

models = Table(
    "models",
    metadata,
    Column("id", String(256), primary_key=True),  # `ft:…`
    Column("project", String(64), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("job_id", String(64)),
    Column("path", String(1024), nullable=False),  # below the data folder
    Column("base", String(256), nullable=False),  # what the client calls its base
    Column("parameters", BigInteger),
    Index("models_by_project", "project", "created_at", "id"),
)

permissions = Table(
    "permissions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("model", String(256), nullable=False),  # a checkpoint's or final model's name
    Column("project", String(64), nullable=False),  # whose models may now use it
    Column("created_at", BigInteger, nullable=False),
    Index("permissions_by_model", "model", "project", unique=True),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("id", String(64), primary_key=True),  # the webhook's id, the same at each attempt
    Column("url", String(1024), nullable=False),
    Column("payload", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("not_before", BigInteger, nullable=False),
    Column("delivered", Boolean, nullable=False),
    Column("last", Text, nullable=False),  # what came of the last attempt
)
