"""Let connections without a request make room for new ones."""

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.connection import Connection

# A connection may have to make room only after so long without a request: its client may be about to send one.
SPARED_SECONDS = 0.5

# Connections without a request, and since when, by the event loop's time; the one that has waited longest is the first.
idle: "OrderedDict[Connection, float]" = OrderedDict()


def make_room(now: float) -> "Connection | None":
    """Abort the connection that has waited longest for a request, and return it; None if none has waited long enough.

    Otherwise clients who only connect could keep out those who ask, such as Kubernetes for health.
    """
    while idle:
        oldest, since = next(iter(idle.items()))
        if now - since < SPARED_SECONDS:
            return None
        del idle[oldest]
        if not oldest.peer.is_closing() and not oldest.transport.get_write_buffer_size():
            oldest.transport.abort()
            return oldest
    return None
