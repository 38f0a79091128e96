"""Run one experiment of a sweep on a node of a Ray cluster: clone, pull, run, push.

Ray sends the functions of this module by value, since a node has the packages of requirements.txt but no copy of the
repository before a task clones it. So this module imports nothing of onnx_release.
"""

import errno
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import chdir, contextmanager
from copy import deepcopy
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

# As onnx_release.core.addresses has them: where DVC keeps what the stages ran on, and which of these stages always run.
LOCK, LOCKS, ALWAYS_RUN = "dvc.lock", ("dvc.lock", "stages/dvc.lock", "pipelines/*/dvc.lock"), "stages/dvc.yaml:"
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# loky (onnx_release.core.hardware) and the libraries below numpy, torch and tokenizers count threads by these. Ray sets
# OMP_NUM_THREADS to the CPUs of a task; for a timed experiment it must be as it is without Ray.
OMP = "OMP_NUM_THREADS"
ONE_THREAD = dict.fromkeys(
    ("LOKY_MAX_CPU_COUNT", OMP, "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS"), "1"
)
# `dvc exp run --pull` pulls what a stage that runs needs. But first it pulls every entry of the remote's run cache,
# with one request each, even those that are here. `pull_run_cache` has pulled the missing ones already.
DVC_SCRIPT = """
import sys
from dvc.cli import main
from dvc.stage.cache import StageCache
StageCache.pull = lambda *_, **__: []
sys.exit(main(sys.argv[1:]))
"""
LAST_LINES = 15


@dataclass(frozen=True)
class NodeJob:
    """An experiment, and where a node finds what it needs.

    `arguments` are those of `dvc exp run` besides the name. `after` are the experiments whose work it may reuse, and
    `needs` those of them without whose result it would only repeat a failure. `base` is the full hash of the commit
    that it starts from. `refs` is the folder of git references in which DVC keeps the experiments of that commit. `url`
    is the git remote's, `author` a name and an address for its commit. `parameters` is the file of the merged
    parameters of its model.
    """

    name: str
    arguments: tuple[str, ...]
    after: tuple[str, ...]
    needs: tuple[str, ...]
    timed: bool
    url: str
    base: str
    refs: str
    author: tuple[str, str]
    parameters: str


@dataclass(frozen=True)
class NodeOutcome:
    """The outcome of a job. Its `state` is one of

    - ran: it ran here, and its result is on both remotes;
    - found: an earlier attempt had pushed its result to the git remote;
    - failed: it failed for `reason`, and would fail again;
    - skipped: an experiment that it builds on has no result;
    - unfit: the node has other packages than the repository needs.
    """

    name: str
    state: str
    node: str
    seconds: float
    reason: str = ""


class NodeError(Exception):
    """An experiment has no result; the text says why."""


def run_job(job: NodeJob, *earlier: NodeOutcome) -> NodeOutcome:
    """Run one experiment in a clone of its own and push its result, after the `earlier` ones."""
    start = time.perf_counter()

    def outcome(state: str, reason: str = "") -> NodeOutcome:
        return NodeOutcome(job.name, state, socket.gethostname(), time.perf_counter() - start, reason)

    for other in earlier:
        if other.name in job.needs and other.state not in {"ran", "found"}:
            return outcome("skipped", f"it builds on {other.name}, which {other.state}: {other.reason}")
    try:
        with job_folder() as folder:
            clone = clone_base(job, folder)
            wrong = wrong_versions(clone / "requirements.txt")
            if wrong:
                return outcome("unfit", f"{sys.executable} has {', '.join(wrong)}")
            if is_pushed(job, clone):
                return outcome("found")
            pull_run_cache(clone)
            for name in reversed(job.after):
                fetch_result(job, name, clone)
            forget_parameters(job, clone)
            before = locked_stages(clone)
            run_experiment(job, clone)
            return outcome("ran" if push_result(job, clone, before) else "found")
    except NodeError as error:
        return outcome("failed", str(error))
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        return outcome("failed", no_space(f"{error.strerror}: {error.filename}"))


def node_folder() -> Path:
    """Return the folder that the jobs of one node share: DVC's cache, and beside it a folder for each process."""
    folder = Path(tempfile.gettempdir()) / f"onnx-release-sweep-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@contextmanager
def job_folder() -> Iterator[Path]:
    """Make an empty folder and remove it afterwards; first remove the folders of killed processes."""
    import psutil

    jobs = node_folder() / "jobs"
    jobs.mkdir(exist_ok=True)
    for folder in jobs.iterdir():
        if folder.name == str(os.getpid()) or not psutil.pid_exists(int(folder.name)):
            shutil.rmtree(folder, ignore_errors=True)
    mine = jobs / str(os.getpid())
    mine.mkdir()
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)


