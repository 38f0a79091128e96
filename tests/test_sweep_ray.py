"""A sweep on a Ray cluster: two nodes on this machine, a bare git repository and a folder as the remotes.

The repository of these tests is made here, with stages that take no time; git, DVC and Ray are the real ones. Two
nodes of one machine have a TMPDIR each, in which a node keeps its clones and its cache.
"""

import errno
import os
import subprocess
import sys
import threading
from pathlib import Path

import dvc
import psutil
import pytest
from ruamel.yaml import YAML

from onnx_release import sweep_node, sweep_ray
from onnx_release.errors import SweepError
from onnx_release.sweep_node import JobError, Outcome, call, wrong_versions
from onnx_release.sweep_plan import Experiment
from onnx_release.sweep_ray import make_job, run_plan

WORK = """
import json, os, signal, sys
from pathlib import Path
from ruamel.yaml import YAML

stage, params = sys.argv[1], YAML(typ="safe").load(Path("params.yaml").read_text())
with open(os.environ["SWEEP_LOG"], "a") as log:
    log.write(f"{stage} {params['rows']} {params['rate']} {os.environ.get('OMP_NUM_THREADS')}\\n")
if stage == "train" and "SWEEP_DOOMED" in os.environ:
    Path(os.environ["SWEEP_DOOMED"]).write_text("begun")  # a FIFO: whoever reads it knows that the stage runs
    signal.pause()
if params["rate"] < 0:
    sys.exit("a rate below zero")
made = {"prepare": params["rows"], "train": params["rows"] * params["rate"], "report": 0}[stage]
Path(f"{stage}.txt").write_text(str(made))
Path(f"{stage}.json").write_text(json.dumps({"made": made}))
"""
PIPELINE = """
stages:
  prepare:
    cmd: python work.py prepare
    deps: [work.py]
    params: [rows]
    outs: [prepare.txt]
    metrics: [prepare.json: {cache: false}]
  train:
    cmd: python work.py train
    deps: [prepare.txt, work.py]
    params: [rate]
    outs: [train.txt]
    metrics: [train.json: {cache: false}]
  report:
    cmd: python work.py report
    deps: [train.txt, work.py]
    outs: [report.txt]
    metrics: [report.json: {cache: false}]
"""
SETTINGS = "[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = {store}\n"


def git(folder, *arguments):
    result = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("ray")


