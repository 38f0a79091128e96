"""End the connection of a client that does not read what it was sent."""

import asyncio
import struct
import sys
from fcntl import ioctl
from termios import TIOCOUTQ

from serving.settings import Settings


class ReaderClock:
    """The time that a client has to read what waits in its connection's transport; nothing is written meanwhile."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, settings: Settings) -> None:
        self.transport, self.loop, self.settings = transport, loop, settings
        self.timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Give the client `receive` seconds, unless there is nothing to read."""
        self.stop()
        left = self.unread()
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
        left = self.unread()
        seconds = min((before - left) / self.settings.receive_rate, self.settings.receive)
        if seconds <= 0:
            self.transport.abort()
        elif left:
            self.timer = self.loop.call_later(seconds, self.expire, left)

    def unread(self) -> int:
        """Return the bytes that the client has not read, or 0 once the transport has none of them.

        On Linux they include those that the kernel keeps, which takes more from the transport only after it has lost
        a large part of them: a slow client may need longer for that than `receive`.
        """
        left = self.transport.get_write_buffer_size()
        if left and sys.platform == "linux":
            kept = ioctl(self.transport.get_extra_info("socket").fileno(), TIOCOUTQ, bytes(4))
            left += struct.unpack("i", kept)[0]
        return left
