"""Files are whole or not there at all, and the same content is the same bytes."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from onnx_release.core.errors import DataError
from onnx_release.core.files import (
    read_json,
    replacing,
    replacing_folder,
    sha256,
    size_mb,
    write_json,
    write_rows,
    write_text,
)
from tests.imports import ROOT


def test_a_failed_write_leaves_the_earlier_file_and_nothing_else(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_text("earlier")
    with pytest.raises(RuntimeError), replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failed_folder_leaves_the_earlier_folder(tmp_path):
    folder = tmp_path / "export"
    with replacing_folder(folder) as partial:
        (partial / "model.onnx").write_text("earlier")
    with pytest.raises(KeyboardInterrupt), replacing_folder(folder) as partial:
        (partial / "model.onnx").write_text("half")
        raise KeyboardInterrupt
    assert (folder / "model.onnx").read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [folder]


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "export"
    for name in ("first", "second"):
        with replacing_folder(folder) as partial:
            (partial / name).write_text(name)
    assert [path.name for path in folder.iterdir()] == ["second"]
    assert list(tmp_path.iterdir()) == [folder]


def test_what_a_killed_run_left_does_not_get_into_the_next_one(tmp_path):
    (tmp_path / "export.partial").mkdir()
    (tmp_path / "export.partial/old").write_text("old")
    with replacing_folder(tmp_path / "export") as partial:
        (partial / "new").write_text("new")
    assert [path.name for path in (tmp_path / "export").iterdir()] == ["new"]


def test_a_full_disk_is_reported_with_the_name_of_the_file(tmp_path):
    with pytest.raises(OSError, match="No space") as caught, replacing(tmp_path / "model.onnx"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.filename == str(tmp_path / "model.onnx")


def full_disk(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_disk_that_fills_up_leaves_the_earlier_json(tmp_path, monkeypatch):
    path = tmp_path / "metrics.json"
    write_json(path, {"a": 1})
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(OSError, match="No space") as caught:
        write_json(path, {"a": 2})
    assert caught.value.filename == str(path)
    monkeypatch.undo()
    assert read_json(path) == {"a": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_rename_that_fails_leaves_the_earlier_file(tmp_path, monkeypatch):
    path = tmp_path / "page.md"
    write_text(path, "earlier")
    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "later")
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


OVER_THE_LIMIT = """
import resource
from pathlib import Path
from onnx_release.core.files import replacing_folder, write_text

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
write_text(Path("small.md"), "x" * 10_000)
try:
    write_text(Path("page.md"), "x" * 10_001)
except OSError as error:
    print(error.filename)
try:
    with replacing_folder(Path("export")) as partial:
        write_text(partial / "a", "x")
        (partial / "model.onnx").write_bytes(bytes(10_001))
except OSError as error:
    print(error.filename)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_where_the_system_refuses_to_write_the_earlier_results_stay(tmp_path):
    write_text(tmp_path / "page.md", "earlier")
    write_text(tmp_path / "export/model.onnx", "earlier")
    command = [sys.executable, "-c", OVER_THE_LIMIT]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["page.md", "export"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export", "page.md", "small.md"]
    assert (tmp_path / "page.md").read_text() == "earlier"
    assert [(path.name, path.read_text()) for path in (tmp_path / "export").iterdir()] == [("model.onnx", "earlier")]


def test_the_folders_above_a_file_are_made(tmp_path):
    write_text(tmp_path / "a/b/c.md", "text")
    assert (tmp_path / "a/b/c.md").read_text() == "text"


def test_the_same_values_in_another_order_are_the_same_bytes(tmp_path):
    write_json(tmp_path / "a.json", {"x": 1, "y": {"b": 0.1, "a": "ä"}})
    write_json(tmp_path / "b.json", {"y": {"a": "ä", "b": 0.1 + 1e-12}, "x": 1})
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    assert "ä".encode() in (tmp_path / "a.json").read_bytes()


def test_six_digits_are_significant_ones(tmp_path):
    write_json(tmp_path / "a.json", [1234567.89, 0.000123456789, -2.0000004, 1e-300, (0.1 + 0.2,)])
    assert read_json(tmp_path / "a.json") == [1234570.0, 0.000123457, -2.0, 1e-300, [0.3]]


def test_json_has_sorted_keys_and_six_digits(tmp_path):
    path = tmp_path / "metrics.json"
    write_json(path, {"b": 1.23456789, "a": {"z": [0.1 + 0.2], "y": None, "x": True, "w": 12345678}})
    assert path.read_bytes() == (
        b'{\n  "a": {\n    "w": 12345678,\n    "x": true,\n    "y": null,\n    "z": [\n      0.3\n    ]\n  },\n'
        b'  "b": 1.23457\n}\n'
    )
    assert read_json(path) == {"a": {"w": 12345678, "x": True, "y": None, "z": [0.3]}, "b": 1.23457}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_json_has_no_word_for_nan(tmp_path, value):
    write_json(tmp_path / "metrics.json", {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "metrics.json", {"a": {"b": [value]}})
    assert read_json(tmp_path / "metrics.json") == {"a": 1}
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(("content", "message"), [(None, "is not there: run `dvc repro`"), ("{", "is not JSON")])
def test_a_missing_or_damaged_json_file_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=rf"a\.json {message}"):
        read_json(tmp_path / "a.json")


def test_text_has_unix_line_ends_and_utf_8(tmp_path):
    write_text(tmp_path / "page.md", "ä\nb\n")
    assert (tmp_path / "page.md").read_bytes() == b"\xc3\xa4\nb\n"


def test_sums_and_sizes(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/a").write_bytes(b"abc")
    (tmp_path / "folder/b").write_bytes(bytes(1_499_997))
    # The test vector of FIPS 180-2.
    assert sha256(tmp_path / "folder/a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert size_mb(tmp_path / "folder") == 1.5
    assert size_mb(tmp_path / "folder/a") == 3e-6


def test_a_rename_that_fails_leaves_the_earlier_folder(tmp_path, monkeypatch):
    folder = tmp_path / "export"
    write_text(folder / "model.onnx", "earlier")
    rename = Path.rename

    def fails(path, target):
        if path.name == "export.partial":
            raise OSError(errno.EIO, "broken disk")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(OSError, match="broken disk"), replacing_folder(folder) as partial:
        (partial / "model.onnx").write_text("later")
    assert (folder / "model.onnx").read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [folder]


def test_rows_are_csv_with_floats_of_six_digits_and_nothing_for_none(tmp_path):
    rows: list[dict[str, object]] = [
        {"node": "a,b", "ms": 1234.56789, "runs": 1234567},
        {"node": "c", "ms": None, "runs": np.float64(2.0)},
    ]
    write_rows(tmp_path / "made/rows.csv", rows)
    assert (tmp_path / "made/rows.csv").read_bytes() == b'node,ms,runs\n"a,b",1234.57,1234567\nc,,2\n'
