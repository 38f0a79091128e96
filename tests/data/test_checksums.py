"""A file is read again if it may have changed, and only then."""

import os
import time

import pytest

from onnx_release.core.files import sha256
from onnx_release.data import checksums as sums
from onnx_release.data.checksums import MEMORY, path_sha256, remembered

HOUR = 3600


@pytest.fixture
def read(tmp_path, monkeypatch):
    """The names of the files that were read, in a DVC repository, on a clock that is an hour ahead of the files'."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    monkeypatch.setattr(time, "time_ns", lambda now=time.time_ns: now() + HOUR * 10**9)
    names = []

    def reading(path):
        names.append(path.name)
        return sha256(path)

    monkeypatch.setattr(sums, "sha256", reading)
    return names


def digest_of(path):
    with remembered() as digest:
        return path_sha256(path, digest)


def test_a_file_is_read_once(tmp_path, read):
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc")
    assert [digest_of(path), digest_of(path)] == [sha256(path)] * 2
    assert read == ["w.pth"]


def overwritten(path):
    path.write_bytes(b"xyz")


def with_its_old_time(path):
    status = path.stat()
    path.write_bytes(b"xyz")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def in_its_place(path):
    status = path.stat()
    path.with_name("new").write_bytes(b"xyz")
    os.utime(path.with_name("new"), ns=(status.st_atime_ns, status.st_mtime_ns))
    path.with_name("new").replace(path)


@pytest.mark.parametrize("change", [overwritten, with_its_old_time, in_its_place])
def test_a_change_of_the_same_length_is_seen(tmp_path, read, change):
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc")
    before = digest_of(path)
    change(path)
    assert digest_of(path) == sha256(path) != before


def test_a_file_that_has_just_changed_may_change_again_and_is_not_remembered(tmp_path, read, monkeypatch):
    path = tmp_path / "w.pth"
    path.write_bytes(b"abc")
    monkeypatch.setattr(time, "time_ns", lambda: path.stat().st_mtime_ns + 10**9)
    digest_of(path)
    digest_of(path)
    assert read == ["w.pth", "w.pth"]
    assert not MEMORY.exists()


def test_of_a_folder_only_the_files_that_changed_are_read(tmp_path, read):
    for name in ("a.jpg", "b.jpg"):
        (tmp_path / "cats").mkdir(exist_ok=True)
        (tmp_path / "cats" / name).write_text(name)
    found = [digest_of(tmp_path / "cats")]
    (tmp_path / "cats/b.jpg").write_text("c.jpg")
    found.append(digest_of(tmp_path / "cats"))
    (tmp_path / "cats/c.jpg").write_text("d.jpg")
    found.append(digest_of(tmp_path / "cats"))
    (tmp_path / "cats/a.jpg").unlink()
    found.append(digest_of(tmp_path / "cats"))
    assert len(set(found)) == 4
    assert read == ["a.jpg", "b.jpg", "b.jpg", "c.jpg"]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff"])
def test_a_damaged_memory_is_begun_anew(tmp_path, read, content):
    MEMORY.parent.mkdir()
    MEMORY.write_bytes(content)
    (tmp_path / "w.pth").write_bytes(b"abc")
    assert digest_of(tmp_path / "w.pth") == digest_of(tmp_path / "w.pth") == sha256(tmp_path / "w.pth")
    assert read == ["w.pth"]


def test_outside_of_a_repository_nothing_is_written(tmp_path, read):
    (tmp_path / ".dvc").rmdir()
    (tmp_path / "w.pth").write_bytes(b"abc")
    digest_of(tmp_path / "w.pth")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]
