"""A judge that is no model: it says what its path tells it to say."""

from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Judge(ThreadingHTTPServer):
    """A chat API that says what its path tells it to say, and keeps the headers it was asked with."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answering)
        self.asked: list[dict[str, str]] = []


class Answering(BaseHTTPRequestHandler):
    server: Judge

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(dict(self.headers))
        kind = self.path.split("/")[1]
        said = {"steps": [], "result": 0.75}
        message: dict[str, Any] = {"role": "assistant", "content": json.dumps(said)}
        if kind == "refuses":
            message = {"role": "assistant", "content": None, "refusal": "I will not."}
        if kind == "garbage":
            message["content"] = "about seven"
        answer = {"choices": [{"message": message, "finish_reason": "stop"}], "model": question.get("model"),
                  "usage": {"prompt_tokens": 11, "completion_tokens": 5}}  # fmt: skip
        body = json.dumps({"score": 0.5} if kind == "endpoint" else answer).encode()
        status = {"fails": 500, "forbids": 403, "moves": 302}.get(kind, 200)
        self.send_response(status)
        if kind == "moves":
            self.send_header("location", "/fine/v1/chat/completions")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
