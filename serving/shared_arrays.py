"""Hand arrays from one process to another through a file in memory, which both have mapped."""

import mmap
import os
import sys
import tempfile
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

from onnx_release.core.types import Arrays

ALIGNMENT = 64  # bytes: each array begins as it would in memory of its own


class SharedArrays:
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
        if end > os.fstat(self.descriptor).st_size:
            os.ftruncate(self.descriptor, end)
        self.map(end)
        for (_, _, _, start), array in zip(layout, arrays.values(), strict=True):
            self.view(array.dtype, array.shape, start)[...] = array
        return layout

    def read(self, layout: list[Any]) -> Arrays:
        """Return copies of the arrays that `write` has placed so."""
        sizes = [start + np.dtype(dtype).itemsize * int(np.prod(shape)) for _, dtype, shape, start in layout]
        self.map(max(sizes, default=0))
        return {name: self.view(np.dtype(dtype), tuple(shape), start).copy() for name, dtype, shape, start in layout}

    def view(self, dtype: np.dtype[Any], shape: tuple[int, ...], start: int) -> np.ndarray:
        return np.ndarray(shape, dtype, self.memory, start)

    def map(self, size: int) -> None:
        if size > len(self.memory):
            self.memory = mmap.mmap(self.descriptor, size)

    def close(self) -> None:
        os.close(self.descriptor)


def attach(descriptor: Any) -> SharedArrays:
    return SharedArrays(descriptor.detach())


def memory_file() -> int:
    """Open a file in memory, or where the system has none a file without a name; return its descriptor."""
    if sys.platform == "linux":
        return os.memfd_create("serving-arrays", os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
