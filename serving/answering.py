"""Write answers to a connection: its transport, and uvicorn's object for a request and its answer, with changes."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from starlette.types import Scope

from serving import metrics
from serving.errors import BusyError, RequestError
from serving.memory import UNCOUNTED_BYTES, check_answer, memory
from serving.record import RECORD, RequestRecord
from serving.uvicorn_names import RequestResponseCycle

if TYPE_CHECKING:
    from serving.connection import Connection

COPIED_BYTES = 65536  # answers up to this size are copied behind their head: that is cheaper than to send the two


class Transport:
    """A connection's transport, except that `close` gives the client time to read the answer.

    The kernel answers data that arrives at a closed socket with a reset. Many clients then drop an answer that they
    have not read yet, so a 413 would look like a network failure.
    """

    def __init__(self, transport: asyncio.Transport, connection: "Connection") -> None:
        self.transport = transport
        self.connection: Connection | None = connection  # until it is lost, or the two would keep each other alive
        self.hung_up = False  # nothing more is sent
        self.gone = connection.loop.create_future()
        self.corked = False  # the next write waits for the one after it
        self.held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.transport, name)

    def write(self, data: bytes) -> None:
        # If several requests were sent ahead of their answers, uvicorn tells only the last that the connection is gone.
        if self.transport.is_closing():
            return
        if self.corked:
            self.corked, self.held = False, data
            return
        if self.held:
            held, self.held = self.held, b""
            if len(data) > COPIED_BYTES:
                self.transport.write(held)
            else:
                data = held + data
        self.transport.write(data)

    def leave(self) -> None:
        """Note that nobody reads what follows."""
        if not self.gone.done():
            self.gone.set_result(None)

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
    """uvicorn's object for a request and its answer; it sends the answer's head with its body, and counts both.

    A long answer counts towards `buffered_bytes` until the client has read it, but for what the socket holds. One of
    uvicorn's becomes one of these, so it has no __init__ of its own.
    """

    status = 0  # the answer's status, once there is an answer
    counted = 0  # bytes of the answer that count towards `buffered_bytes`

    async def run_asgi(self, app: Any) -> None:
        try:
            with metrics.counted_request(cast(Scope, self.scope), lambda: self.status):
                await super().run_asgi(app)
            if self.counted:
                await self.flow.drain()
        finally:
            memory.used -= self.counted

    async def send(self, message: Any) -> None:
        if not self.status and message["type"] == "http.response.start":
            self.status = message["status"]
            connection = cast(Transport, self.transport).connection
            if connection is not None:
                if connection.cycle is self and connection.rest_is_long():
                    self.keep_alive = False
                self.count(message, connection)
            # The next write is the head, and the one after it the body, which may be empty.
            alone = self.disconnected or self.flow.write_paused or self.scope["method"] == "HEAD"
            cast(Transport, self.transport).corked = not alone
        await super().send(message)

    def count(self, head: Any, connection: "Connection") -> None:
        """Count the bytes of an answer with this head, or refuse it if there is no room for it."""
        size = next((int(value) for name, value in head["headers"] if name == b"content-length"), 0)
        if self.disconnected or self.scope["method"] == "HEAD" or size <= UNCOUNTED_BYTES:
            return
        try:
            check_answer(size, connection.settings)
        except (RequestError, BusyError) as error:
            status = error.status if isinstance(error, RequestError) else 503
            self.note_refusal(status)  # also where the connection ends without an answer
            connection.answer_instead(status, str(error))
        else:
            self.counted = size
            memory.used += size

    def note_refusal(self, status: int) -> RequestRecord | None:
        """Note that the connection refuses the request, or its answer, and return the request's record."""
        self.status = status
        record = cast(RequestRecord | None, self.scope.get(RECORD))
        if record:
            record.status = status
        return record
