"""Let few calls of gRPC read their message at once, and none of them keep its place for long while others wait."""

import asyncio
from typing import Any

from serving.body import too_large
from serving.errors import RequestError


class Places:
    """Places for calls that read. gRPC does not tell whether a message has begun to arrive, so only time counts."""

    def __init__(self, count: int, seconds: float, most: int) -> None:
        self.free = asyncio.Semaphore(count)
        self.seconds = seconds  # for which a call surely has its place
        self.most = most  # bytes of a message
        self.waiting = 0
        self.held: dict[asyncio.Timeout, float] = {}  # what ends each reading, and until when it surely has its place

    async def read(self, stream: Any, receive: float) -> bytes:
        """Return the message of a call. Raises RequestError if it is too long (413), or not there in `receive` s (408).

        It waits for a place first, and ends earlier if others wait for its own.
        """
        try:
            async with asyncio.timeout(receive) as limit:
                self.waiting += 1
                self.hurry()
                try:
                    await self.free.acquire()
                finally:
                    self.waiting -= 1
                self.held[limit] = asyncio.get_running_loop().time() + self.seconds
                self.hurry()
                try:
                    content: bytes = await anext(aiter(stream), b"")
                finally:
                    del self.held[limit]
                    self.free.release()
        except TimeoutError as cause:
            late = f"within {receive:g} seconds, or {self.seconds:g} while other calls waited"
            raise RequestError(408, f"the message did not arrive {late}: send it with its call") from cause
        if len(content) > self.most:
            raise too_large(f"{len(content):,}", self.most)
        return content

    def hurry(self) -> None:
        """Let the calls that have places end when they may, if another one waits."""
        if self.waiting and self.free.locked():
            for limit, end in self.held.items():
                if not limit.expired() and (limit.when() or end) > end:
                    limit.reschedule(end)
