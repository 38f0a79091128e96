"""Handle one connection with uvicorn's protocol and the limits that it lacks.

uvicorn waits for ever for a request that arrives a byte at a time, takes a head of any size and of any number of
headers, and counts connections only when a request has arrived. Here a head that does not arrive within `receive`
seconds is answered 408, and so is a body that is slower than `receive_rate` after that time, or stops for so long; a
head has at most HEAD_BYTES bytes and HEADERS headers, and a connection beyond the limit `connections` takes the
place of one without a request, or is answered 503 at once. A refused request costs no more than its connection.
"""

import asyncio
import json
import weakref
from http import HTTPStatus
from typing import Any, cast

import httptools
from starlette.requests import Request

from serving import metrics
from serving.answering import Cycle, Transport
from serving.idle_connections import idle, make_room
from serving.reader_clock import ReaderClock
from serving.record import RequestRecord
from serving.request_log import refused_record
from serving.serve import LINGERING
from serving.settings import Settings
from serving.uvicorn_names import HttpToolsProtocol, RequestResponseCycle

HEAD_BYTES = 65536  # bytes of a request's line and headers
HEADERS = 256  # of a request, with the trailers of a body in chunks: each costs much more than its bytes
HEADER_BYTES = 4  # on the wire for each header, besides its name and value: a colon, a blank and the end of the line
BODY_BYTES = 262144  # bytes that may wait for the application before reading pauses: as many as uvloop reads at once
CHUNKS, CHUNK_BYTES = 1000, 1024  # a body may come in so many chunks, and in one more for each so many bytes of it
REST_BYTES = 65536  # of a body that are still read when the answer came before them
CLOSE = (b"connection", b"close")
OFFER = (b"upgrade", b"http2-settings")  # headers that offer another protocol, and their names in Connection
PIPELINED_REQUESTS = 8  # requests that one connection may send ahead of their answers
LINGER_SECONDS = 2.0  # a client whose connection is being closed may read the answer for this long

# Connections over the limit that still linger. They are not among uvicorn's, which a shutdown waits for.
refused: set["Connection"] = set()


def gone(request: Request) -> asyncio.Future[None]:
    """Return a future that is done once the client of this request has left."""
    cycle = cycle_of(request)
    return cycle.transport.gone if cycle else asyncio.get_running_loop().create_future()


def close_after_answer(request: Request) -> None:
    """Close the connection after the answer, which says so, since the rest of the body is not worth reading."""
    cycle = cycle_of(request)
    if cycle:
        cycle.keep_alive = False


def cycle_of(request: Request) -> Any:
    """Return uvicorn's object for the request and its answer; None if the request came another way, as in a test."""
    reference = request.scope.get("serving.cycle")
    return reference() if reference else None


