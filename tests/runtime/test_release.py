"""A release opens only if each of its files is the one that was released."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_release.core.errors import ReleaseFolderError
from onnx_release.core.params import Runtime
from onnx_release.runtime.release import MANIFEST, open_release
from tests.imports import ROOT, imported_files, third_party
from tests.release_project import change_json, make_project, make_release


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return make_release(folder)


@pytest.fixture
def release(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "release")


def refused(folder):
    with pytest.raises(ReleaseFolderError) as caught:
        open_release(folder)
    return str(caught.value)


def with_files(folder, change):
    """Change what the manifest lists."""
    files = json.loads((folder / MANIFEST).read_text())["files"]
    change(files)
    change_json(folder / MANIFEST, {"files": files})


def test_a_release_has_what_a_server_needs(release):
    found = open_release(release)
    assert (found.manifest.model, found.manifest.variant, found.manifest.task) == (
        *("digits_cnn", "int8_static", "classification"),
    )
    assert found.spec.inputs[0].shape == ["batch", 1, 8, 8]
    assert found.labels == list("0123456789")
    assert found.runtime == Runtime(provider="cpu", intra_threads=1)
    assert found.model == release / "model.onnx" and found.model.is_file()


def test_it_may_be_the_current_folder_and_files_of_a_run_may_lie_in_it(release, monkeypatch):
    monkeypatch.chdir(release)
    (release / "onnx_release/__pycache__").mkdir()
    (release / "onnx_release/__pycache__/release.pyc").write_bytes(b"")
    assert open_release(Path()).model == Path("model.onnx")


@pytest.mark.parametrize(
    "name",
    ["model.onnx", "runtime.json", "labels.txt", "models/digits_cnn/data.py", "serving/__main__.py", "MODEL_CARD.md"],
)
def test_one_changed_byte_is_found_in_any_file(release, name):
    content = bytearray((release / name).read_bytes())
    content[len(content) // 2] ^= 1
    (release / name).write_bytes(content)
    text = refused(release)
    assert (
        f"{release / name} is not the file that was released: its sha256 is " in text and "bytes in place" not in text
    )


def test_a_shorter_file_is_named_with_its_size(release):
    size = (release / "model.onnx").stat().st_size
    (release / "model.onnx").write_bytes((release / "model.onnx").read_bytes()[:-1])
    assert f", {size - 1} bytes in place of {size}. Fetch the release again" in refused(release)


@pytest.mark.parametrize("name", ["model.onnx", "onnx_release/runtime/release.py", "serving/page/index.html"])
def test_a_missing_file_is_named(release, name):
    (release / name).unlink()
    assert f"{release / name} is missing: MANIFEST.json lists it" in refused(release)


def test_a_folder_that_is_none_and_one_that_is_no_release_are_refused(tmp_path):
    assert f"there is no folder {tmp_path / 'release'}" in refused(tmp_path / "release")
    assert f"{tmp_path / MANIFEST} is not there: this is not a release" in refused(tmp_path)


def test_a_manifest_that_is_a_folder_is_refused(release):
    (release / MANIFEST).unlink()
    (release / MANIFEST).mkdir()
    assert "cannot be read (Is a directory)" in refused(release)


def test_why_nothing_was_released_is_said(tmp_path):
    (tmp_path / "NOT_RELEASED.txt").write_text("No variant of net may be released:\n- fp32: logits is off\n")
    assert refused(tmp_path) == f"{tmp_path} has no release. No variant of net may be released:\n- fp32: logits is off"


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_manifest_that_is_no_json_is_refused(release, content):
    (release / MANIFEST).write_bytes(content)
    assert f"{release / MANIFEST} is not JSON (" in refused(release)


@pytest.mark.parametrize("content", ["[]", "null", '{"format": 1}'])
def test_json_that_is_no_manifest_is_refused(release, content):
    (release / MANIFEST).write_text(content)
    assert "is not a release's manifest (" in refused(release)


def test_a_manifest_of_a_later_format_is_not_guessed_at(release):
    change_json(release / MANIFEST, {"format": 2})
    assert "has the format 2, and this code reads 1" in refused(release)


def test_a_key_that_is_missing_unknown_or_wrong_is_named(release):
    change_json(release / MANIFEST, {"variants": "fp32", "task": "magic"})
    text = refused(release)
    assert "variants: no such key; did you mean variant?" in text and "task: " in text and "'magic'" in text


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "models/../../x", "./model.onnx", "a\\b", "C:x", "a//b"])
def test_a_path_that_leaves_the_folder_is_refused(release, name):
    (release.parent / "x").write_bytes((release / "model.onnx").read_bytes())
    with_files(release, lambda files: files.update({name: files["model.onnx"]}))
    assert "is outside of the folder" in refused(release)


def test_the_manifest_of_another_model_is_refused(release, tmp_path):
    """Whether it is another release's file, or one whose name was changed."""
    text = (release / MANIFEST).read_text()
    (release / MANIFEST).write_text(text.replace("digits_cnn", "other"))
    assert "is of the model other, but is beside the files of digits_cnn" in refused(release)
    (release / MANIFEST).write_text(text.replace('"model": "digits_cnn"', '"model": "other"'))
    assert "is of the model other, but lists the files of digits_cnn" in refused(release)


@pytest.mark.parametrize("name", ["model.onnx", "runtime.json", "models/digits_cnn/spec.yaml"])
def test_a_manifest_that_leaves_out_what_must_be_checked_is_refused(release, name):
    with_files(release, lambda files: files.pop(name))
    assert f"does not list {name}" in refused(release)


def test_opening_imports_nothing_that_a_release_does_not_bring():
    packages = third_party(imported_files("onnx_release/runtime/release.py"))
    assert packages & {"torch", "onnx", "onnxruntime", "pandas", "scipy", "dvc", "numpy", "jinja2"} == set()
    script = "import sys; import onnx_release.runtime.release; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(loaded.split()) & {"torch", "onnx", "onnxruntime", "pandas", "scipy", "dvc"} == set()
