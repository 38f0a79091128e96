"""Which of the sockets that share a port get its new connections, while those of the release before close."""

import socket
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from serving.grpc_port import has_connections, leave_port, leave_port_to_one

CONNECTIONS = 200

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a program choose the socket")


def listener(port=0):
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen(CONNECTIONS)
    sock.setblocking(False)
    return sock


def taken(sock):
    """How many connections wait at a socket, which loses them."""
    count = 0
    with suppress(BlockingIOError):
        while True:
            sock.accept()[0].close()
            count += 1
    return count


def shares(port, sockets):
    """How many of new connections each socket gets."""
    with ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        return [taken(sock) for sock in sockets]


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("order", [1, -1], ids=["first to last", "last to first"])
def test_only_the_next_release_gets_connections_and_all_of_its_workers_do(workers, order):
    with ExitStack() as stack:
        first = stack.enter_context(listener())
        port = first.getsockname()[1]
        old, new = [first], list[socket.socket]()
        for group, count in ((old, workers - 1), (new, workers)):
            group += [stack.enter_context(listener(port)) for _ in range(count)]
        leave_port(port, workers)
        got = shares(port, old + new)
        assert got[:workers] == [0] * workers
        assert min(got[workers:]) > CONNECTIONS / workers / 3  # by chance it is less once in many million runs
        for sock in old[::order]:
            leave_port_to_one(port, workers)
            sock.close()
            left = [other for other in old if other.fileno() >= 0]
            got = shares(port, left + new)
            assert got[: len(left)] == [0] * len(left)
            assert sum(got) == CONNECTIONS
        assert min(got) > CONNECTIONS / workers / 3


def test_to_look_for_connections_leaves_no_file_open():
    """A worker that retires does it many times a second."""
    with listener() as sock:
        port = sock.getsockname()[1]
        before = len(list(Path("/proc/self/fd").iterdir()))
        assert not has_connections(port)
        with socket.create_connection(("127.0.0.1", port)), sock.accept()[0]:
            assert has_connections(port)
        assert len(list(Path("/proc/self/fd").iterdir())) == before
