"""Let a worker that retires lose its connections of gRPC to the next release's workers, with which it shares the port.

gRPC keeps its sockets to itself, and closes the one that listens with all connections that it has not accepted yet. So
the kernel is told to give new ones to others, long before that. This needs Linux; elsewhere it does nothing.
"""

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SO_ATTACH_REUSEPORT_CBPF = 51  # of Linux's asm-generic/socket.h, like BPF_RET | BPF_K of linux/bpf_common.h
BPF_RETURN = 0x06


def leave_port(port: int, workers: int) -> None:
    """Let new connections to the port go to others than those `workers` that have listened for longest.

    The kernel numbers the sockets that share a port (SO_REUSEPORT) as they begin to listen. If one closes, the last
    takes its number, so the number `workers` is never one of the first so many, which close together, while there are
    others; without a socket of that number any may be chosen. https://man7.org/linux/man-pages/man7/socket.7.html
    """
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", BPF_RETURN, 0, 0, workers))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    for sock in own_sockets(port):
        with suppress(OSError):  # it is a connection, which cannot have a program, or the kernel refuses it
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, program)


def has_connections(port: int) -> bool:
    """Return whether this process still has a connection to the port."""
    return any(not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in own_sockets(port))


def own_sockets(port: int) -> Iterator[socket.socket]:
    """Yield each socket of this process that has the port, for as long as the caller looks at it."""
    for path in Path("/proc/self/fd").glob("*"):
        with suppress(OSError), socket.fromfd(int(path.name), socket.AF_INET, socket.SOCK_STREAM) as sock:
            name = sock.getsockname()
            if isinstance(name, tuple) and name[1] == port:
                yield sock
