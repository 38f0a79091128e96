"""How fast a client must read: against a real socket, with a clock that the test moves."""

import asyncio
import socket
import struct
import sys
from fcntl import ioctl
from termios import TIOCOUTQ
from typing import cast

import pytest

from serving.reader_clock import ReaderClock
from serving.settings import Settings
from tests.clock import Clock

ANSWER = 40_000_000  # bytes, more than the sockets hold
RATE, RECEIVE = 50_000, 10.0


async def turns():
    """Let the loop see what has happened."""
    for _ in range(5):
        await asyncio.sleep(0)


async def reading(rate):
    """Return how many bytes a client has read that reads at this rate, once it loses its connection or has all."""
    loop = cast(Clock, asyncio.get_running_loop())
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname())
        accepted, _ = listening.accept()
    accepted.setblocking(False)
    with client:
        transport, _ = await loop.connect_accepted_socket(asyncio.Protocol, accepted)
        transport.write(bytes(ANSWER))
        ReaderClock(transport, loop, Settings(receive=RECEIVE, receive_rate=RATE)).start()
        read = 0
        while transport.get_write_buffer_size() and not transport.is_closing():
            before, part = kept(accepted), 0
            while part < rate * RECEIVE:
                part += len(client.recv(int(rate * RECEIVE) - part))
            while part and not transport.is_closing() and kept(accepted) == before:
                await turns()  # until the kernel has learned of it
            read += part
            loop.ahead += RECEIVE
            await turns()
        transport.abort()
    return read


def kept(sock):
    return struct.unpack("i", ioctl(sock.fileno(), TIOCOUTQ, bytes(4)))[0]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says what the kernel keeps of an answer")
@pytest.mark.parametrize(("rate", "enough"), [(2 * RATE, True), (0, False)])
def test_a_client_keeps_its_connection_if_it_reads_at_the_rate(rate, enough):
    with asyncio.Runner(loop_factory=Clock) as runner:
        read = runner.run(reading(rate))
    assert (read > ANSWER / 2) == enough
