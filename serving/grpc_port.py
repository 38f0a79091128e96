"""Let a worker that retires lose its connections of gRPC to the next release's workers, with which it shares the port.

gRPC keeps its sockets to itself, and closes the one that listens with all connections that it has not accepted yet. So
the kernel is told to give new ones to others, long before that. This needs Linux; elsewhere it does nothing.

The kernel numbers the sockets that share a port (SO_REUSEPORT) as they begin to listen, and a program of classic BPF
says which number gets a connection; it is one for all of them. Where no socket has the number, any may be chosen.
https://man7.org/linux/man-pages/man7/socket.7.html, https://docs.kernel.org/networking/filter.html
"""

import ctypes
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

SO_ATTACH_REUSEPORT_CBPF = 51  # of Linux's asm-generic/socket.h
# Of linux/bpf_common.h and linux/filter.h, on the accumulator: a random number, % K, + K, return it, return K.
LOAD, MODULO, ADD, RETURN_IT, RETURN = 0x20, 0x94, 0x04, 0x16, 0x06
RANDOM = 0xFFFFF038  # SKF_AD_OFF + SKF_AD_RANDOM


def leave_port(port: int, workers: int) -> None:
    """Let new connections to the port go to all others than those `workers` that have listened for longest.

    Those have the first numbers, and as many others the next. It holds until one of them closes; `leave_port_to_one`
    comes before that.
    """
    attach(port, [(LOAD, RANDOM), (MODULO, workers), (ADD, workers), (RETURN_IT, 0)])


def leave_port_to_one(port: int, workers: int) -> None:
    """Let new connections go to one other than those `workers`, also while these close one after the other.

    If a socket closes, the last takes its number. So the number `workers` is never one of those, and once they are all
    gone no socket has it: the kernel then divides the connections among the others.
    """
    attach(port, [(RETURN, workers)])


def attach(port: int, program: list[tuple[int, int]]) -> None:
    """Give the program, whose instructions are pairs of code and K, to the sockets that share the port."""
    code = b"".join(struct.pack("HBBI", operation, 0, 0, value) for operation, value in program)
    instructions = ctypes.create_string_buffer(code)
    given = struct.pack("HP", len(program), ctypes.addressof(instructions))
    for sock in own_sockets(port):
        with suppress(OSError):  # it is a connection, which cannot have a program, or the kernel refuses it
            sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, given)


def has_connections(port: int) -> bool:
    """Return whether this process still has a connection to the port."""
    return any(not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) for sock in own_sockets(port))


def own_sockets(port: int) -> Iterator[socket.socket]:
    """Yield each socket of this process that has the port, for as long as the caller looks at it."""
    for path in Path("/proc/self/fd").glob("*"):
        if not path.is_socket():  # fromfd() would leave its copy of a file open
            continue
        with suppress(OSError), socket.fromfd(int(path.name), socket.AF_INET, socket.SOCK_STREAM) as sock:
            name = sock.getsockname()
            if isinstance(name, tuple) and name[1] == port:
                yield sock
