"""Graders that ask a server: model judges, and endpoints."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from sharpen.config.base import Config
from sharpen.config.graders.base import Place, SingleGrader, Template

OPENAI = "https://api.openai.com/v1"
VARIABLE = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)

HOW_ASKED = ("budget", "price", "max_retries", "time_limit", "rate_limit", "max_concurrent")
"""Fields that say how a server is asked, and change none of its answers."""

GIVES_OUT_KEYS = frozenset(
    {
        *("metadata", "metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"),
        *("100.100.100.200", "168.63.129.16", "fd00:ec2::254"),
    }
)
"""Where clouds tell their machines secrets, beside the link-local addresses."""


class Remote(SingleGrader):
    """What every grader that asks a server has. Its grades are journaled: a server may say something else next time."""

    place: ClassVar[Place] = "here"

    allow_remote: bool = False
    """Rows may leave this machine. Without it only servers on this machine are asked."""

    max_retries: Annotated[int, Field(ge=0)] = 3
    """A question is asked so many times more after 408, 429, 5xx, a reset or a time-out, after growing waits."""

    time_limit: Annotated[float, Field(gt=0)] = 120.0
    """Seconds for one grade, waits and retries included; one attempt has half of what is left, the last one all."""

    rate_limit: Annotated[int, Field(ge=1)] | None = None
    """The most requests a minute; the wait for one's turn does not count towards `time_limit`."""

    max_concurrent: Annotated[int, Field(ge=1)] = 8
    """The most requests at a time."""

    def address(self) -> str:
        """Where questions go."""
        raise NotImplementedError

    def fields(self) -> list[str]:
        """What of the rows goes there."""
        raise NotImplementedError

    def host(self) -> str:
        """The server's name."""
        return urlsplit(self.address()).hostname or ""

    @property
    def leaves(self) -> bool:
        """Whether rows leave this machine."""
        return not on_this_machine(self.host())

    @model_validator(mode="after")
    def _may_go_there(self) -> Self:
        address = urlsplit(self.address())
        if "@" in address.netloc:
            raise ValueError("an address has no user and no password here: recipes are shown and kept")
        if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
            raise ValueError(f"not an address such as https://host/v1 (got {self.address()!r:.120})")
        if gives_out_keys(address.hostname):
            raise ValueError(f"{address.hostname} is where a cloud tells its machines their keys; it is never asked")
        if self.leaves and not self.allow_remote:
            raise ValueError(
                f"{', '.join(self.fields())} of every row would be sent to {self.host()}, which is not this machine; "
                "write `allow_remote: true` if they may"
            )
        return self


