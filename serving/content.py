"""Read what the headers of a request say about its body: Content-Encoding, and Content-Type for an upload.

The body of /predict is a form, or one upload as it is.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import Request
from multipart import parse_options_header

from serving.body import Upload, parse_files
from serving.errors import RequestError
from serving.memory import memory, no_memory
from serving.page import UploadKind
from serving.protocol import decompress
from serving.settings import Settings
from serving.tensors import abbreviated

FORM = "multipart/form-data"
# The content types of a body that is one upload, by what the model takes.
RAW: dict[UploadKind, tuple[str, ...]] = {
    "image": ("image/*", "application/octet-stream"),
    "text": ("text/plain", "application/octet-stream"),
    "none": (),
}
BODY_NAME = "the body"  # in messages, in place of a file's name


def single_header(request: Request, name: str) -> str | None:
    """Return a header's value, or None without it. Raises RequestError (400) if it is given more than once."""
    found = request.headers.getlist(name)
    if len(found) > 1:
        raise RequestError(400, f"{name} is given {len(found)} times: give it once")
    return found[0] if found else None


@asynccontextmanager
async def plain_body(request: Request, body: bytes, settings: Settings) -> AsyncIterator[bytes]:
    """Decompress a body as its Content-Encoding says, on another thread than the event loop's.

    What it is decompressed to counts towards `buffered_bytes`, too, until the block is left; while nobody knows how
    much that is, it counts as the most that it may be: `body_bytes`, or what `buffered_bytes` has beside the body, or
    a server with little of it could never decompress one. Raises what `decompress` raises, and BusyError (503).
    """
    encoding = single_header(request, "Content-Encoding")
    if encoding is None:
        yield body
        return
    most = held = min(settings.body_bytes, settings.buffered_bytes - len(body))
    if memory.used + held > settings.buffered_bytes:
        raise no_memory(settings)
    memory.used += held
    try:
        plain = await asyncio.to_thread(decompress, body, encoding, most)
        memory.used += len(plain) - held
        held = len(plain)
        yield plain
    finally:
        memory.used -= held


def read_uploads(content_type: str, body: bytes, kind: UploadKind, settings: Settings, deadline: float) -> list[Upload]:
    """Return the uploads of a request: the files of a form, or the whole body if its content type is one of RAW.

    Raises RequestError: 415 for another content type, 413 for more than `upload_bytes`, and what `parse_files` raises,
    which ends at `deadline`, a time of time.monotonic().
    """
    name, options = parse_options_header(content_type)
    if name == FORM:
        return parse_files(content_type, body, settings, deadline)
    accepted = RAW[kind]
    if name not in accepted and f"{name.partition('/')[0]}/*" not in accepted:
        raise RequestError(
            415,
            f"the content type is {abbreviated(content_type) if content_type else 'missing'}: send {FORM}, "
            f"as in `curl -F file=@FILE http://HOST:PORT/predict`, or one upload as {' or '.join(accepted)}",
        )
    charset = options.get("charset", "utf-8")
    if name == "text/plain" and charset.lower() not in ("utf-8", "utf8", "us-ascii"):
        raise RequestError(415, f"the text is in {abbreviated(charset)}: send it in UTF-8")
    if len(body) > settings.upload_bytes:
        raise RequestError(413, f"the body has more than {settings.upload_bytes:,} bytes: send a smaller file")
    return [Upload(BODY_NAME, body)]


def described_uploads(kind: UploadKind) -> dict[str, Any]:
    """Describe the body of /predict for OpenAPI."""
    file = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "array", "items": file, "minItems": 1}},
    }
    raw: dict[str, Any] = {content_type: {"schema": file} for content_type in RAW[kind]}
    return {
        "required": True,
        "description": "files in a form, or one as it is; gzip and deflate are taken as Content-Encoding",
        "content": {FORM: {"schema": form}, **raw},
    }
