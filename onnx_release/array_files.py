""".npz files that are written and read one array at a time, so that memory does not grow with their number."""

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from onnx_release.errors import DataError
from onnx_release.files import replacing

# What numpy and zipfile raise on a damaged file.
DAMAGED = (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile)


class ArrayWriter:
    """Adds arrays to an open archive. numpy.savez would want all of them in memory at once."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def add(self, key: str, array: np.ndarray) -> None:
        # A ZipInfo without a date gets 1980-01-01: the same arrays are the same bytes.
        with self.archive.open(zipfile.ZipInfo(key + ".npy"), "w", force_zip64=True) as entry:
            np.lib.format.write_array(entry, np.asarray(array, order="C"), allow_pickle=False)

    def add_all(self, prefix: str, arrays: Mapping[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            self.add(f"{prefix}/{name}", array)


@contextmanager
def writing_arrays(path: Path) -> Iterator[ArrayWriter]:
    """Write an .npz that numpy.load reads, whole or not at all."""
    with replacing(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED) as archive:
        yield ArrayWriter(archive)


class ArrayFile:
    """An .npz whose arrays are read when they are asked for. Raises DataError if it is missing or damaged."""

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
        """Raises DataError if its bytes are damaged."""
        try:
            return self.arrays[key]
        except DAMAGED as cause:
            raise DataError(f"{key} in {self.path} cannot be read ({cause}): run `dvc repro`") from cause

    def folder(self, prefix: str) -> dict[str, np.ndarray]:
        """The arrays directly below `prefix`/, by name."""
        return {name: self.array(f"{prefix}/{name}") for name in self.names[prefix]}
