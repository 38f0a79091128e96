"""One connection: uvicorn's protocol with the limits that it lacks.

uvicorn waits for ever for a request that arrives a byte at a time, takes a head of any size, and counts connections
only when a request has arrived. Here a request arrives in full within `receive` seconds or is answered 408, its head
has at most HEAD bytes, and of more than `connections` open ones the last is answered 503 at once. Until they are read,
none of these costs more than the connection itself.
"""

import asyncio
import json
import time
import weakref
from collections.abc import Callable
from typing import Any, cast
from urllib.parse import unquote

import httptools
from starlette.requests import Request
from uvicorn.protocols.http.flow_control import CLOSE_HEADER
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from serving import metrics
from serving.settings import Settings

HEAD = 65536  # bytes of a request's line and headers
BODY = 262144  # bytes that may wait for the application before no more are read: what uvloop reads at once, and more
SMALL = 65536  # bytes of an answer up to which it is cheaper to copy it behind its head than to send the two
OFFER = (b"upgrade", b"http2-settings")  # headers that offer another protocol, and their names in Connection
PIPELINE = 64  # requests that one connection may send ahead of their answers
LINGER = 2.0  # seconds in which a client that is hung up on may read the answer
REFUSED = 256  # connections over the limit that may linger at once; more are closed without an answer

# Connections over the limit that still linger. Not among uvicorn's, which a shutdown waits for.
refused: set["Connection"] = set()


def gone(request: Request) -> Callable[[], bool]:
    """Whether the client of this request has left. Cheap, and callable from any thread."""
    cycle = cycle_of(request)
    return cycle.transport.has_left if cycle else lambda: False


def close_after_answer(request: Request) -> None:
    """Close the connection with the answer, which says so: what is left of the body is not worth reading."""
    cycle = cycle_of(request)
    if cycle:
        cycle.keep_alive = False


def cycle_of(request: Request) -> Any:
    """uvicorn's object for the request and its answer. None where the request came another way, as in a test."""
    reference = request.scope.get("serving.cycle")
    return reference() if reference else None


class Transport:
    """A connection's transport, except that `close` leaves the client time to read what was written.

    The kernel answers what arrives at a closed socket with a reset, on which many a client drops the answer that it
    has not read yet: a 413 would look like a network failure.
    """

    def __init__(self, transport: asyncio.Transport, connection: "Connection") -> None:
        self.transport = transport
        self.connection: Connection | None = connection  # until it is lost, or the two would keep each other
        self.hung_up = False  # nothing more is sent
        self.left = False
        self.corked = False  # the next write waits for the one after it
        self.held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        # Of several requests ahead of their answers uvicorn tells only the last that the connection is gone.
        if self.transport.is_closing():
            return
        if self.corked:
            self.corked, self.held = False, data
            return
        if self.held:
            held, self.held = self.held, b""
            if len(data) > SMALL:
                self.transport.write(held)
            else:
                data = held + data
        self.transport.write(data)

    def has_left(self) -> bool:
        return self.left

    def is_closing(self) -> bool:
        return self.hung_up or self.transport.is_closing()

    def close(self) -> None:
        if self.connection is None or self.transport.is_closing():
            return
        if self.connection.receiving:
            self.connection.hang_up()
        else:
            self.transport.close()
            if self.transport.get_write_buffer_size():
                self.connection.expect_end()


class Cycle(RequestResponseCycle):
    """uvicorn's object for a request and its answer: the answer's head is sent with its body, and both are counted."""

    status = 0  # of the answer, once there is one

    async def run_asgi(self, app: Any) -> None:
        start = time.perf_counter()
        metrics.IN_PROGRESS.inc()
        try:
            await super().run_asgi(app)
        finally:
            metrics.IN_PROGRESS.dec()
            path = getattr(self.scope.get("route"), "path", metrics.NO_ROUTE)
            metrics.observe_request(path, self.status or 500, time.perf_counter() - start)

    async def send(self, message: Any) -> None:
        if not self.status and message["type"] == "http.response.start":
            self.status = message["status"]
            # The head is written before anything else can be, and a body after it, be it empty.
            alone = self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD"
            cast(Transport, self.transport).corked = not alone
        await super().send(message)


