"""Forms with a file (multipart/form-data), read as a stream: the file goes to the disk, whatever its size."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from sharpen.server.errors import APIError, invalid
from sharpen.server.storage import Received, Storage, too_large

FIELDS = 32
"""A form has so many fields at most."""

FIELD_BYTES = 2**14
"""Bytes of a field's value, and of the headers of a part, at most."""

AROUND = 2**16
"""Bytes of a form around its file at most, when its length alone is looked at."""


@dataclass
class Form:
    """A form: the file's name as the client gave it, its bytes on the disk, and the other fields."""

    received: Received
    filename: str
    fields: dict[str, str]


@asynccontextmanager
async def form(
    request: Request, storage: Storage, file: str, fields: Collection[str], limit: int
) -> AsyncIterator[Form]:
    """The form of a request with the file `file` of at most `limit` bytes, and some of `fields`, in any order.

    Raises APIError for any other body. The file is gone after the block, unless `Storage.keep` put it in its place.
    """
    reader = _Reader(_boundary(request), file, frozenset(fields))
    said = request.headers.get("content-length", "")
    if said.isdecimal():
        if int(said) > limit + AROUND:
            raise too_large(int(said), limit, file)
        await storage.thread(lambda: storage.room(int(said)))
    incoming = storage.incoming(limit, file)
    try:
        async for chunk in request.stream():
            if data := reader.feed(chunk):
                await incoming.write(data)
        filename = reader.finish()
        yield Form(await incoming.finish(), filename, reader.fields)
    except ClientDisconnect as error:
        raise _broken("it was cut short") from error
    finally:
        incoming.discard()


@dataclass
class _Part:
    """What is being read: its headers, and for a field its value."""

    name: str = ""
    header: bytearray = field(default_factory=bytearray)
    headers: dict[bytes, bytes] = field(default_factory=dict)
    value: bytearray = field(default_factory=bytearray)


class _Reader:
    """Bytes of a form in, bytes of its file out."""

    def __init__(self, boundary: bytes, file: str, allowed: frozenset[str]) -> None:
        self.fields: dict[str, str] = {}
        self._file = file
        self._allowed = allowed
        self._filename: str | None = None
        self._part = _Part()
        self._name = bytearray()
        self._data: list[bytes] = []
        self._ended = False
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._open,
                "on_part_data": self._content,
                "on_part_end": self._close,
                "on_end": self._end,
            },
        )

    def feed(self, chunk: bytes) -> bytes:
        """The bytes of the file that a chunk of the body has. Raises APIError."""
        self._data.clear()
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _broken(str(error)) from error
        return b"".join(self._data)

    def finish(self) -> str:
        """The file's name, at the end of the body. Raises APIError where something is missing."""
        if not self._ended:
            raise _broken("it was cut short, or ends without its boundary")
        if self._filename is None:
            raise invalid(f"The form has no file `{self._file}`", self._file, "missing_required_parameter")
        return self._filename

    def _begin(self) -> None:
        self._part = _Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._part.header += data[start:end]

    def _header_end(self) -> None:
        self._part.headers[bytes(self._name).lower()] = bytes(self._part.header)
        self._name.clear()
        self._part.header.clear()

    def _open(self) -> None:
        """A part's headers are known."""
        _, options = parse_options_header(self._part.headers.get(b"content-disposition"))
        name = self._part.name = _text(options.get(b"name", b""))
        if not name:
            raise _broken("a part of it has no name")
        if name == self._file:
            self._open_file(options.get(b"filename"))
        elif name not in self._allowed:
            known = ", ".join(sorted({self._file, *self._allowed}))
            raise invalid(f"Unknown parameter {name[:80]!r}. The form may have {known}", name[:80], "unknown_parameter")
        elif name in self.fields or len(self.fields) >= FIELDS:
            raise invalid(f"`{name}` stands in the form twice", name)

    def _open_file(self, filename: bytes | None) -> None:
        if filename is None:
            remedy = f"With curl, write -F {self._file}=@train.jsonl"
            raise invalid(f"`{self._file}` is text, where a file is needed. {remedy}", self._file)
        if self._filename is not None:
            raise invalid(f"The form has two files `{self._file}`; send one request for each", self._file)
        self._filename = _text(filename)

    def _content(self, data: bytes, start: int, end: int) -> None:
        if self._part.name == self._file:
            self._data.append(data[start:end])
            return
        self._part.value += data[start:end]
        if len(self._part.value) > FIELD_BYTES:
            raise invalid(f"`{self._part.name}` has more than {FIELD_BYTES} bytes", self._part.name)

    def _close(self) -> None:
        if self._part.name != self._file:
            self.fields[self._part.name] = _text(self._part.value)

    def _end(self) -> None:
        self._ended = True


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type"))
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not 0 < len(boundary) <= 70:
        seen = request.headers.get("content-type", "")
        raise invalid(
            f"The body should be a form with a file: Content-Type: multipart/form-data; boundary=… (got {seen[:80]!r})",
            code="invalid_content_type",
        )
    return boundary


def _text(data: bytes | bytearray) -> str:
    return data.decode("utf-8", "replace")


def _broken(why: str) -> APIError:
    return invalid(f"The body is no whole form: {why[:200]}", code="invalid_multipart_body")
