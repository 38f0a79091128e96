"""Write and read .npz files one array at a time, so that memory does not grow with their number."""

import io
import threading
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from onnx_release.core.errors import DataError
from onnx_release.core.files import replacing

# The exceptions of numpy and zipfile on a damaged file.
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile)
# The layout of a .npy file that numpy itself chooses unless the type of the elements is very long.
NPY_VERSION = (1, 0)
# numpy parses the header of an array with ast, which fails in several threads at once with Python 3.11
# (python/cpython#106905), so one thread reads at a time.
READING = threading.Lock()


def npy_size(array: np.ndarray) -> int:
    """Return the size in bytes of `array` as a .npy file."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.tell() + array.nbytes


class ArrayWriter:
    """Adds arrays to an open archive. numpy.savez would need all of them in memory at once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def add(self, key: str, array: np.ndarray) -> None:
        """Write one array. The same array gives the same bytes on every system and with every version of Python."""
        array = np.asarray(array, order="C")
        info = zipfile.ZipInfo(key + ".npy")  # without a date it gets 1980-01-01
        info.create_system = 3  # Unix, on Windows too
        # Python releases write small entries with 64-bit fields differently (python/cpython#103861), so only an entry
        # that is large enough to need these fields gets them.
        large = npy_size(array) > zipfile.ZIP64_LIMIT
        with self.archive.open(info, "w", force_zip64=large) as entry:
            np.lib.format.write_array(entry, array, version=NPY_VERSION, allow_pickle=False)

    def add_all(self, prefix: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write each array under the key `prefix`/NAME."""
        for name, array in arrays.items():
            self.add(f"{prefix}/{name}", array)


@contextmanager
def writing_arrays(path: Path) -> Iterator[ArrayWriter]:
    """Write an .npz that numpy.load reads, whole or not at all."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        yield ArrayWriter(archive)


class ArrayFile:
    """An .npz file whose arrays are read on demand, by any thread. Raises DataError if it is missing or damaged."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.arrays = np.load(path, allow_pickle=False)
        except DAMAGED as cause:
            raise DataError(f"{path} cannot be read ({cause}): run `dvc repro`") from cause
        self.names: dict[str, list[str]] = {}
        for key in self.arrays.files:
            folder, _, name = key.rpartition("/")
            self.names.setdefault(folder, []).append(name)

    def array(self, key: str) -> np.ndarray:
        """Read the array `key`. Raises DataError if its bytes are damaged."""
        try:
            with READING:
                return self.arrays[key]
        except DAMAGED as cause:
            raise DataError(f"{key} in {self.path} cannot be read ({cause}): run `dvc repro`") from cause

    def folder(self, prefix: str) -> dict[str, np.ndarray]:
        """Read the arrays directly below `prefix`/, by name."""
        return {name: self.array(f"{prefix}/{name}") for name in self.names[prefix]}
