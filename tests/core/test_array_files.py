"""Archives of arrays: what went in comes out, one array in memory at a time, in the same bytes."""

import gc
import struct
import sys
import time
import tracemalloc
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from onnx_release.core.array_files import ArrayFile, writing_arrays
from onnx_release.core.errors import DataError

ARRAYS: dict[str, np.ndarray] = {
    "float": np.array([[0.1, -0.0], [np.inf, 1e-45]], np.float32),
    "int": np.array([2**62, -1], np.int64),
    "bool": np.array([True, False]),
    "text": np.array(["ä", "cat"]),
    "empty": np.zeros((0, 3), np.uint8),
    "turned": np.arange(6.0).reshape(2, 3).T,  # not contiguous
}


def write(path, arrays):
    with writing_arrays(path) as writer:
        writer.add_all("a", arrays)


def test_arrays_come_back_bit_by_bit(tmp_path):
    write(tmp_path / "a.npz", ARRAYS)
    read = ArrayFile(tmp_path / "a.npz").folder("a")
    assert list(read) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert (read[name].dtype, read[name].shape) == (array.dtype, array.shape)
        assert read[name].tobytes() == array.tobytes()


def test_numpy_reads_the_file_by_itself(tmp_path):
    write(tmp_path / "a.npz", ARRAYS)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as file:
        assert file["a/int"].tolist() == [2**62, -1]


def test_a_folder_holds_what_is_directly_below_it(tmp_path):
    with writing_arrays(tmp_path / "a.npz") as writer:
        writer.add("top", np.array([0]))
        writer.add_all("n=1/float32", {"y": np.array([1])})
        writer.add_all("n=1/float64", {"y": np.array([2]), "z": np.array([3])})
    file = ArrayFile(tmp_path / "a.npz")
    assert file.names == {"": ["top"], "n=1/float32": ["y"], "n=1/float64": ["y", "z"]}
    assert {name: array.tolist() for name, array in file.folder("n=1/float64").items()} == {"y": [2], "z": [3]}
    assert file.array("top").tolist() == [0]


def test_several_threads_may_read(tmp_path):
    array = np.arange(2.0).reshape((2, *[1] * 40))
    write(tmp_path / "a.npz", {"deep": array})
    file = ArrayFile(tmp_path / "a.npz")
    # Python 3.11 fails if another thread runs while it makes a syntax tree, which a collection of garbage allows.
    interval, threshold = sys.getswitchinterval(), gc.get_threshold()
    gc.callbacks.append(pause)
    try:
        sys.setswitchinterval(1e-6)
        gc.set_threshold(1, 1, 1)
        with ThreadPoolExecutor(4) as pool:
            read = list(pool.map(lambda _: file.array("a/deep"), range(1000)))
    finally:
        gc.set_threshold(*threshold)
        sys.setswitchinterval(interval)
        gc.callbacks.remove(pause)
    assert all(np.array_equal(one, array) for one in read)


def pause(phase, info):
    for _ in range(200):
        pass


def test_the_same_arrays_are_the_same_bytes_at_any_time(tmp_path, monkeypatch):
    write(tmp_path / "a.npz", ARRAYS)
    monkeypatch.setattr(time, "time", lambda: 2e9)
    write(tmp_path / "b.npz", ARRAYS)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def npy(array: np.ndarray) -> bytes:
    """What numpy.save writes of a small array."""
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
    header = text.ljust(117) + b"\n"  # with what stands before it, 128 bytes
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + array.tobytes()


# The names of two entries, and the bit that says that a name is UTF-8.
ENTRIES = [("a/x.npy", 0), ("a/ä.npy", 1 << 11)]
PAIR = (np.arange(3, dtype="<i8"), np.array([[0.5, -1]], "<f4"))