def on_this_machine(host: str) -> bool:
    """Whether a host's name or address is this machine's own, whatever a name server says."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def gives_out_keys(host: str) -> bool:
    """Whether a host is a cloud's metadata service, in any spelling of its address. Names are not looked up."""
    host = host.rstrip(".")
    try:
        address = ip_address(host)
    except ValueError:
        try:
            address = ip_address(socket.inet_aton(host))  # 2852039166 and 0xa9fea9fe, as the resolver reads them
        except OSError:
            return host in GIVES_OUT_KEYS
    if isinstance(address, IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return address.is_link_local or str(address) in GIVES_OUT_KEYS


class Price(Config):
    """US dollars a million tokens."""

    input: Annotated[float, Field(ge=0)]
    """Of questions."""

    output: Annotated[float, Field(ge=0)]
    """Of answers."""


class Budget(Config):
    """What a grader may use up in a run; then the run pauses. Requests under way may go beyond it."""

    tokens: Annotated[int, Field(ge=1)] | None = None
    """Tokens of questions and answers together."""

    usd: Annotated[float, Field(gt=0)] | None = None
    """US dollars, at `price`."""


LONGEST_ANSWER = ("max_tokens", "max_completion_tokens")
"""What `max_completions_tokens` is also called: in one of OpenAI's examples, and in its chat API."""


class SamplingParams(Config):
    """How the judge draws its answer, under OpenAI's names; what is not given is the server's own."""

    temperature: Annotated[float, Field(ge=0)] | None = None
    """0: the likeliest answer."""

    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    """Nucleus sampling."""

    seed: int | None = None
    """For servers that repeat themselves."""

    max_completions_tokens: Annotated[int, Field(ge=1)] | None = None
    """The longest answer."""

    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    """For reasoning models."""

    @model_validator(mode="before")
    @classmethod
    def _by_one_name(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {"max_completions_tokens" if name in LONGEST_ANSWER else name: value for name, value in given.items()}


def _plain(content: Any) -> Any:
    """Content in parts, as OpenAI's API also writes it, as one text."""
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list | tuple):
        return content
    texts: list[str] = []
    for part in parts:
        text = part.get("text") if isinstance(part, Mapping) else part
        if not isinstance(text, str):
            raise ValueError(f"a judge reads text only (got {part!r:.120})")
        texts.append(text)
    return "".join(texts)


class JudgeMessage(Config):
    """A message to the judge."""

    role: Literal["system", "developer", "user", "assistant"]
    """Whose it is."""

    content: Annotated[Template, BeforeValidator(_plain)]
    """Its text. What the model under test wrote (`{{ sample... }}`) is marked as such for the judge."""

    @model_validator(mode="before")
    @classmethod
    def _is_a_message(cls, given: Any) -> Any:
        """Without `type: message`, which OpenAI's API may add."""
        if not isinstance(given, Mapping) or given.get("type") != "message":
            return given
        return {name: value for name, value in given.items() if name != "type"}


def _server() -> str:
    """The server that OpenAI's own clients ask."""
    return os.environ.get("OPENAI_BASE_URL") or OPENAI


class Judge(Remote):
    """A model that grades, on any server that speaks OpenAI's chat API."""

    input: Annotated[tuple[JudgeMessage, ...], Field(min_length=1)]
    """The messages to the judge."""

    model: str
    """The judge's name on the server."""

    sampling_params: SamplingParams = SamplingParams()
    """How it draws its answer."""

    base_url: str = Field(default_factory=_server)
    """The server, such as http://localhost:8000/v1; when not given, the environment's OPENAI_BASE_URL, else OpenAI's
    own."""

    api_key_env: str = "OPENAI_API_KEY"
    """The environment variable with the key; keys never stand in a recipe. A server on this machine needs none."""

    price: Price | None = None
    """What tokens cost, for `budget.usd` and the summary."""

    budget: Budget = Budget()
    """What may be used up."""

    def address(self) -> str:
        return self.base_url

    def fields(self) -> list[str]:
        said = [name.strip() for message in self.input for name in VARIABLE.findall(message.content)]
        return list(dict.fromkeys(said)) or ["nothing"]

    @model_validator(mode="after")
    def _has_prices(self) -> Self:
        if self.budget.usd is not None and self.price is None:
            raise ValueError("`budget.usd` needs `price`: {input: ..., output: ...}, in US dollars a million tokens")
        return self


class ScoreModel(Judge):
    """OpenAI's `score_model`: a judge's number, clipped to a range."""

    type: Literal["score_model"] = "score_model"
    runtime: ClassVar[str] = "sharpen.graders.judge:ScoreJudge"

    range: tuple[float, float] = (0.0, 1.0)
    """The lowest and the highest score; the judge is told."""

    pass_threshold: float | None = None
    """From which score on `metrics["passed"]` is 1."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.range[0] < self.range[1]:
            raise ValueError(f"range goes from a number to a higher one (got {list(self.range)})")
        return self


class LabelModel(Judge):
    """OpenAI's `label_model`: 1 where the judge gives one of the passing labels, else 0."""

    type: Literal["label_model"] = "label_model"
    runtime: ClassVar[str] = "sharpen.graders.judge:LabelJudge"

    labels: Annotated[tuple[str, ...], Field(min_length=2)]
    """What the judge chooses from."""

    passing_labels: Annotated[tuple[str, ...], Field(min_length=1)]
    """Those that count as 1."""

    @model_validator(mode="after")
    def _labels_are_there(self) -> Self:
        if unknown := [label for label in self.passing_labels if label not in self.labels]:
            raise ValueError(f"the passing label {unknown[0]!r} is none of the labels {list(self.labels)}")
        return self


class Endpoint(Remote):
    """Azure's `endpoint`: a server of one's own, sent `{sample, item, trace_id}`, that answers `{"score": ...}`."""

    type: Literal["endpoint"] = "endpoint"
    runtime: ClassVar[str] = "sharpen.graders.endpoint:EndpointGrader"

    url: str
    """Where samples are sent."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Sent along; `${NAME}` is the environment's variable, so that no secret stands in a recipe."""

    pass_threshold: float | None = None
    """From which score on `metrics["passed"]` is 1."""

    time_limit: Annotated[float, Field(gt=0)] = 600.0
    """Seconds for one grade, waits and retries included; one attempt has half of what is left, the last one all."""

    def address(self) -> str:
        return self.url

    def fields(self) -> list[str]:
        return ["item", "sample"]
