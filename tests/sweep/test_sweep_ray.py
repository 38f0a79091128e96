"""A sweep on a Ray cluster: two nodes on this machine, a bare git repository and a folder as the remotes.

The repository of these tests is made here, with stages that take no time; git, DVC and Ray are the real ones. Two
nodes of one machine have a TMPDIR each, in which a node keeps its clones and its cache.
"""

import errno
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import dvc
import psutil
import pytest
from ruamel.yaml import YAML

from onnx_release.core.errors import SweepError
from onnx_release.sweep import node as sweep_node
from onnx_release.sweep import ray as sweep_ray
from onnx_release.sweep.node import NodeError, NodeOutcome, run_command, wrong_versions
from onnx_release.sweep.plan import Experiment
from onnx_release.sweep.ray import make_job, run_on_ray
from tests.clone import make_clone, path_with_python
from tests.imports import ROOT
from tests.in_process import run_here
from tests.revisions import commit, git

WORK = """
import json, os, signal, sys
from pathlib import Path
from ruamel.yaml import YAML

stage, yaml, merged = sys.argv[1], YAML(typ="safe"), Path("artifacts/m/params.json")
if stage == "settings":
    merged.parent.mkdir(parents=True, exist_ok=True)
    merged.write_text(json.dumps(yaml.load(Path("params.yaml")) | yaml.load(Path("models/m/params.yaml"))))
    sys.exit()
if stage == "hardware":
    Path("hardware.txt").write_text(os.environ.get("TMPDIR", "here"))  # each node is another machine
    sys.exit()
params = json.loads(merged.read_text())
with open(os.environ["SWEEP_LOG"], "a") as log:
    log.write(f"{stage} {params['rows']} {params['rate']} {os.environ.get('OMP_NUM_THREADS')}\\n")
if stage == "train" and "SWEEP_DOOMED" in os.environ:
    Path(os.environ["SWEEP_DOOMED"]).write_text("begun")  # a FIFO: whoever reads it knows that the stage runs
    signal.pause()
if params["rate"] < 0:
    sys.exit("a rate below zero")
made = {"prepare": params["rows"], "train": params["rows"] * params["rate"], "report": 0}[stage]
Path(f"{stage}.txt").write_text(str(made))
if stage == "train":
    Path("network").mkdir(exist_ok=True)
    Path("network/weights.txt").write_text(f"weights {made}")
Path(f"{stage}.json").write_text(json.dumps({"made": made}))
"""
# Of the model m, as in the repository: a stage merges its parameters, and the others depend on those that they read.
MACHINE_PIPELINE = """
stages:
  hardware: {cmd: python work.py hardware, wdir: .., always_changed: true, deps: [work.py], outs: [hardware.txt]}
"""
MODEL_PIPELINE = """
stages:
  settings:
    wdir: ../..
    cmd: python work.py settings
    deps: [work.py, hardware.txt]
    params: [{params.yaml: }, {models/m/params.yaml: }]
    outs: [artifacts/m/params.json]
  prepare:
    wdir: ../..
    cmd: python work.py prepare
    deps: [work.py]
    params: [{artifacts/m/params.json: [rows]}]
    outs: [prepare.txt]
    metrics: [prepare.json: {cache: false}]
  train:
    wdir: ../..
    cmd: python work.py train
    deps: [prepare.txt, work.py]
    params: [{artifacts/m/params.json: [rate]}]
    outs: [train.txt, network]
    metrics: [train.json: {cache: false}]
"""
PIPELINE = """
stages:
  report:
    cmd: python work.py report
    deps: [train.txt, work.py]
    outs: [report.txt]
    metrics: [report.json: {cache: false}]
"""
TRAIN = "pipelines/m/dvc.yaml:train"
AUTHOR = ("test", "test@example.invalid")
SETTINGS = "[core]\n    analytics = false\n    remote = store\n['remote \"store\"']\n    url = {store}\n"


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
        "stages/dvc.yaml": MACHINE_PIPELINE,
        "pipelines/m/dvc.yaml": MODEL_PIPELINE,
        "params.yaml": "rows: 3\nrate: 1\n",
        "models/m/params.yaml": "{}\n",
        "requirements.txt": f"# pinned\ndvc=={dvc.__version__}  # and no other\n",
        ".gitignore": "/*.txt\n!/requirements.txt\n/artifacts\n/network\n",
        ".dvc/config": SETTINGS.format(store=home / "store"),
        ".dvc/.gitignore": "/config.local\n/tmp\n/cache\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    git(home, "init", "--quiet", "--bare", "origin.git")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "config", "user.name", "test")
    git(folder, "config", "user.email", "test@example.invalid")
    git(folder, "remote", "add", "origin", str(home / "origin.git"))
    log = {
        "SWEEP_LOG": str(home / "base.log"),
        "PATH": path_with_python(),
    }
    for command in (["repro", "--quiet"], ["push", "--quiet", "--run-cache"]):
        subprocess.run([sys.executable, "-m", "dvc", *command], cwd=folder, env={**os.environ, **log}, check=True)
    commit(folder, "base")
    git(folder, "push", "--quiet", "origin", "main")
    return folder