def clone_base(job: NodeJob, folder: Path) -> Path:
    """Clone the repository at the base revision, with the cache that all jobs of the node share."""
    clone = folder / "clone"
    run_command("git", "clone", "--quiet", "--no-checkout", job.url, str(clone))
    run_command("git", "checkout", "--quiet", "--detach", job.base, cwd=clone)
    settings = f"[cache]\n    dir = {node_folder() / 'cache'}\n[core]\n    site_cache_dir = {folder / 'site'}\n"
    (clone / ".dvc/config.local").write_text(settings, encoding="utf-8")
    return clone


def wrong_versions(requirements: Path) -> list[str]:
    """Describe the packages that this Python lacks or has in other versions than the file pins."""
    from packaging.requirements import Requirement

    wrong = []
    for line in requirements.read_text(encoding="utf-8").splitlines():
        text = line.partition("#")[0].strip()
        if not text or text.startswith("-"):
            continue
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate():
            continue
        try:
            found = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"no {wanted.name}")
            continue
        if not wanted.specifier.contains(found, prereleases=True):
            wrong.append(f"{wanted.name} {found} and not {str(wanted.specifier).removeprefix('==')}")
    return wrong


def is_pushed(job: NodeJob, clone: Path) -> bool:
    return bool(run_command("git", "ls-remote", "origin", f"{job.refs}/{job.name}", cwd=clone))


def pull_run_cache(clone: Path) -> None:
    """Copy missing entries of the remote's run cache to the node; one job at a time, since they share the folder."""
    from dvc.repo import Repo
    from filelock import FileLock

    with remote_errors(), FileLock(node_folder() / "run-cache.lock"), chdir(clone), Repo() as repo:
        remote = repo.cloud.get_remote_odb(hash_name="md5-dos2unix")  # an old name, under which DVC has the run cache
        if remote.fs.protocol == "local" and not Path(remote.path).is_dir():
            # DVC would make the folder, and the other nodes would not see what is pushed there.
            raise NodeError(f"the DVC remote is {remote.path}, which is not on {socket.gethostname()}: mount it there")
        repo.stage_cache.transfer(remote, repo.cache.legacy, force=False)


@contextmanager
def remote_errors() -> Iterator[None]:
    """Turn what DVC, git and the remotes' own libraries raise, which share no base class, into a NodeError."""
    try:
        yield
    except NodeError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise
        raise NodeError(f"a remote cannot be used: {type(error).__name__}: {error}") from error


def fetch_result(job: NodeJob, name: str, clone: Path) -> None:
    """Bring another experiment's entries of dvc.lock into the workspace, and its metrics and plots that are in git.

    DVC then finds its stages unchanged, and pulls only those outputs that another stage reads. To restore a stage from
    the run cache would take a second, and pull its data.
    """
    ref = f"{job.refs}/{name}"
    if not run_command("git", "ls-remote", "origin", ref, cwd=clone):
        return  # it failed
    run_command("git", "fetch", "--quiet", "origin", ref, cwd=clone)
    base, theirs = locked_stages(clone, job.base), locked_stages(clone, "FETCH_HEAD")
    changed = {key: stage for key, stage in theirs.items() if base.get(key) != stage and ALWAYS_RUN not in key}
    lock_again(clone, changed)
    outs = [out["path"] for stage in changed.values() for out in stage.get("outs", [])]
    in_git = run_command("git", "ls-tree", "-r", "--name-only", "FETCH_HEAD", "--", *outs, cwd=clone).splitlines()
    if in_git:
        run_command("git", "checkout", "--quiet", "FETCH_HEAD", "--", *in_git, cwd=clone)


def forget_parameters(job: NodeJob, clone: Path) -> None:
    """Empty the locked entry of the stage that writes the parameters, so that it runs or comes from the run cache.

    DVC does not pull missing outputs of an unchanged stage, but without a file of parameters it takes every stage that
    reads it for changed.
    """
    merging = {
        name: {"cmd": stage["cmd"]}
        for name, stage in locked_stages(clone).items()
        if any(out["path"] == job.parameters for out in stage.get("outs", []))
    }
    lock_again(clone, merging)


def lock_again(clone: Path, stages: dict[str, Any]) -> None:
    """Write these entries, by the names that are targets of DVC, into the dvc.lock of each, in place of those there."""
    from dvc.utils.serialize import dump_yaml, load_yaml

    for file in {lock_of(name) for name in stages}:
        path = clone / file
        content: dict[str, Any] = load_yaml(path) if path.is_file() else {"schema": "2.0", "stages": {}}
        content["stages"] |= {name.rpartition(":")[2]: stage for name, stage in stages.items() if lock_of(name) == file}
        dump_yaml(path, content)


def lock_of(name: str) -> str:
    """Return the path of the dvc.lock with the entry of a stage that has this name as a target of DVC."""
    return str(Path(name.rpartition(":")[0] or LOCK).with_name(LOCK))