class Connection(HttpToolsProtocol):
    """uvicorn makes one for each connection, of `functools.partial(Connection, settings)`."""

    def __init__(self, settings: Settings, **uvicorn: Any) -> None:
        super().__init__(**uvicorn)
        self.settings = settings
        self.receiving = ""  # "head" or "body" while a request has begun and is not here in full
        self.steps = 0  # how often that changed
        self.quiet_bytes = 0  # that were neither body nor end a head: an endless header, or trailers of a chunked body
        self.clock: asyncio.TimerHandle | None = None  # runs while `receiving`, and while the connection ends
        self.reader_clock: asyncio.TimerHandle | None = None  # runs while the client has to read
        self.upgrading = False  # the request offers another protocol
        self.draining = False
        self.deaf = False  # what still arrives is dropped

    def answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    # From the transport.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.peer = Transport(transport, self)
        super().connection_made(cast(asyncio.Transport, self.peer))
        if len(self.connections) > self.settings.connections:
            self.connections.discard(self)
            if len(refused) >= REFUSED:
                transport.abort()
                return
            refused.add(self)
            limit = self.settings.connections
            self.refuse(503, f"{limit} connections are open, the most that this server takes: come again in a second")
            return
        # Before its first request a connection is as idle as between two.
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        refused.discard(self)
        self.receiving, self.peer.left, self.peer.connection = "", True, None
        self.stop_clock()
        self.stop_watching()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        # uvicorn's own starts with stopping the timer of idle connections, also for bytes that begin no request.
        while data and not self.deaf:
            data = self.feed(data)

    def feed(self, data: bytes) -> bytes:
        """Parse what arrived; gives what is to be parsed next."""
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
        if self.receiving and self.quiet_bytes > HEAD:
            self.refuse_head()
        if self.steps != steps and not self.deaf:
            self.stop_clock()
            if self.receiving:
                self.start_clock()
        return rest

    def decline_upgrade(self) -> bytes:
        """The head again, without the offer of another protocol: HTTP lets a server pass over that (RFC 9110, 7.8).

        Java's client and `curl --http2` make it with every request. httptools stops at it, and uvicorn loses the body.
        """
        lines = [b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)]
        for name, value in self.headers:
            if name == b"connection":
                lines += [b"connection: " + token for token in value.lower().split(b",") if token.strip() not in OFFER]
            elif name not in OFFER:
                lines.append(b"%s: %s" % (name, value))
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own
        return b"\r\n".join([*lines, b"", b""])

    # From the parser. An exception here ends the parsing; feed() answers 400 unless an answer was given already.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._unset_keepalive_if_required()
        self.receiving, self.steps = "head", self.steps + 1

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD:
            self.refuse_head()
            raise ValueError("the head is too large")
        if len(self.pipeline) >= PIPELINE:
            self.refuse(400, f"more than {PIPELINE} requests ahead of their answers: wait for some")
            raise ValueError("too many requests at once")
        self.upgrading = self.parser.should_upgrade()
        if self.upgrading:
            if self.parser.get_method() == b"CONNECT":
                self.refuse(400, "this server is no proxy: send requests to it directly")
                raise ValueError("not a proxy")
            return  # it comes again, see decline_upgrade()
        self.begin_cycle()
        self.receiving, self.steps, self.quiet_bytes = "body", self.steps + 1, 0

    def begin_cycle(self) -> None:
        """What uvicorn does here, with a Cycle and without what this server does not have."""
        version, url = self.parser.get_http_version(), httptools.parse_url(self.url)
        path = url.path.decode("ascii")
        scope = cast(dict[str, Any], self.scope)
        scope["method"], scope["http_version"] = self.parser.get_method().decode("ascii"), version
        scope["path"], scope["raw_path"] = unquote(path) if "%" in path else path, url.path
        scope["query_string"] = url.query or b""
        previous = self.cycle
        self.cycle = Cycle(
            scope=self.scope,
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=version != "1.0" and self.parser.should_keep_alive() and not self.draining,
            on_response=self.on_response_complete,
        )
        scope["serving.cycle"] = weakref.ref(self.cycle)  # which has the scope
        if previous is None or previous.response_complete:
            self._start_asgi_task(self.cycle, self.app)
        else:
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, self.app))

    def on_body(self, body: bytes) -> None:
        self.quiet_bytes = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > BODY:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        self.receiving, self.steps, self.quiet_bytes = "", self.steps + 1, 0
        if not self.upgrading:
            super().on_message_complete()

    # From the application's side, and from the server's.

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self.cycle.body = bytearray()  # what an answer ahead of its request has left unread
        if self.receiving:
            # Not idle. The next request may have had to wait for this answer.
            self._unset_keepalive_if_required()
            self.stop_clock()
            self.start_clock()

    def shutdown(self) -> None:
        """Finish what has begun, and close. A head that has begun to arrive counts, which it does not to uvicorn."""
        self.draining = True
        if self.receiving != "head" or self.answering():
            super().shutdown()

    # Timers and refusals.

    def start_clock(self) -> None:
        self.clock = self.loop.call_later(self.settings.receive, self.receive_expired)

    def expect_end(self) -> None:
        """The connection closes when the client has read what it was sent."""
        self.stop_clock()
        self.watch_reader()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.watch_reader()

    def resume_writing(self) -> None:
        super().resume_writing()
        self.stop_watching()

    def watch_reader(self, before: int | None = None) -> None:
        """End the connection of a client that has read nothing of its answers for `receive` seconds.

        `before` is how many bytes were left for it then.
        """
        self.stop_watching()
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self.transport.abort()
        elif left:
            self.reader_clock = self.loop.call_later(self.settings.receive, self.watch_reader, left)

    def stop_watching(self) -> None:
        if self.reader_clock is not None:
            self.reader_clock.cancel()
            self.reader_clock = None

    def stop_clock(self) -> None:
        if self.clock is not None:
            self.clock.cancel()
            self.clock = None

    def receive_expired(self) -> None:
        """Not here in full; unless it is this side that does not read, because of what the application does."""
        waits = self.answering() if self.receiving == "head" else bool(self.pipeline)
        if waits or self.flow.read_paused:
            self.start_clock()
        else:
            seconds = f"{self.settings.receive:g} seconds"
            self.refuse(408, f"the {self.receiving} of the request did not arrive within {seconds}: send it at once")

    def refuse_head(self) -> None:
        self.refuse(431, f"the request has more than {HEAD} bytes of headers: send fewer or smaller ones")

    def refuse(self, status: int, text: str) -> None:
        """Answer what is being received in place of the application, and hang up."""
        if self.receiving == "body":
            self.answer_instead(status, text)
        elif self.answering():
            # Requests that came before are answered, and then uvicorn closes.
            self.cycle.keep_alive = False
            self.deaf, self.receiving = True, ""
            self.stop_clock()
        else:
            metrics.observe_refusal(status)
            self.write(status, text)
            self.hang_up()

    def cut_off(self) -> None:
        """End what is not answered yet: the server's time to stop is over."""
        self.answer_instead(503, "the server went down before this was done: send it again")

    def answer_instead(self, status: int, text: str) -> None:
        """Answer the request that the application works on. To it the client has left; its own answer is dropped."""
        if self.answering() and not self.cycle.response_started and not self.pipeline:
            self.peer.left = self.cycle.disconnected = True
            cast(Cycle, self.cycle).status = status
            self.cycle.message_event.set()
            self.write(status, text)
            self.hang_up()
        else:
            self.transport.abort()  # there is an answer already, or one that has to come first

    def write(self, status: int, text: str) -> None:
        body = json.dumps({"error": text}).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)), CLOSE_HEADER]
        if status == 503:
            headers.append((b"retry-after", b"1"))
        lines = [b"%s: %s\r\n" % header for header in self.server_state.default_headers + headers]
        self.transport.write(b"".join([STATUS_LINE[status], *lines, b"\r\n", body]))

    def hang_up(self) -> None:
        """Send what was written and the end of it; what still arrives is dropped for a moment, see Transport."""
        self.deaf, self.peer.hung_up, self.receiving = True, True, ""
        self.stop_clock()
        self._unset_keepalive_if_required()
        self.flow.resume_reading()
        self.transport.write_eof()
        self.clock = self.loop.call_later(LINGER, self.transport.abort)
