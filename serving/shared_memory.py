"""Hand arrays and bytes from one process to another through a file in memory, which both have mapped."""

import math
import mmap
import os
import sys
import tempfile
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

from onnx_release.core.types import Arrays

ALIGNMENT = 64  # bytes: each array begins as it would in memory of its own


class SharedMemory:
    """A file in memory that one process writes and another reads, one after the other.

    It grows with what is written, and ends with the last process that has it open. As an argument of a new process it
    is the same file there.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = memory_file() if descriptor is None else descriptor
        self.memory = mmap.mmap(-1, 1)

    def __reduce__(self) -> Any:
        return attach, (DupFd(self.descriptor),)

    def write(self, arrays: Arrays) -> list[Any]:
        """Replace the contents by these arrays, and return where each is, in the form of JSON."""
        layout: list[Any] = []
        end = 0
        for name, array in arrays.items():
            layout.append([name, array.dtype.str, array.shape, end])
            end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        self.grow(end)
        for (_, _, _, start), array in zip(layout, arrays.values(), strict=True):
            np.ndarray(array.shape, array.dtype, self.memory, start)[...] = array
        return layout

    def read(self, layout: list[Any]) -> tuple[np.ndarray, Arrays]:
        """Return the arrays that `write` has placed so, and the bytes that all of them are views of.

        They change with the next `write`, so the bytes must be gone before it.
        """
        sizes = [start + np.dtype(dtype).itemsize * math.prod(shape) for _, dtype, shape, start in layout]
        self.map(max(sizes, default=0))
        whole = np.frombuffer(self.memory, np.uint8)
        return whole, {name: np.ndarray(shape, np.dtype(dtype), whole, start) for name, dtype, shape, start in layout}

    def write_bytes(self, content: bytes) -> None:
        self.grow(len(content))
        self.memory[: len(content)] = content

    def read_bytes(self, size: int) -> bytes:
        self.map(size)
        return self.memory[:size]

    def grow(self, size: int) -> None:
        if size > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, size)
        self.map(size)

    def map(self, size: int) -> None:
        if size > len(self.memory):
            self.memory = mmap.mmap(self.descriptor, size)

    def close(self) -> None:
        os.close(self.descriptor)


def attach(descriptor: Any) -> SharedMemory:
    return SharedMemory(descriptor.detach())


def memory_file() -> int:
    """Open a file in memory, or where the system has none a file without a name; return its descriptor."""
    if sys.platform == "linux":
        return os.memfd_create("serving-arrays", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
