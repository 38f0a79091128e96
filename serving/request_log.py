"""Write a line of JSON on standard output for each request."""

import os
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import orjson
from starlette.types import Scope

from serving.record import RequestRecord, new_record

# Lines up to 4096 bytes do not mix with those of another process (PIPE_BUF); a path may have this many characters.
PATH_CHARACTERS = 1000


def log_request(scope: Scope, record: RequestRecord) -> None:
    """Write the line of a request that has been answered. Times are in seconds, `received` and `sent` in bytes."""
    path = bytes(scope.get("raw_path") or scope["path"].encode())
    forwarded = next((value for name, value in scope["headers"] if name == b"x-forwarded-for"), None)
    client = scope.get("client")
    write_line(
        record,
        client=f"{client[0]}:{client[1]}" if client else None,
        forwarded_for=forwarded and forwarded.decode("latin-1")[:PATH_CHARACTERS],
        method=scope["method"],
        path=path.decode("latin-1")[:PATH_CHARACTERS],  # without the query, which may have secrets
    )


def refused_record(status: int, client: tuple[str, int] | None, log: bool) -> RequestRecord:
    """Return the record of a request, or a connection, that is refused before its head was read, and `log` it."""
    record = new_record()
    record.status = status
    if log:
        write_line(record, client=f"{client[0]}:{client[1]}" if client else None)
    return record


def write_line(record: RequestRecord, **request: Any) -> None:
    """Write one line in one call. A log that nobody reads any more costs no request."""
    if sys.stdout is None:  # it was closed before the start, and its number may now be a connection's
        return
    items = record.items
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "id": record.id,
        "traceparent": record.traceparent,
        **request,
        "status": record.status or 500,
        "received": record.received,
        "sent": record.sent,
        "seconds": round(time.perf_counter() - record.start, 6),
        "items": len(items),
        "rows": sum(item.rows for item in items),
        "queue_seconds": round(max((item.waited for item in items), default=0), 6),
        "prepare_seconds": round(sum(item.prepared - item.began for item in items if item.prepared), 6),
        "model_seconds": round(sum({item.called: item.run for item in items}.values()), 6),
    }
    content = orjson.dumps({name: value for name, value in line.items() if value is not None})
    with suppress(OSError):
        os.write(sys.stdout.fileno(), content + b"\n")
