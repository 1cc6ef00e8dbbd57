"""Questions to a server over HTTP: retried, limited in time, rate and size, and sent to one address only."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from sharpen.errors import ConfigError

LARGEST = 4 << 20
"""Bytes of an answer that are read."""
DEEPEST = 100
"""Lists and objects within each other in an answer."""
CONNECT_LIMIT = 10.0
"""Seconds until a connection stands."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the first retry, doubled before each further one up to the second number."""
AGAIN = frozenset({408, 425, 429})
"""Statuses after which the same question may be answered, beside 500 and above."""
CHANCE = random.SystemRandom()
"""The waits' own: no draw of the run's depends on how often a server was asked."""
SECRET = re.compile(r"\$\{(\w+)\}")
HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
HIDDEN = 8
"""From so many characters on, what a header holds is taken out of all that a server says."""


class ServiceError(Exception):
    """No answer to use: `kind` is `server` (none came, or a refusal of the server) or `garbage` (no JSON)."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


Answer = Any
"""A JSON value."""


class Service:
    """One address that is posted JSON and answers JSON."""

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        remote: bool = False,
        max_retries: int = 3,
        time_limit: float = 120.0,
        rate_limit: int | None = None,
        max_concurrent: int = 8,
    ) -> None:
        """`remote`: the address is another machine's, so the environment's proxies are used.

        Raises ConfigError for what is no address, and for headers that cannot be sent.
        """
        self._url = _checked(url)
        self._headers = httpx.Headers({"content-type": "application/json", "accept-encoding": "identity"})
        self._headers.update(_sendable(headers or {}))
        self._hidden = _hidden(headers or {})
        self._remote = remote
        self._retries = max_retries
        self._time_limit = time_limit
        self._pause = 60 / rate_limit if rate_limit else 0.0
        self._most = max_concurrent
        self._next = 0.0
        """When the next request may begin, by the monotonic clock."""
        self._tls = httpx.create_ssl_context(trust_env=remote) if url.startswith("https") else False

    async def post_all(
        self, bodies: Sequence[Any], arrived: Callable[[int, Answer], None] = lambda place, answer: None
    ) -> list[Answer | ServiceError]:
        """The answers, in the order of the bodies; `arrived` is told each as soon as it is there."""
        free = asyncio.Semaphore(self._most)
        async with self._client() as client:

            async def one(place: int, body: Any) -> Answer | ServiceError:
                async with free:
                    try:
                        answer = await self._ask(client, body)
                    except ServiceError as error:
                        return error
                arrived(place, answer)
                return answer

            return await asyncio.gather(*(one(place, body) for place, body in enumerate(bodies)))

    def _client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            headers=self._headers,
            timeout=httpx.Timeout(None, connect=CONNECT_LIMIT),  # the rest of the time is ours to count
            limits=httpx.Limits(max_connections=self._most),
            follow_redirects=False,  # they might lead where rows may not go
            trust_env=self._remote,
            verify=self._tls,
        )

    async def _ask(self, client: httpx.AsyncClient, body: Any) -> Answer:
        """The answer to one question, asked again while that may help."""
        content = json.dumps(body, ensure_ascii=False).encode(errors="replace")
        last, asked = "", 0.0
        try:
            async with asyncio.timeout(self._time_limit) as limit:
                for left in reversed(range(self._retries + 1)):
                    await self._turn(limit)
                    try:
                        async with asyncio.timeout(_share(limit, left)):
                            return await self._once(client, content)
                    except _Again as error:
                        last, asked = str(error), error.wait
                    except TimeoutError:
                        last, asked = "no answer", 0.0
                    if left:
                        await asyncio.sleep(asked + _wait(self._retries - left))
        except TimeoutError:
            before = f"; before that: {last}" if last else ""
            raise ServiceError("server", f"no answer within {self._time_limit:g} s{before}") from None
        times = f", {self._retries + 1} times" if self._retries else ""
        raise ServiceError("server", f"{last}{times}")

    async def _turn(self, limit: asyncio.Timeout) -> None:
        """Wait until the rate limit allows another request; the time limit waits too."""
        now = time.monotonic()
        wait = max(0.0, self._next - now)
        self._next = now + wait + self._pause
        if wait:
            if not limit.expired():
                limit.reschedule((limit.when() or 0.0) + wait)
            await asyncio.sleep(wait)

    async def _once(self, client: httpx.AsyncClient, content: bytes) -> Answer:
        try:
            async with client.stream("POST", self._url, content=content) as response:
                found = await _read(response)
        except httpx.TransportError as error:
            raise _Again(self._shown(f"{type(error).__name__}: {error}".rstrip(": "))) from error
        text = self._shown(found.decode("utf-8-sig", errors="replace"))
        if response.status_code in AGAIN or response.status_code >= 500:
            raise _Again(f"status {response.status_code}: {text[:200]!r}", asked_wait(response.headers))
        if not 200 <= response.status_code < 300:
            raise ServiceError("server", f"status {response.status_code}: {text[:300]!r}")
        if len(found) > LARGEST:
            raise ServiceError("garbage", f"an answer of more than {LARGEST >> 20} MB")
        if (encoding := response.headers.get("content-encoding", "identity")) != "identity":
            raise ServiceError("garbage", f"the answer is compressed ({encoding!r:.40}), which was not asked for")
        try:
            return parse(text)
        except ValueError as error:
            raise ServiceError("garbage", f"the answer is not JSON ({error}): {text[:200]!r}") from None

    def _shown(self, text: str) -> str:
        """The text without what the headers hold: some servers repeat the key that they refuse."""
        for secret in self._hidden:
            text = text.replace(secret, "[hidden]")
        return text


def with_secrets(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with `${NAME}` replaced by the environment's variables. Raises ConfigError where one is not set."""

    def secret(found: re.Match[str]) -> str:
        value = os.environ.get(found[1])
        if not value:
            raise ConfigError("this environment variable is not set", value=found[1], remedy=f"export {found[1]}=...")
        return value

    return {name: SECRET.sub(secret, value) for name, value in headers.items()}


