"""The body of a chat request: all of OpenAI's parameters, and which of them mean something here.

| parameters | here |
|---|---|
| messages, model, stream, stream_options, n, stop, temperature, top_p, seed, max_tokens, max_completion_tokens, logprobs, top_logprobs, tools, tool_choice (auto, none), response_format | as OpenAI's |
| presence_penalty, frequency_penalty, logit_bias | only such values as change nothing |
| user, metadata, store, parallel_tool_calls, service_tier, safety_identifier, prompt_cache_key, prompt_cache_options, prompt_cache_retention, reasoning_effort, verbosity | taken and not looked at |
| modalities | text alone |
| audio, functions, function_call, moderation, prediction, web_search_options | refused |
"""  # noqa: E501

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from sharpen.config.response_format import LABELS
from sharpen.server.errors import invalid
from sharpen.server.serving.messages import messages, tools
from sharpen.server.serving.pieces import Ask

Number = Annotated[float, Field(allow_inf_nan=False)]
STOPS = 4
"""Stop strings at most, as OpenAI's API has it."""
LONGEST_STOP = 1024
"""Characters of one."""
REFUSED = ("audio", "functions", "function_call", "moderation", "prediction", "web_search_options")


class StreamOptions(BaseModel):
    """What a stream has besides."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class ChatBody(BaseModel):
    """POST /v1/chat/completions."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: StrictStr
    messages: list[dict[str, Any]]
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[StrictInt, Field(ge=1, le=128)] | None = None
    stop: StrictStr | list[StrictStr] | None = None
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    response_format: dict[str, Any] | None = None

    presence_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[Number, Field(ge=-2, le=2)] | None = None
    logit_bias: dict[str, float] | None = None
    modalities: list[Literal["text", "audio"]] | None = None

    user: Any = None
    metadata: Any = None
    store: Any = None
    parallel_tool_calls: Any = None
    service_tier: Any = None
    safety_identifier: Any = None
    prompt_cache_key: Any = None
    prompt_cache_options: Any = None
    prompt_cache_retention: Any = None
    reasoning_effort: Any = None
    verbosity: Any = None

    audio: Any = None
    functions: Any = None
    function_call: Any = None
    moderation: Any = None
    prediction: Any = None
    web_search_options: Any = None

    def ask(self) -> Ask:
        """The request as workers take it. Raises APIError 400."""
        self._refuse()
        stop = [self.stop] if isinstance(self.stop, str) else self.stop or []
        if len(stop) > STOPS or any(not 0 < len(mark) <= LONGEST_STOP for mark in stop):
            raise invalid(f"stop: at most {STOPS} strings of 1 to {LONGEST_STOP} characters", "stop")
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs: needs `logprobs: true`", "top_logprobs")
        asked = Ask(
            messages=messages(self.messages),
            tools=self._tools(),
            n=self.n or 1,
            max_tokens=self._max_tokens(),
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-6),  # 0: the likeliest token alone
            seed=self.seed,
            stop=stop,
            logprobs=(self.top_logprobs or 0) if self.logprobs else None,
            response_format=self._form(),
        )
        _plain(asked)
        return asked

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with what it cost."""
        return bool(self.stream_options and self.stream_options.include_usage)

    def _refuse(self) -> None:
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options: only with `stream: true`", "stream_options")
        for name in REFUSED:
            if getattr(self, name) is not None:
                raise invalid(f"{name}: not supported here; leave it out", name, "unsupported_parameter")
        for name in ("presence_penalty", "frequency_penalty"):
            if getattr(self, name):
                raise invalid(f"{name}: not supported here; leave it out, or at 0", name, "unsupported_value")
        if self.logit_bias and any(self.logit_bias.values()):
            raise invalid("logit_bias: not supported here; leave it out", "logit_bias", "unsupported_value")
        if self.modalities and self.modalities != ["text"]:
            raise invalid("modalities: models here write text alone", "modalities", "unsupported_value")

    def _max_tokens(self) -> int | None:
        if self.max_tokens and self.max_completion_tokens and self.max_tokens != self.max_completion_tokens:
            raise invalid("max_tokens and max_completion_tokens contradict each other; give one", "max_tokens")
        return self.max_completion_tokens or self.max_tokens

    def _tools(self) -> list[dict[str, Any]]:
        given = tools(self.tools)
        if self.tool_choice not in (None, "auto", "none"):
            raise invalid(
                "tool_choice: 'auto' and 'none' are supported here; models are not forced to call a tool "
                f"(got {self.tool_choice!r:.80})",
                "tool_choice",
                "unsupported_value",
            )
        if self.tool_choice == "auto" and not given:
            raise invalid("tool_choice: only with `tools`", "tool_choice")
        return [] if self.tool_choice == "none" else given

    def _form(self) -> dict[str, Any] | None:
        """The form, as far as can be told before the worker compiles it."""
        form = self.response_format
        if form is None or form.get("type") == "text":
            return None
        kind = form.get("type")
        if kind not in ("json_object", "json_schema"):
            raise invalid(
                f"response_format.type: text, json_object or json_schema (got {kind!r:.80})", "response_format.type"
            )
        nested = form.get("json_schema")
        if kind == "json_schema" and not isinstance(nested if nested is not None else form, dict):
            raise invalid("response_format.json_schema: not an object", "response_format.json_schema")
        inner = nested if isinstance(nested, dict) else form
        if kind == "json_schema" and not isinstance(inner.get("schema"), dict):
            raise invalid(f"response_format.json_schema.schema: needed, besides {' and '.join(LABELS)}",
                          "response_format.json_schema.schema")  # fmt: skip
        if find_spec("llguidance") is None:
            raise invalid(
                "response_format: this server lacks llguidance; its operator installs 'sharpen[constrained]'",
                "response_format",
                "unsupported_value",
            )
        return form


def _plain(asked: Ask) -> None:
    """Raise APIError 400 for what JSON can say and no tokenizer can read."""
    try:
        json.dumps(asked.as_json(), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise invalid("the body holds half of a surrogate pair (\\ud800 to \\udfff), which is no text") from None
    except RecursionError:
        raise invalid("the body is nested too deep") from None