@pytest.fixture(scope="module")
def project(home):
    """A repository whose base revision has run, with all of it on the two remotes."""
    folder = home / "project"
    folder.mkdir()
    files = {
        "work.py": WORK,
        "dvc.yaml": PIPELINE,
        "params.yaml": "rows: 3\nrate: 1\n",
        "requirements.txt": f"# pinned\ndvc=={dvc.__version__}  # and no other\n",
        ".gitignore": "/*.txt\n!/requirements.txt\n",
        ".dvc/config": SETTINGS.format(store=home / "store"),
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    git(home, "init", "--quiet", "--bare", "origin.git")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "test")
    git(folder, "config", "user.email", "test@example.invalid")
    git(folder, "remote", "add", "origin", str(home / "origin.git"))
    log = {"SWEEP_LOG": str(home / "base.log"), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for command in (["repro", "--quiet"], ["push", "--quiet", "--run-cache"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, env={**os.environ, **log}, check=True)
    git(folder, "add", "-A")
    git(folder, "commit", "--quiet", "-m", "base")
    git(folder, "push", "--quiet", "origin", "main")
    return folder


@pytest.fixture
def inside(project, home, monkeypatch):
    """The working folder is the project's, as it is for the driver, and this machine another node."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("SWEEP_LOG", str(home / "work.log"))
    (home / "here").mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(home / "here"))
    return project


@pytest.fixture(scope="module")
def cluster(home):
    """Two nodes of one CPU each; `doomed` is the one whose training stages never end."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", "/tmp")  # a socket's path is short
        patch.setenv("SWEEP_LOG", str(home / "work.log"))
        os.mkfifo(home / "doomed.fifo")
        for node in ("head", "doomed"):
            (home / node).mkdir()
        found = Cluster()
        found.add_node(num_cpus=1, include_dashboard=False, env_vars={"TMPDIR": str(home / "head")})
        environment = {"TMPDIR": str(home / "doomed"), "SWEEP_DOOMED": str(home / "doomed.fifo")}
        found.doomed = found.add_node(num_cpus=1, env_vars=environment)
        yield found
        found.shutdown()


def experiment(name, rows, rate, targets=("train",), after=()):
    return Experiment(name, {"rows": rows, "rate": rate}, targets, after, timed=False)


PREPARE = experiment("sweep-prepare-1", 5, 1, ("prepare",))
RESULTS = [experiment(f"sweep-{rate}", 5, rate, after=(PREPARE.name,)) for rate in (2, 3, 4)]
FAILING = experiment("sweep-failing", 5, -1, after=(PREPARE.name,))


def lose(cluster, fifo):
    """End every process of the doomed node at once, as when its machine is lost, as soon as a stage runs on it."""
    assert fifo.read_text() == "begun"
    raylet = psutil.Process(cluster.doomed.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    cluster.remove_node(cluster.doomed, allow_graceful=False)


def names_on_remote(project):
    return sorted(line.rpartition("/")[2] for line in git(project, "ls-remote", "origin", "refs/exps/*").splitlines())


def test_a_lost_node_loses_no_experiment_and_only_its_own_work_is_done_twice(project, inside, home, cluster, capsys):
    base = git(project, "rev-parse", "HEAD")
    loser = threading.Thread(target=lose, args=(cluster, home / "doomed.fifo"), daemon=True)
    loser.start()
    lines = []
    progress = run_plan([PREPARE, *RESULTS, FAILING], base, cluster.address, lines.append)
    loser.join()
    assert set(progress.done) == {PREPARE.name, *(result.name for result in RESULTS)}
    assert set(progress.failed) == {FAILING.name}
    assert "a rate below zero" in progress.failed[FAILING.name]
    assert len(lines) == 5
    assert names_on_remote(project) == sorted(progress.done)
    # Its results are here, and what only prepares is not.
    here = git(project, "for-each-ref", "--format=%(refname:lstrip=4)", "refs/exps/").splitlines()
    assert sorted(here) == sorted(result.name for result in RESULTS)
    for result in RESULTS:
        found = git(project, "show", f"refs/exps/{base[:2]}/{base[2:]}/{result.name}:train.json")
        assert found == f'{{"made": {5 * result.params["rate"]}}}'
    work = (home / "work.log").read_text().splitlines()
    assert work.count("prepare 5 1 1") == 1
    assert sum(line.startswith("prepare") for line in work) == 1
    trained = sorted(line for line in work if line.startswith("train") and line != "train 5 -1 1")
    assert len(trained) == 4  # the lost one twice
    assert set(trained) == {f"train 5 {rate} 1" for rate in (2, 3, 4)}


def test_a_driver_on_another_machine_goes_on_from_the_remotes(project, inside, home, cluster, monkeypatch):
    other = home / "other"
    git(home, "clone", "--quiet", "--branch", "main", str(home / "origin.git"), str(other))
    git(other, "config", "user.name", "test")
    git(other, "config", "user.email", "test@example.invalid")
    monkeypatch.chdir(other)
    more = experiment("sweep-9", 5, 9, after=(PREPARE.name,))
    before = (home / "work.log").read_text()
    progress = run_plan([PREPARE, *RESULTS, more], git(other, "rev-parse", "HEAD"), cluster.address, print)
    assert not progress.failed
    assert progress.done[RESULTS[0].name] == "is there already"
    assert (home / "work.log").read_text().removeprefix(before) == "train 5 9 1\n"
    sweep_ray.pull_data([more.name])
    assert "45" in [path.read_text() for path in (other / ".dvc/cache/files").rglob("*") if path.is_file()]
