"""Whether PyTorch eager is the same program on both sides, with the repository's own code in commits of git."""

import shutil
from pathlib import Path

import pytest

from onnx_release.review.comparable import HARNESS, Pair, reached_sources
from onnx_release.review.revisions import load_pair
from tests.imports import ROOT
from tests.revisions import LOCK, LOCKED, MODEL, commit, git, release, revision, write

RUN = "onnx_release/network/hugging_face.py"


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A release with this repository's library and a model, committed on main."""
    folder = tmp_path / "repository"
    write(folder, {path: content for path, content in release().items() if not path.endswith(".py")})
    for name in ("onnx_release", "models/digits_cnn", "models/minilm"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    git(folder, "init", "-q", "-b", "main")
    commit(folder)
    monkeypatch.chdir(folder)
    return folder


def append(path, line="# another\n"):
    Path(path).write_text(Path(path).read_text() + line)


def same(head=None):
    base, after = load_pair("main", head)
    return Pair(base.of_model(MODEL), after.of_model(MODEL)).same_pytorch


def test_what_times_pytorch_is_read_from_the_imports_of_the_harness():
    sources = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in ROOT.glob("onnx_release/**/*.py")}
    found = reached_sources(revision({**release(), **sources}))
    assert {
        HARNESS,
        RUN,
        "onnx_release/timing/worker.py",
        "onnx_release/network/network.py",
        "onnx_release/network/source_network.py",
    } <= {*found}
    assert not {"onnx_release/report/results.py", "onnx_release/review/gates.py", "onnx_release/review/compare.py"} & {
        *found
    }


@pytest.mark.parametrize(
    ("path", "expected", "committed"),
    [
        (RUN, False, True),
        ("onnx_release/network/network.py", False, False),
        ("models/digits_cnn/network.py", False, False),
        ("onnx_release/report/results.py", True, True),
        ("onnx_release/static_quantization/search.py", True, False),
        ("models/minilm/network.py", True, False),
    ],
)
def test_a_change_of_what_runs_pytorch_makes_another_program_and_one_of_the_rest_does_not(
    repository, path, expected, committed
):
    assert same()
    append(path)
    if committed:
        git(repository, "switch", "-q", "-c", "work")
        commit(repository)
    assert same("work" if committed else None) is expected


def test_a_module_that_it_imports_anew_makes_another_program(repository):
    append("onnx_release/network/network.py", "import onnx_release.report.results\n")
    assert not same()


@pytest.mark.parametrize(
    "line",
    [
        b"requirements.txt, md5: d",
        b"models/digits_cnn, md5: a",
        b"data/raw/digits_cnn, md5: b",
        b"data/prepared/digits_cnn/evaluation.npz, md5: c",
    ],
)
def test_other_packages_weights_or_samples_make_another_program(line):
    base, head = release(), release(1)
    assert Pair(revision(base), revision(head)).same_pytorch
    head[LOCK] = head[LOCK].replace(line, line[:-1] + b"z")
    assert not Pair(revision(base), revision(head)).same_pytorch


def test_other_files_of_the_stage_are_none_of_pytorch_s():
    base, head = release(), release(1)
    for line in (b"artifacts/hardware.json, md5: e", b"onnx_release, md5: f"):
        head[LOCK] = head[LOCK].replace(line, line[:-1] + b"z")
    assert Pair(revision(base), revision(head)).same_pytorch


def test_timings_that_were_made_with_other_code_than_the_commit_has_are_of_another_program():
    """The lock knows a module by itself, and it is another one, whatever the files say."""
    base, head = (
        {**files, LOCK: files[LOCK] + b"    - {path: onnx_release/timing/worker.py, md5: " + md5 + b"}\n"}
        for files, md5 in ((release(), b"x"), (release(1), b"y"))
    )
    assert not Pair(revision(base), revision(head)).same_pytorch


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize(
    "less",
    [
        {LOCK: b""},
        {LOCK: LOCKED.replace(b"benchmark", b"optimize")},
        {LOCK: None, "pipelines/digits_cnn_large/dvc.lock": LOCKED, "dvc.lock": LOCKED},
        {"onnx_release/timing/worker.py": b"def ("},
        {"onnx_release/timing/benchmark.py": None},
    ],
)
def test_what_cannot_be_told_is_not_the_same(less, side):
    sides = [release(), release(1)]
    sides[side] |= less
    files = [{path: content for path, content in one.items() if content is not None} for one in sides]
    assert not Pair(*map(revision, files)).same_pytorch
