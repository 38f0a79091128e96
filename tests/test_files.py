"""Files are whole or not there at all, and the same content is the same bytes."""

import errno

import pytest

from onnx_release.errors import DataError
from onnx_release.files import read_json, replacing, replacing_folder, sha256, size_mb, write_json, write_text


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
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "metrics.json", {"a": value})
    assert not list(tmp_path.iterdir())


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
