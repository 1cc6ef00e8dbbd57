"""Jobs, events, checkpoints and permissions as OpenAI's API shows them."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Row

from sharpen.server.jobs.estimate import base_of, finish
from sharpen.server.settings import Settings


def job(row: Row[Any], settings: Settings) -> dict[str, Any]:
    """A `fine_tuning.job`; what OpenAI's has no place for stands under `sharpen`."""
    serves = row.serves
    return {
        "id": row.id,
        "object": "fine_tuning.job",
        "created_at": row.created_at,
        "finished_at": row.finished_at,
        "estimated_finish": finish(row, time.time()),
        "status": row.status,
        "error": row.error,
        "model": row.model,
        "fine_tuned_model": row.fine_tuned_model,
        "hyperparameters": row.hyperparameters,
        "method": row.method,
        "seed": row.seed,
        "metadata": row.metadata,
        "integrations": row.integrations or [],
        "training_file": row.training_file,
        "validation_file": row.validation_file,
        "result_files": row.result_files,
        "trained_tokens": row.trained_tokens,
        "organization_id": settings.organization,
        "sharpen": {
            "warnings": row.warnings,
            "served_by": {"name": serves.get("shown"), "parameters": serves.get("parameters")},
            "run": f"runs/{row.id}",
            "wanted": row.wanted,
            "progress": row.progress,
            "seconds": row.seconds,
            "budget_minutes": row.budget_minutes,
            "rows": row.facts.get("rows"),
            "tokens": row.facts.get("tokens"),
            "estimate": row.facts.get("estimate"),
            "isolation": row.detail.get("isolation"),
            "state": row.detail.get("state"),
        },
    }


def event(row: Row[Any]) -> dict[str, Any]:
    """A `fine_tuning.job.event`."""
    return {
        "id": row.id,
        "object": "fine_tuning.job.event",
        "created_at": row.created_at,
        "level": row.level,
        "message": row.message,
        "type": row.type,
        "data": row.data,
    }


def checkpoint(row: Row[Any]) -> dict[str, Any]:
    """A `fine_tuning.job.checkpoint`."""
    return {
        "id": row.id,
        "object": "fine_tuning.job.checkpoint",
        "created_at": row.created_at,
        "fine_tuned_model_checkpoint": row.model,
        "fine_tuning_job_id": row.job_id,
        "metrics": row.metrics,
        "step_number": row.step_number,
    }


def permission(row: Row[Any]) -> dict[str, Any]:
    """A `checkpoint.permission`."""
    return {
        "id": row.id,
        "object": "checkpoint.permission",
        "created_at": row.created_at,
        "project_id": row.project,
    }


def tuned_name(model: str, organization: str, suffix: str | None, job_id: str, step: int | None = None) -> str:
    """What the model of a job is called, or its checkpoint at a step: `ft:base:organization:suffix:id`.

    A job that goes on from a tuned model has that one's base in its name.
    """
    name = f"ft:{base_of(model)}:{organization}:{suffix or ''}:{job_id.removeprefix('ftjob-')}"
    return name if step is None else f"{name}:ckpt-step-{step}"