def test_the_bytes_are_those_of_the_zip_format(tmp_path):
    """Worked out from PKWARE's APPNOTE, without zipfile, whose versions differ."""
    with writing_arrays(tmp_path / "a.npz") as writer:
        for (name, _), array in zip(ENTRIES, PAIR, strict=True):
            writer.add(name.removesuffix(".npy"), array)
    local = directory = b""
    for (name, flags), array in zip(ENTRIES, PAIR, strict=True):
        content, key = npy(array), name.encode()
        # Needs 2.0; flags; stored; 00:00:00 of 1980-01-01; CRC; both sizes; lengths of the name and of extra fields.
        sizes = (zlib.crc32(content), len(content), len(content), len(key), 0)
        common = struct.pack("<HHHHHIIIHH", 20, flags, 0, 0, 1 << 5 | 1, *sizes)
        # Made by 2.0 on Unix. No comment, on disk 0, no inner attributes; readable to its owner, at this offset.
        made, place = struct.pack("<BB", 20, 3), struct.pack("<HHHII", 0, 0, 0, 0o600 << 16, len(local))
        directory += b"PK\1\2" + made + common + place + key
        local += b"PK\3\4" + common + key + content
    end = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 2, 2, len(directory), len(local), 0)
    assert (tmp_path / "a.npz").read_bytes() == local + directory + end


def test_an_entry_has_fields_of_64_bits_where_its_size_needs_them(tmp_path, monkeypatch):
    array = np.arange(9, dtype=np.uint8)  # 137 bytes as .npy
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", len(npy(array)))
    write(tmp_path / "a.npz", {"fits": array, "large": np.arange(10, dtype=np.uint8)})
    content = (tmp_path / "a.npz").read_bytes()
    headers = {name: content.index(b"PK\3\4", start) for name, start in (("fits", 0), ("large", 4))}
    lengths = {name: struct.unpack_from("<II4xH", content, at + 18)[:2] for name, at in headers.items()}
    extra = content[headers["large"] + 30 + len("a/large.npy") :][:20]
    assert lengths == {"fits": (137, 137), "large": (2**32 - 1, 2**32 - 1)}
    assert extra == struct.pack("<HHQQ", 1, 16, 138, 138)
    assert ArrayFile(tmp_path / "a.npz").array("a/large").tolist() == list(range(10))


def test_memory_holds_one_array_at_a_time(tmp_path):
    size = 1_000_000
    tracemalloc.start()
    try:
        with writing_arrays(tmp_path / "a.npz") as writer:
            for index in range(20):
                writer.add(str(index), np.full(size, index, np.uint8))
        file = ArrayFile(tmp_path / "a.npz")
        for index in range(20):
            assert file.array(str(index))[-1] == index
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * size


def test_a_failure_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.npz"
    write(path, ARRAYS)
    before = path.read_bytes()
    with pytest.raises(KeyboardInterrupt), writing_arrays(path) as writer:
        writer.add("x", np.zeros(1000))
        raise KeyboardInterrupt
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


class RunsCode:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_objects_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="allow_pickle"):
        write(tmp_path / "a.npz", {"x": np.array([RunsCode(tmp_path / "ran")])})
    assert not list(tmp_path.iterdir())


def test_an_object_in_a_file_is_not_loaded(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.array([RunsCode(tmp_path / "ran")]))
    with pytest.raises((DataError, ValueError), match="allow_pickle"):
        ArrayFile(tmp_path / "a.npz").array("x")
    assert not (tmp_path / "ran").exists()
    np.load(tmp_path / "a.npz", allow_pickle=True)["x"]  # it would have
    assert (tmp_path / "ran").exists()


def test_a_file_cut_anywhere_is_named(tmp_path):
    write(tmp_path / "a.npz", {"x": np.arange(3)})
    whole = (tmp_path / "a.npz").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "a.npz").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.npz cannot be read .*run `dvc repro`"):
            ArrayFile(tmp_path / "a.npz")


def test_a_missing_file_is_named():
    with pytest.raises(DataError, match=r"gone\.npz cannot be read .*run `dvc repro`"):
        ArrayFile(Path("gone.npz"))


def test_arrays_are_stored_as_they_are(tmp_path):
    # Compression would cost time on every read, and its bytes depend on the version of zlib.
    write(tmp_path / "a.npz", ARRAYS)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive:
        assert {entry.compress_type for entry in archive.infolist()} == {zipfile.ZIP_STORED}


def test_a_number_without_axes_comes_back_without_axes(tmp_path):
    write(tmp_path / "a.npz", {"x": np.array(3, np.int64)})
    assert ArrayFile(tmp_path / "a.npz").array("a/x").shape == ()


def test_an_array_that_is_damaged_is_named(tmp_path):
    write(tmp_path / "a.npz", {"x": np.arange(100)})
    content = bytearray((tmp_path / "a.npz").read_bytes())
    content[400] ^= 1
    (tmp_path / "a.npz").write_bytes(content)
    file = ArrayFile(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a/x in .*a\.npz cannot be read .*CRC"):
        file.folder("a")