def parse(text: str) -> Answer:
    """The value of a JSON text. Raises ValueError, also for NaN, a key that stands twice, and endless nesting."""
    try:
        found = json.loads(text, parse_constant=_refused, object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("nested too deep") from None
    if _deeper(found, DEEPEST):
        raise ValueError("nested too deep")
    return found


def asked_wait(headers: Mapping[str, str]) -> float:
    """The seconds that the header Retry-After asks to wait, at most LONGEST_WAIT; 0 where it asks for none."""
    said = headers.get("retry-after", "")
    try:
        seconds = float(said)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(said).timestamp() - time.time()
        except (ValueError, TypeError, IndexError, OverflowError, OSError):  # all of them seen, of dates that are none
            return 0.0
    return min(LONGEST_WAIT, seconds) if seconds > 0 else 0.0


class _Again(Exception):
    """Asking once more may help, after `wait` seconds and some."""

    def __init__(self, detail: str, wait: float = 0.0) -> None:
        super().__init__(detail)
        self.wait = wait


async def _read(response: httpx.Response) -> bytes:
    """The answer as it was sent, or the beginning of one that is too large."""
    found = bytearray()
    async for part in response.aiter_raw():
        found += part
        if len(found) > LARGEST:
            break
    return bytes(found)


def _share(limit: asyncio.Timeout, left: int) -> float | None:
    """Seconds for an attempt that `left` more may follow: one that hangs must not take all the time."""
    when = limit.when()
    return (when - asyncio.get_running_loop().time()) / 2 if left and when is not None else None


def _wait(attempt: int) -> float:
    """Seconds before the retry after attempt `attempt` (from 0): doubled each time, the half of it by chance."""
    return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(attempt, 30)) * CHANCE.uniform(0.5, 1.0)


def _checked(url: str) -> str:
    """The address, if all who read it see the same host. Raises ConfigError."""
    try:
        host, read, port = httpx.URL(url).host.lower(), urlsplit(url).hostname, urlsplit(url).port
    except (httpx.InvalidURL, ValueError) as error:
        raise ConfigError(f"not an address: {error}", value=url) from None
    if not host or host != read or port == 0:
        raise ConfigError("an address that can be read in two ways", value=url, remedy="Write its host plainly")
    return url


def _sendable(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers as they are sent. Raises ConfigError where one cannot be; its value is not shown."""
    sent = {name: value.strip() for name, value in headers.items()}
    for name, value in sent.items():
        if not HEADER.fullmatch(name):
            raise ConfigError("not the name of a header", value=name, remedy="Letters, digits and - are in one")
        if not (value.isascii() and value.isprintable()):
            raise ConfigError(
                f"the header {name} holds a character that cannot be sent",
                remedy="Look at the environment's variable in it: a line break, perhaps",
            )
    return sent


def _hidden(headers: Mapping[str, str]) -> list[str]:
    """What of the headers is not repeated: their last words, also as JSON may write them, the longest first."""
    words = {value.split()[-1] for value in headers.values() if value.split()}
    found = {word for word in words if len(word) >= HIDDEN}
    return sorted(found | {word.replace("/", "\\/") for word in found}, key=len, reverse=True)


def _refused(constant: str) -> Answer:
    raise ValueError(f"{constant} is not JSON")


def _object(pairs: list[tuple[str, Answer]]) -> dict[str, Answer]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r:.40} stands twice in one object")
    return found


def _deeper(value: Answer, most: int) -> bool:
    """Whether lists and objects stand within each other more than `most` times."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return any(not most or _deeper(each, most - 1) for each in inner)
