"""What an operator sets: `sharpen serve --config server.yaml`, and the options that replace its values."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from sharpen.config.base import Config
from sharpen.config.load import read_mapping
from sharpen.errors import ConfigError

Count = Annotated[int, Field(ge=1)]


class External(Config):
    """A model on another server that speaks OpenAI's chat API."""

    base_url: str
    """Such as https://host/v1."""

    model: str
    """Its name there."""

    api_key_env: str | None = None
    """The environment variable with the key, if it needs one."""


def _local(value: Any) -> Any:
    return {"local": value} if isinstance(value, str) else value


class Local(Config):
    """A model served here."""

    local: str
    """An alias (`sharpen models list`), a hub id that is already on this machine, or a folder."""


Mapped = Annotated[Local | External, BeforeValidator(_local)]


class Webhook(Config):
    """Where the ends of jobs are told, signed as standard-webhooks are."""

    url: str
    """https, or http to this machine."""

    secret_env: str
    """The environment variable with the secret (`whsec_…`)."""

    events: tuple[Literal["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"], ...] = (
        "fine_tuning.job.succeeded",
        "fine_tuning.job.failed",
        "fine_tuning.job.cancelled",
    )
    """Which."""


class Limits(Config):
    """What clients may take. Sizes are bytes, times seconds."""

    file_bytes: Count = 8 * 2**30
    """The largest file or upload."""

    body_bytes: Count = 2 * 2**20
    """The largest body of any other request."""

    requests_per_minute: Count = 60_000
    """Per key; beyond it 429 with Retry-After."""

    header_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Until a request's head must be there."""

    stall_seconds: Annotated[float, Field(gt=0)] = 30.0
    """In so long a client must send 256 bytes of a body, or take as many of an answer."""

    connections: Count = 8_192
    """Open at a time."""

    queued_jobs: Count = 100_000
    """Unfinished jobs of a project."""

    chat_queue: Count = 256
    """Chat requests that wait or run, per model; beyond it 429 with Retry-After."""


class Settings(Config):
    """All that the server is told."""

    host: str = "127.0.0.1"
    """The address it listens on."""

    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    """Its port; 0: any free one, which it prints."""

    data_dir: Path = Path("sharpen-data")
    """Files, runs, and the embedded database."""

    database: str | None = None
    """sqlite:///FILE or postgresql+psycopg://…; null: SQLite in `data_dir`."""

    auth: bool = True
    """Ask for API keys. Without (`--no-auth`) it serves this machine only."""

    organization: str = "sharpen"
    """Stands in the names of tuned models."""

    models: dict[str, Mapped] = Field(default_factory=dict)
    """Names that clients use, and what serves them."""

    judges: dict[str, Mapped] = Field(default_factory=dict)
    """The same for model judges; a judge that is not here is refused."""

    embeddings: str | None = None
    """The encoder of `text_similarity` by `cosine`, a folder or hub id; null: clients cannot use it."""

    webhooks: tuple[Webhook, ...] = ()
    """Who is told how jobs end."""

    endpoint_hosts: tuple[str, ...] = ()
    """Hosts that `endpoint` graders may ask."""

    plugins: tuple[str, ...] = ()
    """`plugin` graders (`package.module:attribute`) that jobs may name."""

    packages: tuple[str, ...] = ()
    """Distributions that clients' programs may import and so read, beside those of OpenAI's image."""

    hosts: tuple[str, ...] = ()
    """Names under which clients reach the server (the Host header), besides localhost and `host`."""

    origins: tuple[str, ...] = ()
    """Web pages (the Origin header) that may use it."""

    cores: Count = Field(default_factory=lambda: os.cpu_count() or 1)
    """Threads of all jobs and model workers together."""

    job_threads: Count | None = None
    """Threads of a job; null: half of the cores, at least one."""

    job_slots: Count = 1
    """Jobs at a time."""

    worker_threads: Count = 1
    """Threads of a model worker."""

    idle_seconds: Annotated[float, Field(gt=0)] = 300.0
    """A model that nobody asks for so long is unloaded."""

    budget_minutes: Annotated[float, Field(gt=0)] | None = None
    """Minutes after which a job pauses with a checkpoint, where it does not name fewer; null: no limit."""

    stalled_minutes: Annotated[float, Field(gt=0)] = 30.0
    """A job that writes nothing for so long is started anew."""

    max_attempts: Count = 5
    """Starts without a step between them, after which a job has failed."""

    limits: Limits = Limits()
    """What clients may take."""

    @property
    def database_url(self) -> str:
        """Where the database is."""
        return self.database or f"sqlite:///{self.data_dir.absolute() / 'server.db'}"

    @property
    def threads_of_a_job(self) -> int:
        """`job_threads`, resolved."""
        return self.job_threads or max(1, self.cores // 2 // self.job_slots)

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if not self.auth and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError(f"without keys (`--no-auth`) only this machine is served, not {self.host!r}")
        return self


def load(path: Path | None, options: dict[str, Any]) -> Settings:
    """The settings of a YAML file, with the options that are given in place of its values. Raises ConfigError."""
    values = read_mapping(path, "server configuration", "Begin with `models:`") if path else {}
    values |= {name: value for name, value in options.items() if value is not None}
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        said = first["msg"].removeprefix("Value error, ")
        raise ConfigError(said, path=place, value=None if first["type"] == "value_error" else first["input"]) from error