@pytest.fixture
def inside(project, home, monkeypatch):
    """The working folder is the project's, as it is for the driver, and this machine another node."""
    monkeypatch.chdir(project)
    monkeypatch.setenv("SWEEP_LOG", str(home / "work.log"))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # as tests/conftest.py has set it
    (home / "here").mkdir(exist_ok=True)
    monkeypatch.setattr("tempfile.tempdir", str(home / "here"))
    return project


@pytest.fixture(scope="module")
def cluster(home):
    """A cluster of two nodes with a CPU each, and the second of them, whose training stages never end."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.delenv("OMP_NUM_THREADS", raising=False)  # as tests/conftest.py has set it
        patch.setenv("RAY_TMPDIR", "/tmp")  # a socket's path is short
        patch.setenv("SWEEP_LOG", str(home / "work.log"))
        os.mkfifo(home / "doomed.fifo")
        for node in ("head", "doomed"):
            (home / node).mkdir()
        found = Cluster()
        found.add_node(num_cpus=1, include_dashboard=False, env_vars={"TMPDIR": str(home / "head")})
        environment = {"TMPDIR": str(home / "doomed"), "SWEEP_DOOMED": str(home / "doomed.fifo")}
        yield found, found.add_node(num_cpus=1, env_vars=environment)
        found.shutdown()


def experiment(name, rows, rate, after=(), timed=False):
    return Experiment(name, "m", {"rows": rows, "rate": rate}, (TRAIN,), after, timed)


PREPARE = Experiment(
    "sweep-prepare-1", "m", {"rows": 5, "rate": 1}, ("pipelines/m/dvc.yaml:prepare",), (), timed=False, prepares=True
)
RESULTS = [experiment(f"sweep-{rate}", 5, rate, after=(PREPARE.name,)) for rate in (2, 3)]
FAILING = experiment("sweep-failing", 5, -1, after=(PREPARE.name,))


def lose(cluster, node, fifo):
    """End every process of the doomed node at once, as when its machine is lost, as soon as a stage runs on it."""
    assert fifo.read_text() == "begun"
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [raylet, *raylet.children(recursive=True)]:
        process.kill()
    cluster.remove_node(node, allow_graceful=False)


def names_on_remote(project):
    return sorted(line.rpartition("/")[2] for line in git(project, "ls-remote", "origin", "refs/exps/*").splitlines())


def test_a_lost_node_loses_no_experiment_and_only_its_own_work_is_done_twice(project, inside, home, cluster):
    base = git(project, "rev-parse", "HEAD")
    loser = threading.Thread(target=lose, args=(*cluster, home / "doomed.fifo"), daemon=True)
    loser.start()
    lines: list[tuple[str, str]] = []
    progress = run_on_ray([PREPARE, *RESULTS, FAILING], base, cluster[0].address, lambda *line: lines.append(line))
    loser.join(timeout=60)
    assert not loser.is_alive()
    assert set(progress.done) == {PREPARE.name, *(result.name for result in RESULTS)}
    assert set(progress.failed) == {FAILING.name}
    assert "a rate below zero" in progress.failed[FAILING.name]
    assert {name for name, _ in lines} == progress.done.keys() | progress.failed.keys() and len(lines) == 4
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
    trained = [line for line in work if line.startswith("train")]
    assert len(trained) == 4  # the lost one twice
    assert set(trained) == {f"train 5 {rate} 1" for rate in (2, 3, -1)}


def test_a_driver_on_another_machine_goes_on_from_the_remotes(project, inside, home, cluster, monkeypatch):
    other = home / "other"
    git(home, "clone", "--quiet", "--branch", "main", str(home / "origin.git"), str(other))
    git(other, "config", "user.name", "test")
    git(other, "config", "user.email", "test@example.invalid")
    monkeypatch.chdir(other)
    more = experiment("sweep-9", 5, 9, after=(PREPARE.name,), timed=True)
    before = (home / "work.log").read_text()
    progress = run_on_ray([PREPARE, *RESULTS, more], git(other, "rev-parse", "HEAD"), cluster[0].address, print)
    assert not progress.failed
    assert progress.done[RESULTS[0].name] == "there already"
    assert (home / "work.log").read_text().removeprefix(before) == "train 5 9 None\n"  # timed: on all threads
    sweep_ray.pull_data([more.name])
    assert "45" in [path.read_text() for path in (other / ".dvc/cache/files").rglob("*") if path.is_file()]


def test_a_node_with_another_environment_ends_the_sweep_with_one_error(project, home, cluster, tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    git(home, "clone", "--quiet", "--branch", "main", str(home / "origin.git"), str(clone))
    git(clone, "config", "user.name", "test")
    git(clone, "config", "user.email", "test@example.invalid")
    (clone / "requirements.txt").write_text("dvc==1.0.0\n")
    git(clone, "commit", "--quiet", "--all", "-m", "another version")
    git(clone, "push", "--quiet", "origin", "HEAD:refs/heads/other")
    monkeypatch.chdir(clone)
    with pytest.raises(
        SweepError, match=f"environment of .* not the repository's: .* dvc {dvc.__version__} and not 1.0.0"
    ):
        run_on_ray(RESULTS, git(clone, "rev-parse", "HEAD"), cluster[0].address, print)


def test_a_result_that_is_pushed_is_taken_and_never_replaced(project, inside, home):
    """A worker that dies after the push is tried again; of two attempts at once, the first to push counts."""
    base = git(project, "rev-parse", "HEAD")
    job = make_job(experiment("sweep-twice", 3, 7), set(), base, str(home / "origin.git"), AUTHOR)
    assert sweep_node.run_job(job).state == "ran"
    first = git(project, "ls-remote", "origin", f"{job.refs}/{job.name}")
    assert sweep_node.run_job(job).state == "found"
    with sweep_node.job_folder() as folder:
        clone = sweep_node.clone_base(job, folder)
        before = sweep_node.locked_stages(clone)
        sweep_node.run_experiment(job, clone)
        assert not sweep_node.push_result(job, clone, before)
    assert git(project, "ls-remote", "origin", f"{job.refs}/{job.name}") == first
    assert list((sweep_node.node_folder() / "jobs").iterdir()) == []


def test_the_run_cache_that_one_node_has_pushed_spares_another_the_work(project, inside, home, monkeypatch):
    base = git(project, "rev-parse", "HEAD")
    jobs = [
        make_job(experiment(name, 3, 6), set(), base, str(home / "origin.git"), AUTHOR)
        for name in ("sweep-one", "sweep-other")
    ]
    assert sweep_node.run_job(jobs[0]).state == "ran"
    before = (home / "work.log").read_text()
    (home / "there").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home / "there"))
    assert sweep_node.run_job(jobs[1]).state == "ran"
    assert (home / "work.log").read_text() == before


def test_a_node_without_the_merged_parameters_pulls_no_more_for_it(project, inside, home, monkeypatch):
    """The same parameters as in the experiment before, on the same hardware: only the last stage is to run."""
    base = git(project, "rev-parse", "HEAD")
    prepare = Experiment("sweep-prepare-7", "m", {"rows": 7, "rate": 7}, (TRAIN,), (), timed=False, prepares=True)
    report = Experiment("sweep-7", "m", prepare.params, ("report",), (prepare.name,), timed=False)
    jobs = [make_job(one, {prepare.name}, base, str(home / "origin.git"), AUTHOR) for one in (prepare, report)]
    assert sweep_node.run_job(jobs[0]).state == "ran"
    before = (home / "work.log").read_text()
    (home / "empty").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(home / "empty"))
    assert sweep_node.run_job(jobs[1]).state == "ran"
    assert (home / "work.log").read_text().removeprefix(before) == "report 7 7 1\n"
    orders = [list(sweep_node.locked_stages(home / "origin.git", of)) for of in (base, f"{jobs[1].refs}/{report.name}")]
    assert orders[0] == orders[1]  # of dvc.lock, so that it is no other for git where nothing has changed
    found = {path.read_text() for path in (home / "empty").rglob("cache/files/md5/*/*")}
    assert {"49", '{"rows": 7, "rate": 7}'} < found and "7" not in found  # what train made, and not what prepare made


def test_what_an_always_run_stage_made_and_what_is_in_folders_is_pushed_with_the_result(
    project, inside, home, monkeypatch
):
    """The stage has another lock file. Without what it made, `dvc exp apply` would fail elsewhere."""
    base = git(project, "rev-parse", "HEAD")
    job = make_job(experiment("sweep-machine", 3, 5), set(), base, str(home / "origin.git"), AUTHOR)
    monkeypatch.setenv("TMPDIR", "a machine that nothing has run on")
    assert sweep_node.run_job(job).state == "ran"
    stored = {path.read_bytes() for path in (home / "store/files").rglob("*") if path.is_file()}
    assert {b"a machine that nothing has run on", b"weights 15"} <= stored


def test_what_builds_on_a_failed_experiment_is_not_tried(project, home):
    late = experiment("sweep-late", 3, 7, after=("sweep-prepare-1", "sweep-2"))
    job = make_job(late, {"sweep-prepare-1"}, "0" * 40, "no such repository", AUTHOR)
    outcome = sweep_node.run_job(job, NodeOutcome("sweep-prepare-1", "failed", "node", 1.0, "why"))
    assert (outcome.state, outcome.reason) == ("skipped", "it builds on sweep-prepare-1, which failed: why")
    # One of the grid before it may have done the same work, and if not, this one does it.
    outcome = sweep_node.run_job(job, NodeOutcome("sweep-2", "failed", "node", 1.0, "why"))
    assert outcome.state == "failed" and "no such repository" in outcome.reason


def test_a_node_with_other_packages_is_named(tmp_path):
    pins = ["-c constraints.txt", "", f"dvc=={dvc.__version__}  # as here", "pytest==1.0", "not-there==2"]
    (tmp_path / "requirements.txt").write_text("\n".join([*pins, "elsewhere==1; sys_platform == 'elsewhere'"]))
    assert wrong_versions(tmp_path / "requirements.txt") == [f"pytest {pytest.__version__} and not 1.0", "no not-there"]


def test_no_space_on_a_node_is_the_reason(project, inside, home, monkeypatch):
    job = make_job(
        experiment("sweep-full", 3, 8), set(), git(project, "rev-parse", "HEAD"), str(home / "origin.git"), AUTHOR
    )

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "clone")

    monkeypatch.setattr(Path, "mkdir", full)
    outcome = sweep_node.run_job(job)
    assert outcome.state == "failed"
    assert "no space left on" in outcome.reason and str(home / "here") in outcome.reason
    with pytest.raises(NodeError, match="no space left on"):
        run_command(sys.executable, "-c", "raise OSError(28, 'No space left on device')")
    with pytest.raises(NodeError, match=r"(?s)-c failed:.*KeyError"):
        run_command(sys.executable, "-c", "raise KeyError")


def test_a_folder_that_a_node_does_not_mount_is_not_made_there(project, inside, home, tmp_path):
    job = make_job(experiment("sweep-lost", 3, 8), set(), git(project, "rev-parse", "HEAD"), str(project), AUTHOR)
    clone = sweep_node.clone_base(job, tmp_path)
    (clone / ".dvc/config").write_text(SETTINGS.format(store=tmp_path / "not mounted"))
    with pytest.raises(NodeError, match=r"not mounted, which is not on .*: mount it there"):
        sweep_node.pull_run_cache(clone)
    assert not (tmp_path / "not mounted").exists()
    (clone / ".dvc/config").write_text(SETTINGS.format(store="s3://bucket"))
    with pytest.raises(NodeError, match=r"a remote cannot be used: .*s3"):  # its package is not installed
        sweep_node.pull_run_cache(clone)


def without_dvc_remote(clone):
    (clone / ".dvc/config").write_text("[core]\n    analytics = false\n")


def with_http_remote(clone):
    (clone / ".dvc/config").write_text(SETTINGS.format(store="https://example.invalid/store"))


def with_relative_remote(clone):
    (clone / ".dvc/config").write_text(SETTINGS.format(store="../store"))


def with_commit(clone):
    commit(clone, "more")


def with_other_outputs(clone):
    lock = YAML(typ="safe").load((clone / "pipelines/m/dvc.lock").read_text())
    next(out for out in lock["stages"]["train"]["outs"] if out["path"] == "train.txt")["md5"] = "0" * 32
    with (clone / "pipelines/m/dvc.lock").open("w") as file:
        YAML(typ="safe").dump(lock, file)


def with_experiment(clone):
    base = git(clone, "rev-parse", "HEAD")
    git(clone, "update-ref", f"refs/exps/{base[:2]}/{base[2:]}/{RESULTS[0].name}", base)


BAD_REPOSITORIES = {
    "no git remote": (
        lambda clone: git(clone, "remote", "remove", "origin"),
        "the git remote origin, which does not exist",
    ),
    "a base that is not pushed": (with_commit, "from origin, which does not have it: run `git push origin HEAD`"),
    "no DVC remote": (
        without_dvc_remote,
        "the default DVC remote, and .dvc/config has none: run `dvc remote add --default",
    ),
    "a DVC remote without run cache": (with_http_remote, "has no run cache over HTTP"),
    "a DVC remote beside the repository": (with_relative_remote, "another folder on each node"),
    "outputs that only another machine has": (with_other_outputs, "lacks 1 output .*train.txt.*tools.push"),
    "a name that is something else here": (with_experiment, f"{RESULTS[0].name}: this experiment is not on origin"),
}


@pytest.mark.parametrize("name", BAD_REPOSITORIES)
def test_what_is_in_the_way_is_said_before_anything_runs(project, home, tmp_path, monkeypatch, name):
    change, message = BAD_REPOSITORIES[name]
    clone = tmp_path / "clone"
    git(home, "clone", "--quiet", "--branch", "main", str(home / "origin.git"), str(clone))
    monkeypatch.chdir(clone)
    change(clone)
    with pytest.raises(SweepError, match=message):
        run_on_ray(RESULTS[:1], git(clone, "rev-parse", "HEAD"), "127.0.0.1:9", print)


def test_an_address_that_does_not_answer(inside):
    ray = sweep_ray.import_ray()
    with pytest.raises(SweepError, match=r"nothing answers at 127\.0\.0\.1:9 .*ray start --head"):
        sweep_ray.connect(ray, "127.0.0.1:9")
    with pytest.raises(SweepError, match=r"ray://127\.0\.0\.1:9: --ray takes HOST:PORT"):
        sweep_ray.connect(ray, "ray://127.0.0.1:9")


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SweepError, match=r"pip install -r requirements-ray\.txt"):
        sweep_ray.import_ray()


def test_the_tool_ends_with_one_error(tmp_path):
    clone = make_clone(tmp_path / "clone")
    author = {f"GIT_CONFIG_KEY_{i}": key for i, key in enumerate(("user.name", "user.email"))}
    values = {"GIT_CONFIG_COUNT": "2", "GIT_CONFIG_VALUE_0": "test", "GIT_CONFIG_VALUE_1": "test@example.invalid"}
    result = run_here(clone, "tools.sweep", "sweeps/digits.yaml", "--ray", "127.0.0.1:9", env=author | values)
    assert result.returncode == 1
    assert result.stderr.startswith("error: nodes clone from the git remote origin, which does not exist"), (
        result.stderr
    )


def blocks_of_yaml(page):
    return [
        YAML(typ="safe").load(block) for block in re.findall(r"^```yaml\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    ]


def test_the_clusters_of_the_page_are_valid_and_have_the_pinned_ray():
    import ray  # or each process of the tests would
    from ray.autoscaler._private.util import prepare_config, validate_config

    page = (ROOT / "docs/scale-out.md").read_text()
    cluster, kubernetes = blocks_of_yaml(page)
    validate_config(prepare_config(cluster))
    assert (kubernetes["apiVersion"], kubernetes["kind"]) == ("ray.io/v1", "RayCluster")
    pinned = re.search(r"^ray==(\S+)$", (ROOT / "requirements-ray.txt").read_text(), re.MULTILINE)
    assert pinned and kubernetes["spec"]["rayVersion"] == pinned[1] == ray.__version__
    assert set(re.findall(r"ray\[default\]==([\d.]+)", page)) == {pinned[1]}
    groups = [kubernetes["spec"]["headGroupSpec"], *kubernetes["spec"]["workerGroupSpecs"]]
    images = {container["image"] for group in groups for container in group["template"]["spec"]["containers"]}
    assert images == {cluster["docker"]["image"]}
