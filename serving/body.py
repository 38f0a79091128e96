"""Read the body of a request within the limits, and the files in it."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from onnx_release.core.plain_text import count_of
from serving.connection import close_after_answer
from serving.errors import ClientGoneError, RequestError, check_deadline
from serving.memory import memory, no_memory
from serving.settings import Settings

# Parts that are no files are ignored, but each costs time, so their number is limited.
OTHER_PARTS = 64
LARGE_BYTES = 1_000_000  # of a body that is not handled on the event loop
PIECE = 131_072  # bytes of a form that are parsed in one call, which holds Python's lock


class Upload(NamedTuple):
    name: str  # as the client gave it; for messages, never a path
    content: bytes


@asynccontextmanager
async def request_body(request: Request, settings: Settings) -> AsyncIterator[bytes]:
    """Read the whole body, which counts towards `buffered_bytes` until the block is left.

    Raises RequestError: 413 for more than `body_bytes`, before a byte is read if the request declares its length, and
    otherwise as soon as more bytes arrive; 400 for an empty body. Raises BusyError (503) when all bodies together are
    more than `buffered_bytes`, and ClientGoneError when the client closes the connection. A 413 and a BusyError close
    the connection.
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
                raise no_memory(settings)
            chunks.append(chunk)
        if not held:
            raise RequestError(400, "the body is empty: send the input in it")
        # Joining takes a millisecond for each 2 MB of new memory, but not Python's lock.
        body = b"".join(chunks) if held <= LARGE_BYTES else await asyncio.to_thread(b"".join, chunks)
        chunks.clear()
        yield body
    except ClientDisconnect as cause:
        raise ClientGoneError("the client closed the connection while it sent the body") from cause
    finally:
        memory.used -= held


def too_large(size: str, limit: int) -> RequestError:
    return RequestError(413, f"the body has {size} bytes, and one request may have {limit:,}: send less at once")


def parse_files(content_type: str, body: bytes, settings: Settings, deadline: float = math.inf) -> list[Upload]:
    """Return the parts of a multipart/form-data body (RFC 7578) that have a filename, in their order.

    Other parts are ignored. A body over LARGE_BYTES belongs on another thread than the event loop's.
    Raises RequestError: 415 for another content type, 400 for a body that is malformed or has no file, 413 for too many
    or too large files, 422 for an empty one; and DeadlineError if it takes longer than until `deadline`, a time of
    time.monotonic().
    """
    parser = PushMultipartParser(find_boundary(content_type), strict=True)
    reader = UploadReader(settings)
    try:
        for start in range(0, len(body), PIECE):
            check_deadline(deadline)
            for event in parser.parse(body[start : start + PIECE]):
                reader.take(event)
    except MultipartError as cause:
        raise RequestError(
            400, f"the multipart body is malformed ({cause}): send it with a library for HTTP"
        ) from cause
    try:
        parser.close()
    except MultipartError as cause:
        raise RequestError(
            400, "the multipart body ends before its last boundary: it was truncated, send it again"
        ) from cause
    if not reader.uploads:
        raise RequestError(400, "no part of the body has a filename: send the picture as in `curl -F file=@photo.jpg`")
    return reader.uploads


def find_boundary(content_type: str) -> str:
    """Return the boundary that a multipart/form-data content type names."""
    kind, options = parse_options_header(content_type)
    if kind != "multipart/form-data":
        raise RequestError(
            415,
            f"the content type is {content_type or 'missing'!r} and must be multipart/form-data: "
            "call it as in `curl -F file=@photo.jpg http://HOST:PORT/predict`",
        )
    boundary = options.get("boundary", "")
    if not boundary:
        raise RequestError(400, "the content type has no boundary: let the HTTP library set it, not your own code")
    return boundary


class UploadReader:
    """Collects the parts that have a filename from the parser's events, each within the limits."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.uploads: list[Upload] = []
        self.parts = self.size = 0
        self.filename: str | None = None
        self.content: list[bytes] = []

    def take(self, event: MultipartSegment | bytes | None) -> None:
        """Take the head of a part, a piece of its content, or None, which is its end."""
        if isinstance(event, MultipartSegment):
            self.parts += 1
            self.filename, self.content, self.size = event.filename, [], 0
            check_count(self.parts, len(self.uploads) + (self.filename is not None), self.settings)
        elif event is not None:
            if self.filename is not None:
                self.size += len(event)
                check_size(self.filename, self.size, self.settings.upload_bytes)
                self.content.append(event)
        # A browser's form in which no file was chosen has a part with an empty name and no content.
        elif self.filename is not None and (self.filename or self.size):
            if not self.size:
                raise RequestError(422, f"{self.filename!r} is empty: check that the file was written and sent in full")
            self.uploads.append(Upload(self.filename, b"".join(self.content)))
            self.content = []


def check_count(parts: int, files: int, settings: Settings) -> None:
    if files > settings.files:
        raise RequestError(413, f"more than {count_of(settings.files, 'file')}: send fewer in one request")
    if parts > settings.files + OTHER_PARTS:
        raise RequestError(
            413, f"the body has more than {settings.files + OTHER_PARTS} parts: send fewer files at once"
        )


def check_size(filename: str, size: int, limit: int) -> None:
    if size > limit:
        raise RequestError(413, f"{filename!r} has more than {limit:,} bytes: send a smaller picture")
