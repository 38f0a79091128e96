"""Keep a record of each request while it is answered: its id, and the numbers for metrics, the log and spans.

The id is the client's X-Request-ID, or is made here. It and the client's `traceparent` (W3C Trace Context) come back in
the answer's headers, and are in the log and in the traceback of a bug.
"""

import asyncio
import os
import re
import time
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from fastapi import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from onnx_release.core.types import Arrays

# A client's id goes into headers and logs as it is, so it is short and plain.
REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
# Version, trace, parent span and flags; https://www.w3.org/TR/trace-context/#traceparent-header
TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
# nginx's status for a client that closed its connection; nobody reads it.
CLIENT_GONE = 499
# The place of the record in the scope of a request.
RECORD = "serving.record"

Prepare = Callable[[], Arrays]
Finish = Callable[[Arrays], Any]


class Call(Protocol):
    """What of an engine's Job is recorded: when its call of the model began, how long it took, and the job's rows."""

    started: float
    milliseconds: float

    @property
    def rows(self) -> int: ...


@dataclass(eq=False, slots=True)
class Item:
    """The times of one item, by time.perf_counter(); 0 where it did not come so far.

    It is queued, then prepared (decoded and preprocessed) from `began` to `prepared`, then waits for its call of the
    model, which begins at `called` and takes `run` seconds; its answer is made from `finish_began` to `finished`.
    """

    prepare: Prepare
    finish: Finish
    queued: float
    began: float = 0.0
    prepared: float = 0.0
    called: float = 0.0
    run: float = 0.0
    finish_began: float = 0.0
    finished: float = 0.0
    rows: int = 0

    def timed_prepare(self) -> Arrays:
        """Prepare the item, on a thread of the engine."""
        self.began = time.perf_counter()
        try:
            return self.prepare()
        finally:
            self.prepared = time.perf_counter()

    def timed_finish(self, outputs: Arrays) -> Any:
        """Make the item's answer, on a thread of the engine."""
        self.finish_began = time.perf_counter()
        value = self.finish(outputs)
        self.finished = time.perf_counter()
        return value

    @property
    def waited(self) -> float:
        """The seconds in which nothing happened to the item: until a thread took it, and until its call began."""
        if not self.began:
            return time.perf_counter() - self.queued
        return self.began - self.queued + max(0.0, self.called - self.prepared)


@dataclass(eq=False, slots=True)
class RequestRecord:
    """A request and its answer so far; `status` is 0 until there is an answer, `sent` and `received` count bodies."""

    id: str
    traceparent: str | None
    start: float
    status: int = 0
    received: int = 0
    sent: int = 0
    items: list[Item] = field(default_factory=list)
    bug: bool = False  # the answer is a 500, and its traceback is in the log

    def timed(self, prepare: Prepare, finish: Finish) -> tuple[Prepare, Finish]:
        """Return the two functions for the engine, which from now on are an item of this request."""
        item = Item(prepare, finish, time.perf_counter())
        self.items.append(item)
        return item.timed_prepare, item.timed_finish

    def note_calls(self, calls: Iterable[Call]) -> None:
        """Note the calls of the model that ran the items, in their order."""
        for item, call in zip(self.items, calls, strict=True):
            item.called, item.run, item.rows = call.started, call.milliseconds / 1e3, call.rows

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the headers of the answer."""
        found = [(b"x-request-id", self.id.encode())]
        if self.traceparent:
            found.append((b"traceparent", self.traceparent.encode()))
        return found


Observer = Callable[[Scope, RequestRecord], None]


def new_record(headers: Iterable[tuple[bytes, bytes]] = ()) -> RequestRecord:
    """Begin the record of a request with these headers, whose names are lower case."""
    request_id = traceparent = None
    for name, value in headers:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(value):
            request_id = value.decode()
        elif name == b"traceparent" and TRACEPARENT.fullmatch(value):
            traceparent = value.decode()
    return RequestRecord(request_id or os.urandom(16).hex(), traceparent, time.perf_counter())


def record_of(request: Request) -> RequestRecord:
    """Return the record of a request; a new one if nobody keeps any, as in a test of a route."""
    scope: MutableMapping[str, Any] = request.scope
    if RECORD not in scope:
        scope[RECORD] = new_record(scope["headers"])
    record: RequestRecord = scope[RECORD]
    return record


def recorded(app: ASGIApp, observers: tuple[Observer, ...]) -> ASGIApp:
    """Return the application with a record for each request, which `observers` get after the answer."""

    async def record_request(scope: Scope, receive: Receive, send: Send) -> None:
        record = scope[RECORD] = new_record(scope["headers"])
        own = 0  # the status of the application's answer

        async def count_received() -> Message:
            message = await receive()
            record.received += len(message.get("body", b""))
            return message

        async def count_sent(message: Message) -> None:
            nonlocal own
            if message["type"] == "http.response.start":
                own = 0 if record.status else message["status"]  # the connection may have answered already
                record.status = record.status or own
                message["headers"] = [*message.get("headers", ()), *record.headers()]
            elif scope["method"] != "HEAD" and record.status == own:  # or the connection has refused it
                record.sent += len(message.get("body", b""))
            await send(message)

        try:
            await app(scope, count_received, count_sent)
        except asyncio.CancelledError:
            record.status = record.status or CLIENT_GONE
            raise
        except Exception:
            if not record.bug:  # Starlette raises what it has answered once more
                raise
        finally:
            for observe in observers:
                observe(scope, record)
            # The connection keeps the scope until its next request, and the items have the bytes of uploads.
            record.items.clear()

    return record_request
