"""Decode and preprocess uploads in a process of its own, whose memory and CPU time the kernel limits.

No check of a file's bytes finds all that can make a decoder slow or large, and a thread inside a C library cannot be
stopped. A process can: the kernel ends it when its CPU time is over, and refuses memory beyond its limit, whatever the
bytes are. This module imports neither the web framework nor ONNX Runtime, so that such a process is small.
"""

import ctypes
import os
import resource
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson

from onnx_release.core.errors import DataError, InputError
from onnx_release.core.spec import Spec, check_bounds, check_inputs, load_spec
from onnx_release.core.types import Arrays
from onnx_release.data.model_data import load_data
from onnx_release.data.pixel_limit import TooManyPixelsError
from onnx_release.data.samples import input_axes, with_batch_axis
from serving.pictures import FormatError, limit_pictures
from serving.shared_memory import SharedMemory

READY = b"ready\n"
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
# Of an upload: its size in bytes, the place for its arrays, and the seconds of CPU time that it may take.
HEAD = struct.Struct("<QBd")
LEAST_SECONDS = 1e-3  # a timer of 0 would never end


class Limits(NamedTuple):
    """What one upload may be and take: see `Settings`. Bytes and pixels."""

    formats: tuple[str, ...]
    pixels: int
    memory: int
    tensor_bytes: int


def decode_uploads(model: str, limits: Limits, channel: socket.socket, shared: list[SharedMemory]) -> None:
    """Answer each upload with a line of JSON through the channel.

    An upload is in the first of `shared`; HEAD comes through the channel, and says which of the others its arrays go
    to. An answer has `size` (height and width of a picture), `arrays`, and the `seconds` of decode() and preprocess();
    or `status` (of HTTP) and `text`. Returns when the channel closes, which is how the server ends this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, and the server passes it on
    silence_libraries()
    keep_memory()
    limit_pictures(limits.formats, limits.pixels)
    data, spec = load_data(model), load_spec(model)
    limit_memory(limits.memory)
    channel.sendall(READY)
    while True:
        head = channel.recv(HEAD.size, socket.MSG_WAITALL)
        if len(head) < HEAD.size:
            return
        size, place, seconds = HEAD.unpack(head)
        content = shared[0].read_bytes(size)
        signal.setitimer(signal.ITIMER_PROF, max(seconds, LEAST_SECONDS))  # SIGPROF then ends the process
        answer = answer_upload(data, spec, content, shared[place], limits)
        signal.setitimer(signal.ITIMER_PROF, 0)
        del content
        channel.sendall(orjson.dumps(answer) + b"\n")


def silence_libraries() -> None:
    """Keep what C libraries write to stderr, such as libtiff's warnings about an upload, out of the server's log."""
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)


def keep_memory() -> None:
    """Let glibc keep the memory of ordinary photographs for the next one, since the system gives pages anew slowly."""
    with suppress(AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, 4 << 20)
        libc.mallopt(M_TRIM_THRESHOLD, 16 << 20)


def limit_memory(allowed: int) -> None:
    """Let this process take so many bytes more than it has now. On macOS there is no such limit."""
    if sys.platform == "linux":
        lines = Path("/proc/self/status").read_text().splitlines()
        (now,) = (int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        limit = now + allowed if hard == resource.RLIM_INFINITY else min(now + allowed, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


def answer_upload(data: Any, spec: Spec, content: bytes, memory: SharedMemory, limits: Limits) -> dict[str, Any]:
    try:
        began = time.perf_counter()
        item = data.decode(content)
        decoded = time.perf_counter()
        inputs = data.preprocess(item)
        seconds = (decoded - began, time.perf_counter() - decoded)
        inputs = with_batch_axis(inputs, input_axes(spec))
        check_arrays(inputs, limits.tensor_bytes)
        check_declared(spec, inputs)
        return {"size": np.shape(item)[:2], "arrays": memory.write(inputs), "seconds": seconds}
    except BaseException as error:  # the model's code may raise anything, and the request gets it
        status, text = describe_error(error, limits)
        return {"status": status, "text": text}


def check_arrays(inputs: Arrays, tensor_bytes: int) -> None:
    """Raise InputError for what cannot be handed on, or is larger than all tensors of a request may be."""
    for name, array in inputs.items():
        if not isinstance(array, np.ndarray) or array.dtype.hasobject:
            raise InputError(f"{name} is a {type(array).__name__}, not a numpy array of numbers")
    size = sum(array.nbytes for array in inputs.values())
    if size > tensor_bytes:
        raise InputError(f"its tensors have {size:,} bytes, more than the {tensor_bytes:,} of --tensor-bytes")


def check_declared(spec: Spec, inputs: Arrays) -> None:
    """Raise InputError for what the model does not take, or the shared memory would keep the size of it."""
    names = {tensor.name for tensor in spec.inputs}
    if inputs.keys() != names:
        raise InputError(f"the model takes {listed(names)}, and preprocess() gives {listed(inputs) or 'nothing'}")
    sizes: dict[str, int] = {}
    problem = check_inputs(spec, inputs, sizes) or check_bounds(spec, sizes)
    if problem:
        raise InputError(problem)


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def describe_error(error: BaseException, limits: Limits) -> tuple[int, str]:
    """Return the status of HTTP and the text for what decode() or preprocess() raised."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "out of memory" in str(cause).lower():
            return 413, (
                f"decoding it takes more than {limits.memory:,} bytes of memory: make it smaller, or raise --pixels"
            )
        cause = cause.__cause__
    match error:
        case TooManyPixelsError():
            return 413, str(error)
        case FormatError():
            return 415, str(error)
        case DataError() | InputError():
            return 422, str(error)
        case ValueError():  # data.py raises it for bytes that it cannot read
            return 422, f"it cannot be read: {error}"
        case _:
            return 500, "".join(traceback.format_exception(error)).rstrip()
