"""A plan runs through DVC's queue, is killed in the middle, and goes on."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from onnx_release.review.revisions import namespace
from onnx_release.sweep.plan import Experiment
from onnx_release.sweep.progress import Progress
from onnx_release.sweep.queue import (
    LOGS,
    failure_reason,
    repeated_work,
    run_on_queue,
    run_wave,
    stages_that_ran,
)
from onnx_release.sweep.repository import (
    CLONE,
    check_repository,
    clone_processes,
    experiment_names,
    git,
    open_clone,
    stop_processes,
)
from tests.clone import with_other_python_first
from tests.imports import ROOT
from tests.sweep_project import make_project

# Of the model m, as in the repository: a stage merges its parameters, and the others depend on those that they read.
MODEL_PIPELINE = """
stages:
  settings:
    wdir: ../..
    cmd: python stage.py artifacts/m/params.json
    deps: [stage.py]
    params: [{params.yaml: }, {models/m/params.yaml: }]
    outs: [artifacts/m/params.json]
  first:
    wdir: ../..
    cmd: python stage.py first.txt
    deps: [stage.py]
    params: [{artifacts/m/params.json: [a]}]
    outs: [first.txt]
"""
PIPELINE = """
stages:
  second:
    matrix: {model: [m]}
    cmd: python stage.py second.txt
    deps: [stage.py, first.txt]
    params: [{artifacts/m/params.json: [b]}]
    outs: [second.txt]
    metrics: [{metrics/m/b.json: {cache: false}}]
"""
STAGE = """
import json, os, sys, time
from pathlib import Path
from ruamel.yaml import YAML
yaml, made = YAML(typ="safe"), Path("artifacts/m/params.json")
if sys.argv[1] == str(made):
    made.parent.mkdir(parents=True, exist_ok=True)
    made.write_text(json.dumps(yaml.load(Path("params.yaml")) | yaml.load(Path("models/m/params.yaml"))))
    sys.exit()
values = {name: str(value) for name, value in json.loads(made.read_text()).items()}
b = values["b"] if sys.argv[1] == "second.txt" else ""
if b == "fail":
    sys.exit("error: b is no good")
if b == "wait":
    Path(os.environ["BEGUN"]).touch()
    while not Path(os.environ["GO"]).exists():
        time.sleep(0.1)
Path(sys.argv[1]).write_text("x" * (2**24 if b == "big" else 1) + values["a"] + b)
Path("metrics/m").mkdir(parents=True, exist_ok=True)
if b:
    Path("metrics/m/b.json").write_text('{"size": %d}' % len(b))
"""
PLAN = [
    Experiment("prepare", "m", {"a": 2}, ("pipelines/m/dvc.yaml:first",), (), timed=False, prepares=True),
    *(
        Experiment(b, "m", {"a": 2, "b": b}, ("second@m",), ("prepare",), timed=b == "timed")
        for b in ("wait", "fail", "big", "timed")
    ),
]
RUN = """
import resource
from onnx_release.sweep.repository import only_sweep
from tests.sweep.test_sweep_queue import *
resource.setrlimit(resource.RLIMIT_FSIZE, (2**23, 2**23))  # a small disk
with only_sweep():
    run_on_queue(PLAN, check_repository(Path("none")), 2, lambda *line: print(*line, sep=": ", flush=True))
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    files = {
        "pipelines/m/dvc.yaml": MODEL_PIPELINE,
        "models/m/params.yaml": "{}\n",
        ".gitignore": "/*.txt\n/artifacts\n",
    }
    monkeypatch.chdir(make_project(tmp_path / "project", {"dvc.yaml": PIPELINE, "stage.py": STAGE, **files}))
    yield
    stop_processes()  # after a failed test, for nobody lets go of what waits


