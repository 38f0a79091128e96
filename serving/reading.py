"""Let few calls of gRPC read their message at once, and none of them keep its place for long while others wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Places:
    """Places for calls that read. gRPC does not tell whether a message has begun to arrive, so only time counts."""

    def __init__(self, count: int, seconds: float) -> None:
        self.free = asyncio.Semaphore(count)
        self.seconds = seconds  # for which a call surely has its place
        self.waiting = 0
        self.held: dict[asyncio.Timeout, float] = {}  # what ends each reading, and since when it has had its place

    @asynccontextmanager
    async def take(self, limit: asyncio.Timeout) -> AsyncIterator[None]:
        """Wait for a place, and have it during the block. `limit` is around both, and ends earlier if others wait."""
        self.waiting += 1
        self.hurry()
        try:
            await self.free.acquire()
        finally:
            self.waiting -= 1
        self.held[limit] = asyncio.get_running_loop().time()
        if self.waiting:
            self.hurry()
        try:
            yield
        finally:
            del self.held[limit]
            self.free.release()

    def hurry(self) -> None:
        """Let the calls that have places end after `seconds`, unless there is a place for the next one."""
        if not self.free.locked():
            return
        for limit, since in self.held.items():
            end, present = since + self.seconds, limit.when()
            if not limit.expired() and present is not None and present > end:
                limit.reschedule(end)
