"""Count the bytes of requests and answers that this process holds, and refuse what there is no room for."""

from serving.errors import BusyError
from serving.settings import Settings


class Memory:
    """The bytes of all bodies of requests, and of all answers that are not sent yet: at most `buffered_bytes`.

    Only the event loop uses it.
    """

    def __init__(self) -> None:
        self.used = 0


memory = Memory()


def no_memory(settings: Settings) -> BusyError:
    """Return the error for bytes that there is no room for now."""
    return BusyError(f"requests with {settings.buffered_bytes:,} bytes are in progress: try again in a second", 1)
