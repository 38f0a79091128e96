"""Count the bytes of requests and answers that this process holds, and refuse what there is no room for."""

from serving.errors import BusyError, RequestError
from serving.settings import Settings

UNCOUNTED_BYTES = 65536  # of an answer that is sent however full the memory is, such as those for health


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


def check_answer(size: int, settings: Settings) -> None:
    """Raise RequestError (413) for an answer of `size` bytes that never has room, and BusyError if it has none now."""
    limit = settings.buffered_bytes
    if size > limit:
        text = f"the answer has {size:,} bytes, and --buffered-bytes has room for {limit:,}: ask for less at once"
        raise RequestError(413, text)
    if memory.used + size > limit:
        raise no_memory(settings)