def test_a_sweep_is_killed_and_goes_on_where_it_was(project, tmp_path, monkeypatch):
    with_other_python_first(monkeypatch, tmp_path)
    for name in ("BEGUN", "GO"):
        monkeypatch.setenv(name, str(tmp_path / name))
    base = check_repository(Path("none"))
    head = git("symbolic-ref", "HEAD")
    tool = subprocess.Popen(
        [sys.executable, "-c", RUN],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    said: dict[str, str] = {}
    assert tool.stdout is not None
    for line in tool.stdout:
        name, _, what = line.strip().partition(": ")
        said[name] = what
        if {"prepare", "fail", "big"} <= said.keys() and (tmp_path / "BEGUN").exists():
            break
    tool.kill()
    assert tool.wait() != 0
    assert said["prepare"].startswith("pipelines/m/dvc.yaml:settings, pipelines/m/dvc.yaml:first in ")
    assert said["fail"].startswith("FAILED: error: b is no good")
    assert said["big"].startswith("FAILED: ") and "File too large" in said["big"]
    assert any("stage.py" in " ".join(process.cmdline()) for process in clone_processes())  # waits
    stop_processes()
    assert git("status", "--porcelain") == "" and git("symbolic-ref", "HEAD") == head

    (tmp_path / "GO").touch()
    progress = run_on_queue(PLAN, base, 2, lambda *_: None)
    assert progress.done.pop("prepare") == "there already"
    # What had ended before the kill comes from the run cache.
    assert {name: ran.split(" in ")[0] for name, ran in progress.done.items()} == {
        **dict.fromkeys(("wait", "big"), "second@m"),
        "timed": "pipelines/m/dvc.yaml:settings, second@m",
    }
    assert progress.failed.keys() == {"fail"}
    assert list(progress.done)[-1] == "timed"
    assert experiment_names(base, Path()) == {"wait", "big", "timed"}
    assert experiment_names(base, CLONE) == {"wait", "big", "timed", "prepare"}  # until nothing is left to do
    assert repeated_work(sorted(LOGS.glob("*.log")), Path(".dvc/cache/runs"), set()) == {}
    assert git("status", "--porcelain") == "" and git("symbolic-ref", "HEAD") == head
    result = subprocess.run(
        [sys.executable, "-m", "dvc", "exp", "apply", "big"], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert Path("second.txt").stat().st_size == 2**24 + len("2big")
    assert git("status", "--porcelain", "params.yaml", "models") == " M models/m/params.yaml"
    assert Path("models/m/params.yaml").read_text() == "a: 2\nb: big\n"


def test_a_result_of_a_queue_that_was_discarded_is_taken(project):
    base = check_repository(Path("none"))
    open_clone(base)
    git("update-ref", f"{namespace(base)}/timed", base, cwd=CLONE)
    said = []
    progress = Progress(lambda *line: said.append(line))
    run_wave([PLAN[-1]], base, 1, progress)
    assert progress.done == {"timed": "ran in a queue that was discarded"}
    assert said == [("timed", "ran in a queue that was discarded")]
    assert experiment_names(base, Path()) == {"timed"}
    assert not clone_processes()


@pytest.mark.parametrize(
    ("log", "says"),
    [
        ("> a\nerror: opset\nnote: DVC removed\nERROR: failed to reproduce 'a'\n", "error: opset"),
        ("Traceback:\n  1 / 0\nValueError: x\nERROR: failed to reproduce 'a'\n", "ValueError: x"),
        ("ERROR: failed to reproduce 'a'\nWARNING: files\n", "ERROR: failed to reproduce 'a'"),
        ("something\n", "something"),
        ("", "it printed nothing"),
    ],
)
def test_why_an_experiment_failed_is_the_last_error_of_its_log(tmp_path, log, says):
    path = tmp_path / "x.log"
    path.write_text(log)
    assert failure_reason(path) == f"{says} ({path})"


def test_a_command_that_ran_twice_on_the_same_is_repeated_work(tmp_path):
    log = tmp_path / "x.log"
    log.write_text("Running stage 'hardware':\n> h\nStage 'a' is cached - skipping run\nRunning stage 'b':\n> b\n")
    failed = tmp_path / "failed.log"
    failed.write_text("Running stage 'b':\n> b\nERROR: failed to reproduce 'b'\n")
    assert stages_that_ran(log) == ["hardware", "b"]
    for key in ("known", "new"):
        (tmp_path / "runs/ab" / key).mkdir(parents=True)
        (tmp_path / "runs/ab" / key / "value").write_text("cmd: b\ndeps: []\n")
    assert repeated_work([log, failed], tmp_path / "runs", {"known"}) == {}
    assert repeated_work([log, log, failed], tmp_path / "runs", {"known"}) == {"b": 1}