def run_experiment(job: NodeJob, clone: Path) -> None:
    """Run `dvc exp run` in this Python. Raises NodeError with the end of its output if it fails."""
    author = zip(("NAME", "EMAIL"), job.author, strict=True)
    environment = {
        **{key: value for key, value in os.environ.items() if key != OMP},
        **({} if job.timed else ONE_THREAD),
        **{f"GIT_{who}_{what}": value for what, value in author for who in ("AUTHOR", "COMMITTER")},
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "DVC_NO_ANALYTICS": "1",
    }
    arguments = ["exp", "run", "--pull", "--allow-missing", "--name", job.name, *job.arguments]
    run_command(sys.executable, "-c", DVC_SCRIPT, *arguments, cwd=clone, env=environment)


def push_result(job: NodeJob, clone: Path, before: dict[str, Any]) -> bool:
    """Push data, then the run cache, then the experiment, so that every experiment in git is whole.

    `before` are the locked stages before it ran; their outputs are on the remote. Returns False if another attempt
    has pushed the name before; its result stays. `dvc exp push` pushes in the other order, and leaves out the metrics
    that are in git: without them, no other node can restore an entry of the run cache.
    """
    from dvc.fs import LocalFileSystem, generic
    from dvc.repo import Repo

    changed = {name: stage for name, stage in locked_stages(clone).items() if before.get(name) != stage}
    with remote_errors(), chdir(clone), Repo() as repo:
        runs = Path(repo.stage_cache.cache_dir)
        entries = [entry for entry in map(run_cache_entry, changed.values()) if runs.joinpath(*entry).is_file()]
        used: list[dict[Any, set[Any]]] = [repo.stage_cache.get_used_objs([entry[1:] for entry in entries])]
        used += [stage.get_used_objs(push=True) for stage in repo.index.stages if stage.addressing in changed]
        failed = repo.cloud.push({item for found in used for items in found.values() for item in items}).failed
        if failed:
            raise NodeError(f"files of its result could not be pushed to the DVC remote: {len(failed)}")
        remote = repo.cloud.get_remote_odb(hash_name="md5-dos2unix")
        for entry in entries:
            path = remote.fs.join(remote.path, "runs", *entry)
            generic.copy(LocalFileSystem(), str(runs.joinpath(*entry)), remote.fs, path)
        try:
            pushed = repo.experiments.push("origin", [job.name]).get("success")
        except Exception:
            if is_pushed(job, clone):
                return False
            raise
    if not pushed and not is_pushed(job, clone):
        raise NodeError("its result could not be pushed: the git remote refused the reference")
    return bool(pushed)


def locked_stages(clone: Path, commit: str = "") -> dict[str, Any]:
    """Return the stages of every dvc.lock, in the workspace or in a commit, by the names that are targets of DVC."""
    from dvc.utils.serialize import parse_yaml

    stages: dict[str, Any] = {}
    if commit:
        listed = run_command("git", "ls-tree", "-r", "--name-only", commit, cwd=clone).splitlines()
        found = [Path(file) for file in listed if any(fnmatch(file, pattern) for pattern in LOCKS)]
        texts = {file: run_command("git", "show", f"{commit}:{file}", cwd=clone) for file in found}
    else:
        found = [path.relative_to(clone) for pattern in LOCKS for path in clone.glob(pattern)]
        texts = {file: (clone / file).read_text(encoding="utf-8") for file in found}
    for file, text in texts.items():
        of = "" if file == Path(LOCK) else f"{file.with_suffix('.yaml').as_posix()}:"
        stages |= {f"{of}{name}": stage for name, stage in parse_yaml(text, file)["stages"].items()}
    return stages


def run_cache_entry(stage: dict[str, Any]) -> tuple[str, str, str]:
    """Return the place of a stage of dvc.lock in DVC's run cache: two folders and a file below runs/."""
    from dvc.stage.cache import _get_cache_hash

    key = _get_cache_hash(deepcopy(stage), key=True)  # it changes its argument
    return key[:2], key, _get_cache_hash(stage)


def run_command(*command: str, cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Return what a command prints. If it fails, raises NodeError with the end of what it printed."""
    result = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if result.returncode == 0:
        return result.stdout
    lines = "\n".join((result.stdout + result.stderr).strip().splitlines()[-LAST_LINES:])
    called = "dvc exp run" if DVC_SCRIPT in command else " ".join(command[:2])
    full = any(os.strerror(code).lower() in lines.lower() for code in NO_SPACE) or "no space left" in lines
    raise NodeError((no_space(called) if full else f"{called} failed") + f":\n{lines}")


def no_space(where: str) -> str:
    return f"no space left on {socket.gethostname()} ({where}): free some in {tempfile.gettempdir()}"