class Connection(HttpToolsProtocol):
    """The protocol of one connection."""

    def __init__(self, settings: Settings, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.settings = settings
        self.receiving = ""  # "head" or "body" while a request has begun and is not here in full
        self.steps = 0  # how often `receiving` has changed
        self.quiet_bytes = 0  # bytes since the last body or end of a head: an endless header, or trailers of chunks
        self.body_bytes = 0  # bytes of the body that have arrived
        self.paid_bytes = 0  # those of them for which the client has been given time
        self.chunks = 0  # chunks of the body that have arrived
        self.clock: asyncio.TimerHandle | None = None  # runs while `receiving`, and while the connection ends
        self.upgrading = False  # the request offers another protocol
        self.draining = False
        self.deaf = False  # data that still arrives is dropped

    def answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # Called by the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.peer = Transport(transport, self)
        self.reader_clock = ReaderClock(transport, self.loop, self.settings)
        super().connection_made(cast(asyncio.Transport, self.peer))
        if len(self.connections) > self.settings.connections and not self.replaces_another():
            self.connections.discard(self)
            if len(refused) >= LINGERING:
                transport.abort()
                return
            refused.add(self)
            limit = self.settings.connections
            self.refuse(503, f"{limit} connections are open, the most that this server takes: try again in a second")
            return
        # A connection is idle before its first request, too.
        idle[self] = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        refused.discard(self)
        idle.pop(self, None)
        self.receiving, self.peer.connection = "", None
        self.peer.leave()
        self.stop_clock()
        self.reader_clock.stop()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def replaces_another(self) -> bool:
        """Close a connection without a request in favour of this one; return False if there is none."""
        closed = make_room(self.loop.time())
        self.connections.discard(closed)
        return closed is not None

    def data_received(self, data: bytes) -> None:
        # uvicorn's own method would stop the timer of idle connections even for bytes that begin no request.
        while data and not self.deaf:
            data = self.feed(data)

    def feed(self, data: bytes) -> bytes:
        """Parse what arrived; return what is to be parsed next."""
        steps, rest = self.steps, b""
        self.quiet_bytes += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            rest = self.decline_upgrade() + data[upgrade.args[0] :]
        except httptools.HttpParserError as error:
            if not self.deaf:
                self.refuse(400, f"this is not a request of HTTP/1.1 ({error}): check the client")
            return b""
        if self.receiving and self.quiet_bytes > HEAD_BYTES:
            self.refuse_head()
        if self.steps != steps and not self.deaf:
            self.stop_clock()
            if self.receiving:
                self.start_clock()
        return rest

    def decline_upgrade(self) -> bytes:
        """Return the head without the offer of another protocol, which HTTP lets a server ignore (RFC 9110, 7.8).

        Java's client and `curl --http2` offer one with every request. httptools stops there; uvicorn loses the body.
        """
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                kept = [token for token in value.lower().split(b",") if token.strip() not in OFFER]
                lines.append(b"connection: " + b",".join(kept))
            elif name not in OFFER:
                lines.append(b"%s: %s" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"\r\n".join([*lines, b"", b""])

    # Called by the parser. An exception here ends the parsing; feed() answers 400 unless an answer was given already.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        idle.pop(self, None)
        self._unset_keepalive_if_required()
        self.receiving, self.steps = "head", self.steps + 1

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= HEADERS:
            self.refuse_head()
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        headers = sum(len(name) + len(value) + HEADER_BYTES for name, value in self.headers)
        if len(self.url) + headers > HEAD_BYTES:
            self.refuse_head()
            raise ValueError("the head is too large")
        if len(self.pipeline) >= PIPELINED_REQUESTS:
            self.refuse(400, f"more than {PIPELINED_REQUESTS} requests ahead of their answers: wait for some")
            raise ValueError("too many requests at once")
        self.upgrading = self.parser.should_upgrade()
        if self.upgrading:
            if self.parser.get_method() == b"CONNECT":
                self.refuse(400, "this server is no proxy: send requests to it directly")
                raise ValueError("not a proxy")
            return  # the head is parsed again, see decline_upgrade()
        super().on_headers_complete()
        # Weak, since the cycle has the scope.
        cast(dict[str, Any], self.scope)["serving.cycle"] = weakref.ref(self.cycle)
        if self.draining:
            self.cycle.keep_alive = False
        self.body_bytes = self.paid_bytes = self.chunks = 0
        self.receiving, self.steps, self.quiet_bytes = "body", self.steps + 1, 0

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        cycle.__class__ = Cycle  # uvicorn always makes its own
        super()._start_asgi_task(cycle, app)

    def on_chunk_header(self) -> None:
        """Refuse a body in tiny chunks: each costs as much to parse as a large one."""
        self.chunks += 1
        if self.chunks > CHUNKS + self.body_bytes / CHUNK_BYTES:
            self.refuse(400, f"the body comes in chunks of fewer than {CHUNK_BYTES:,} bytes: send larger ones")
            raise ValueError("too many chunks")

    def on_body(self, body: bytes) -> None:
        self.quiet_bytes = 0
        self.body_bytes += len(body)
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > BODY_BYTES:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self.receiving, self.steps, self.quiet_bytes = "", self.steps + 1, 0
        if not self.upgrading:
            super().on_message_complete()

    # Called by the application and by the server.

    def rest_is_long(self) -> bool:
        """Return whether more of the body may still come than is worth reading for the sake of the connection."""
        if self.receiving != "body":
            return False
        length = next((value for name, value in self.headers if name == b"content-length"), None)
        return length is None or int(length) - self.body_bytes > REST_BYTES

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.answering() and not self.receiving and not self.peer.is_closing():
            idle[self] = self.loop.time()
        self.cycle.body = bytearray()  # an answer that came before the end of its request leaves a rest unread
        if self.receiving:
            # The connection is not idle. The next request may have had to wait for this answer.
            self._unset_keepalive_if_required()
            self.stop_clock()
            self.start_clock()

    def retire(self) -> None:
        """Close after the next answer, or when the connection has been idle; a request on its way is still answered."""
        self.draining = True
        if self.answering():
            self.cycle.keep_alive = False

    def shutdown(self) -> None:
        """Finish the requests that have begun, and close. Unlike uvicorn, count a head that has begun to arrive."""
        self.draining = True
        if self.receiving != "head" or self.answering():
            super().shutdown()

    # Timers and refusals.

    def start_clock(self) -> None:
        self.clock = self.loop.call_later(self.settings.receive, self.receive_expired)

    def expect_end(self) -> None:
        """Close the connection once the client has read what it was sent."""
        self.stop_clock()
        self.reader_clock.start()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.reader_clock.start()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.reader_clock.stop()

    def stop_clock(self) -> None:
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def receive_expired(self) -> None:
        """Refuse a request that did not arrive in time, unless this side has paused reading."""
        waits = self.answering() if self.receiving == "head" else bool(self.pipeline)
        if waits or self.flow.read_paused:
            self.start_clock()
            return
        seconds = self.settings.receive
        if self.receiving == "head":
            self.refuse(408, f"the head of the request did not arrive within {seconds:g} seconds: send it at once")
            return
        rate = self.settings.receive_rate
        arrived, self.paid_bytes = self.body_bytes - self.paid_bytes, self.body_bytes
        if arrived:  # at most `receive` seconds, or one burst would pay for minutes of silence
            self.clock = self.loop.call_later(min(arrived / rate, seconds), self.receive_expired)
        else:
            slow = f"slower than {rate:,} bytes a second, or stopped for {seconds:g} seconds"
            self.refuse(408, f"the body of the request arrived {slow}: use a faster connection")

    def refuse_head(self) -> None:
        limits = f"{HEADERS} headers, or {HEAD_BYTES:,} bytes of them"
        self.refuse(431, f"the request has more than {limits}: send fewer or smaller ones")

    def refuse(self, status: int, text: str) -> None:
        """Answer the request that is being received in place of the application, and close the connection."""
        if self.receiving == "body":
            self.answer_instead(status, text)
        elif self.answering():
            # Earlier requests are still answered, and then uvicorn closes the connection.
            self.cycle.keep_alive = False
            self.deaf, self.receiving = True, ""
            self.stop_clock()
        else:
            metrics.observe_refusal(status)
            self.write(status, text, refused_record(status, self.client, self.settings.log_requests))
            self.hang_up()

    def cut_off(self) -> None:
        """Answer 503 to requests without an answer, because the server's time to stop is over."""
        self.answer_instead(503, "the server stopped before this request was done: send it again")

    def answer_instead(self, status: int, text: str) -> None:
        """Answer in place of the application, which sees a client that has left; its own answer is dropped."""
        if self.answering() and not self.cycle.response_started and not self.pipeline:
            self.cycle.disconnected = True
            self.peer.leave()
            self.cycle.message_event.set()
            self.write(status, text, cast(Cycle, self.cycle).note_refusal(status))
            self.hang_up()
        else:
            self.transport.abort()  # this answer has begun, or another has to come first

    def write(self, status: int, text: str, record: RequestRecord | None) -> None:
        body = json.dumps({"error": text}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), CLOSE]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        if record:
            headers += record.headers()
            record.sent = len(body)
        lines = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode())]
        lines += [b"%s: %s" % header for header in self.server_state.default_headers + headers]
        self.transport.write(b"\r\n".join([*lines, b"", body]))

    def hang_up(self) -> None:
        """Send what was written, then the end; drop what still arrives for LINGER_SECONDS, see Transport."""
        self.deaf, self.peer.hung_up, self.receiving = True, True, ""
        self.stop_clock()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.clock = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
