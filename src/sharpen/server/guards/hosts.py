"""Which names the server answers to, and which web pages may use it: a page elsewhere must not reach it by a browser.

A page whose name has been made to point here (DNS rebinding) is known by the Host that its browser sends, any other
page by its Origin.
"""

from __future__ import annotations

import re
from ipaddress import ip_address

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sharpen.server.errors import APIError
from sharpen.server.guards.answer import refuse, values
from sharpen.server.settings import Settings

HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(\d{1,5}))?")
EVERYWHERE = ("0.0.0.0", "::", "")
METHODS = "GET, POST, DELETE, OPTIONS"


class Hosts:
    """Refuses what comes under another name, or from a page that is not listed."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self.names = {"localhost", "127.0.0.1", "::1", settings.host, *settings.hosts} - set(EVERYWHERE)
        self.numbers = settings.host in EVERYWHERE
        """Whether any address of the machine will do: no page has one of ours as its own."""
        self.origins = frozenset(settings.origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through whose Host and Origin are ours."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        hosts, origins = values(scope["headers"], b"host"), values(scope["headers"], b"origin")
        if len(hosts) != 1 or not self._ours(hosts[0]):
            said = f"This server does not answer to the name {', '.join(hosts)[:80]!r}; its operator lists `hosts`."
            await refuse(APIError(421, said, code="host_not_allowed"), scope, receive, send)
        elif origins and origins != [one for one in origins if one in self.origins][:1]:
            said = f"The web page {', '.join(origins)[:80]!r} may not use this server; its operator lists `origins`."
            await refuse(APIError(403, said, code="origin_not_allowed"), scope, receive, send)
        elif origins:
            await self._for_page(origins[0], scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def _ours(self, host: str) -> bool:
        found = HOST.fullmatch(host)
        if not found:
            return False
        name = found[1].strip("[]").lower().rstrip(".")
        return name in self.names or (self.numbers and _is_number(name))

    async def _for_page(self, origin: str, scope: Scope, receive: Receive, send: Send) -> None:
        """As the CORS protocol has it."""

        async def told(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["access-control-allow-origin"] = origin
                headers.append("vary", "origin")
            await send(message)

        if scope["method"] == "OPTIONS" and values(scope["headers"], b"access-control-request-method"):
            asked = ", ".join(values(scope["headers"], b"access-control-request-headers"))
            headers = {"access-control-allow-methods": METHODS, "access-control-max-age": "600"}
            headers |= {"access-control-allow-headers": asked} if asked else {}
            await Response(status_code=204, headers=headers)(scope, receive, told)
        else:
            await self.app(scope, receive, told)


def _is_number(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
