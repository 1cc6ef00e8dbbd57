"""`/v1/fine_tuning/alpha/graders`: a grader tried on one answer, or only looked over."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from pydantic import Field

from sharpen.config.base import Config
from sharpen.server.access import allowed
from sharpen.server.core import Server, server_of
from sharpen.server.grading import flags, tokens, translate
from sharpen.server.grading.clerk import Lost
from sharpen.server.keys import Caller

router = APIRouter(prefix="/v1/fine_tuning/alpha/graders")

TOKEN_SECONDS = 600.0
"""For which a grader that is tried may ask its judge."""


class RunBody(Config):
    """A grader, and what it is tried on."""

    grader: Any
    """OpenAI's, or one of ours."""

    model_sample: str
    """The model's answer."""

    item: dict[str, Any] = Field(default_factory=dict)
    """The row's fields."""


class ValidateBody(Config):
    """A grader."""

    grader: Any
    """OpenAI's, or one of ours."""


@router.post("/run")
async def run(body: RunBody, request: Request, caller: Annotated[Caller, Depends(allowed("write"))]) -> dict[str, Any]:
    """What a grader says of one answer; what went wrong is told in `metadata.errors`, with a reward of 0."""
    server = server_of(request)
    config = await _translated(body.grader, request, server)
    models = translate.models_of(config)
    expires = time.time() + TOKEN_SECONDS
    asked = {
        "grader": config,
        "item": body.item,
        "sample": body.model_sample,
        "token": tokens.issue(server.secret, "graders/run", caller.project, models, expires) if models else "",
    }
    began = time.perf_counter()
    try:
        answer = await server.clerk.grade(asked, caller.project)
    except Lost as lost:
        answer = flags.lost(config, lost.kind, lost.detail)
    return flags.response(config, answer, translate.asked(body.grader), time.perf_counter() - began)


@router.post("/validate")
async def validate(
    body: ValidateBody, request: Request, caller: Annotated[Caller, Depends(allowed("write"))]
) -> dict[str, Any]:
    """The grader, if it is one that a job may have."""
    await _translated(body.grader, request, server_of(request))
    return {"grader": body.grader}


async def _translated(given: Any, request: Request, server: Server) -> dict[str, Any]:
    port = (request.scope.get("server") or (None, None))[1]  # the socket's own, whatever was asked for
    url = translate.own_url(server.settings, port)
    return await asyncio.to_thread(translate.grader, given, server.settings, judge_url=url)
