"""The body of a request within the limits, and the files in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from multipart import MultipartError, MultipartSegment, PushMultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request

from serving.connection import close_after_answer
from serving.engine import BusyError, ClientGoneError
from serving.errors import RequestError
from serving.settings import Settings

# Parts that are no files, which are passed over: each costs time, so that there must not be any number of them.
OTHER_PARTS = 64


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
    if kind != "multipart/form-data":
        raise RequestError(
            415,
            f"the content type is {content_type or 'missing'!r} and must be multipart/form-data: "
            "call it as in `curl -F file=@photo.jpg http://HOST:PORT/predict`",
        )
    boundary = options.get("boundary", "")
    if not boundary:
        raise RequestError(400, "the content type has no boundary: let the HTTP library set it, not your own code")
    uploads: list[Upload] = []
    parts = 0
    filename, content = None, b""
    try:
        parser = PushMultipartParser(boundary, strict=True)
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                parts += 1
                filename, content = event.filename, b""
                check_count(parts, len(uploads) + (filename is not None), settings)
            elif event is not None:
                content = event  # all of the part, since all of the body is here
            # A browser's form in which no file was chosen has a part with an empty name and no content.
            elif filename is not None and (filename or content):
                uploads.append(checked(Upload(filename, content), settings.upload_bytes))
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
    if not uploads:
        raise RequestError(400, "no part of the body has a filename: send the picture as in `curl -F file=@photo.jpg`")
    return uploads


def check_count(parts: int, files: int, settings: Settings) -> None:
    if files > settings.files:
        raise RequestError(413, f"more than {settings.files} files: send fewer in one request")
    if parts > settings.files + OTHER_PARTS:
        raise RequestError(
            413, f"the body has more than {settings.files + OTHER_PARTS} parts: send fewer files at once"
        )


def checked(upload: Upload, limit: int) -> Upload:
    if not upload.content:
        raise RequestError(422, f"{upload.name!r} is empty: check that the file was written and sent in full")
    if len(upload.content) > limit:
        raise RequestError(413, f"{upload.name!r} has more than {limit:,} bytes: send a smaller picture")
    return upload
