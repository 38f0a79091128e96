"""End the connection of a client that does not read what it was sent."""

import asyncio

from serving.settings import Settings


class ReaderClock:
    """The time that a client has to read what waits in its connection's transport; nothing is written meanwhile."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, settings: Settings) -> None:
        self.transport, self.loop, self.settings = transport, loop, settings
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Give the client `receive` seconds, unless there is nothing to read."""
        self.stop()
        left = self.transport.get_write_buffer_size()
        if left:
            self.timer = self.loop.call_later(self.settings.receive, self.expire, left)

    def stop(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def expire(self, before: int) -> None:
        """Give a client time for what it has read of the `before` bytes that were left, or end its connection.

        It has to read as fast as a body has to arrive: `receive_rate`, without pauses of `receive` seconds.
        """
        self.stop()
        left = self.transport.get_write_buffer_size()
        seconds = min((before - left) / self.settings.receive_rate, self.settings.receive)
        if seconds <= 0:
            self.transport.abort()
        elif left:
            self.timer = self.loop.call_later(seconds, self.expire, left)
