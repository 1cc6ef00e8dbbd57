"""Every other path: what OpenAI has and this server has not, methods that a path has not, and what nobody has."""

from __future__ import annotations

from fastapi import APIRouter, Request

from sharpen.server.errors import APIError

router = APIRouter()

HERE = (
    "files, uploads, fine_tuning/jobs with their events and checkpoints, fine_tuning/checkpoints/…/permissions, "
    "fine_tuning/alpha/graders, models and chat/completions"
)
"""What there is."""

CHAT = "Ask POST /v1/chat/completions instead"

ABSENT = {
    "responses": CHAT,
    "completions": CHAT,
    "chat": "Chat completions are not stored: POST /v1/chat/completions answers, and nothing is kept",
    "conversations": CHAT,
    "assistants": CHAT,
    "threads": CHAT,
    "chatkit": CHAT,
    "agents": CHAT,
    "realtime": CHAT,
    "batches": "Send the requests to POST /v1/chat/completions: those that come together are answered together",
    "evals": "POST /v1/fine_tuning/alpha/graders/run grades a single answer; `sharpen eval` scores a model on a file",
    "fine-tunes": "That API is gone; POST /v1/fine_tuning/jobs makes a job",
    "organization": "Keys and projects are the operator's, who has `sharpen keys`",
    "projects": "Keys and projects are the operator's, who has `sharpen keys`",
    "webhook_endpoints": "Webhooks are the operator's, under `webhooks:` in the server's configuration",
    "webhook_event_types": "Webhooks are the operator's, under `webhooks:` in the server's configuration",
} | dict.fromkeys(
    "answers audio automations classifications containers content_provenance_checks decisions edits embeddings engines "
    "environments images live moderations safety search sessions skills vaults vector_stores videos".split(),
    "",
)
"""The first words of OpenAI's other paths, and what helps instead."""

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@router.api_route("/{path:path}", methods=METHODS, include_in_schema=False)
async def other(request: Request, path: str) -> None:
    """Raises APIError 405 where the path has other methods, else 404."""
    if methods := _methods(request):
        said = f"{request.method} is not a method of this path; it has {', '.join(methods)}."
        raise APIError(405, said, code="method_not_allowed", headers={"allow": ", ".join(methods)})
    first = path.removeprefix("v1/").partition("/")[0]
    if path.startswith("v1/") and first in ABSENT:
        hint = f" {ABSENT[first]}." if ABSENT[first] else ""
        raise APIError(404, f"This server has no /{path[:200]}.{hint} It has {HERE}.", code="not_supported")
    said = f"Unknown request URL: {request.method} /{path[:200]}. There are, below /v1: {HERE}."
    raise APIError(404, said, code="unknown_url")


def _methods(request: Request) -> list[str]:
    """The methods that other routes have for the path."""
    path = request.scope["path"]
    fitting = [route for route in request.app.state.routes if route.path_regex.match(path)]
    return sorted({method for route in fitting if route.endpoint is not other for method in route.methods})
