"""The body of a request within the limits, and the files in it."""

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from serving.connection import close_after_answer
from serving.engine import BusyError, ClientGoneError
from serving.errors import RequestError
from serving.settings import Settings

# Parts that are no files, which are passed over: each costs time, so that there must not be any number of them.
OTHER_PARTS = 64

# It warns of every malformed body; the client is told.
logging.getLogger("python_multipart").setLevel(logging.ERROR)


class Upload(NamedTuple):
    name: str  # as the client gave it; for messages, never a path
    content: bytes


class Memory:
    """Bytes of all bodies that this process holds."""

    def __init__(self) -> None:
        self.used = 0


memory = Memory()


@asynccontextmanager
async def request_body(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """The whole body, which counts towards `buffered_bytes` until the block is left.

    Raises RequestError: 413 for more than `body_bytes`, before a byte is read where the request says how long it is,
    and else as soon as more have arrived; 400 where there is none. BusyError (503) when all bodies are more than
    `buffered_bytes`. ClientGoneError when the connection closes on the way. After a 413 and a BusyError it is closed.
    """
    held = 0
    try:
        declared = int(request.headers.get("content-length", 0))  # httptools has checked that it is a number
        if declared > settings.body_bytes:
            close_after_answer(request)
            raise too_large(f"{declared:,}", settings.body_bytes)
        chunks = []
        async for chunk in request.stream():
            held += len(chunk)
            memory.used += len(chunk)
            if held > settings.body_bytes:
                close_after_answer(request)
                raise too_large(f"more than {settings.body_bytes:,}", settings.body_bytes)
            if memory.used > settings.buffered_bytes:
                close_after_answer(request)
                raise BusyError(
                    f"requests with {settings.buffered_bytes:,} bytes are being worked on: come again in a second", 1
                )
            chunks.append(chunk)
        if not held:
            raise RequestError(400, "the body is empty: send what is to be predicted in it, see /docs")
        body = b"".join(chunks)
        chunks.clear()
        yield body
    except ClientDisconnect as cause:
        raise ClientGoneError("the client left while it sent the body") from cause
    finally:
        memory.used -= held


def too_large(size: str, limit: int) -> RequestError:
    return RequestError(413, f"the body has {size} bytes, and one request may have {limit:,}: send less at once")


def parse_files(content_type: str, body: bytes, settings: Settings) -> list[Upload]:
    """The parts of a multipart/form-data body (RFC 7578) that have a filename, in their order; others are passed over.

    Raises RequestError: 415 for another content type, 400 for a body that is malformed or has no file, 413 for too
    many or too large files, 422 for an empty one.
    """
    kind, options = parse_options_header(content_type)
    if kind.lower() != b"multipart/form-data":
        raise RequestError(
            415,
            f"the content type is {content_type or 'missing'!r} and must be multipart/form-data: "
            "call it as in `curl -F file=@photo.jpg http://HOST:PORT/predict`",
        )
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise RequestError(400, "the content type has no boundary: let the HTTP library set it, not your own code")
    # Before it is parsed: also a boundary that turns out to be none costs the parser time.
    if body.count(b"--" + boundary) > settings.files + OTHER_PARTS:
        raise RequestError(
            413, f"the body has more than {settings.files + OTHER_PARTS} parts: send fewer files at once"
        )
    parts = Parts(settings)
    try:
        MultipartParser(
            boundary,
            {
                "on_part_begin": parts.on_part_begin,
                "on_header_field": parts.on_header_field,
                "on_header_value": parts.on_header_value,
                "on_headers_finished": parts.on_headers_finished,
                "on_part_data": parts.on_part_data,
                "on_part_end": parts.on_part_end,
                "on_end": parts.on_end,
            },
        ).write(body)
    except FormParserError as cause:
        raise RequestError(
            400, f"the multipart body is malformed ({cause}): send it with a library for HTTP"
        ) from cause
    if not parts.ended:
        raise RequestError(400, "the multipart body ends before its last boundary: it was truncated, send it again")
    if not parts.uploads:
        raise RequestError(400, "no part of the body has a filename: send the picture as in `curl -F file=@photo.jpg`")
    return parts.uploads


class Parts:
    """What the parser finds, by its callbacks. It is given the whole body, so that a header or a file is one call."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.uploads: list[Upload] = []
        self.field = self.disposition = b""
        self.filename: str | None = None
        self.content = b""
        self.ended = False

    def on_part_begin(self) -> None:
        self.disposition, self.filename, self.content = b"", None, b""

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.field = data[start:end].lower()

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        if self.field == b"content-disposition":
            self.disposition = data[start:end]

    def on_headers_finished(self) -> None:
        filename = parse_options_header(self.disposition)[1].get(b"filename")
        if filename is not None:
            self.filename = filename.decode(errors="replace")
            if len(self.uploads) == self.settings.files:
                raise RequestError(413, f"more than {self.settings.files} files: send fewer in one request")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self.filename is None:
            return
        if end - start + len(self.content) > self.settings.upload_bytes:
            limit = f"{self.settings.upload_bytes:,}"
            raise RequestError(413, f"{self.filename!r} has more than {limit} bytes: send a smaller picture")
        self.content += data[start:end]

    def on_part_end(self) -> None:
        # A browser's form in which no file was chosen has a part with an empty name and no content.
        if self.filename is None or not (self.filename or self.content):
            return
        if not self.content:
            raise RequestError(422, f"{self.filename!r} is empty: check that the file was written and sent in full")
        self.uploads.append(Upload(self.filename, self.content))

    def on_end(self) -> None:
        self.ended = True
