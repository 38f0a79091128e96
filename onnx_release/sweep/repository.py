"""Make the clone in .dvc/tmp/sweep that a sweep runs in, and check that the repository is ready for a sweep.

`dvc exp run --queue` changes params.yaml in the workspace and resets it with git. In a clone, which shares the
repository's cache, it cannot touch the user's work, even if it is killed halfway, and the user may keep editing.
Results are fetched as refs/exps.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import psutil

from onnx_release.core.errors import SweepError
from onnx_release.core.files import replacing_folder
from onnx_release.core.git import git_output, run_git
from onnx_release.core.paths import LOCK, METRICS, PIPELINES
from onnx_release.review.revisions import is_shallow, namespace
from onnx_release.sweep.only_one import only_one

SWEEP_FOLDER = Path(".dvc/tmp/sweep")
CLONE = SWEEP_FOLDER / "repository"


def git(*arguments: str, cwd: Path = Path()) -> str:
    """Return what git prints, without the last line break. Raises SweepError if it fails."""
    result = run_git(*arguments, cwd=cwd)
    if result.returncode:
        raise SweepError(f"git {' '.join(arguments)} failed: {result.stderr.decode().strip()}")
    return result.stdout.decode().rstrip("\n")


def check_repository(grid: Path) -> str:
    """Return the hash of HEAD if a sweep can start from it in this folder. Raises SweepError if it cannot.

    Only the grid file may differ from HEAD: no stage reads it.
    """
    if not Path(".git").exists() or not Path(".dvc").is_dir():
        raise SweepError("this folder has no git repository with a .dvc folder: run this in the repository's root")
    base = git_output("rev-parse", "--verify", "--quiet", "HEAD")
    if not base:
        raise SweepError("there is no commit to start from: commit the project first")
    if is_shallow():
        raise SweepError("this is a shallow clone, and DVC's experiments need the history: run `git fetch --unshallow`")
    for key in ("user.name", "user.email"):
        if not git_output("config", key):
            raise SweepError(f"git does not know {key}, and experiments are commits: run `git config {key} ...`")
    if not git("ls-tree", "--name-only", base, LOCK.name):
        raise SweepError(f"HEAD has no {LOCK}: run `make repro` and commit {LOCK}, {PIPELINES}/ and {METRICS}/")
    changed = [Path(line) for line in git("diff", "--name-only", "HEAD").splitlines()]
    untracked = [Path(line) for line in git("ls-files", "--others", "--exclude-standard").splitlines()]
    differing = [path.as_posix() for path in (*changed, *read_by_stages(untracked)) if not same_file(path, grid)]
    if differing:
        raise SweepError(
            "experiments start from HEAD, which does not have these changes: commit or stash " + ", ".join(differing)
        )
    return base


def same_file(path: Path, other: Path) -> bool:
    return path.absolute() == other.absolute()


def read_by_stages(paths: list[Path]) -> list[Path]:
    """Return the paths that a stage may read: dependencies in dvc.yaml, and files in a folder with dependencies."""
    from dvc.repo import Repo

    if not paths:
        return []
    with Repo() as repo:
        deps = {Path(dep.def_path) for stage in repo.index.stages for dep in stage.deps}
    folders = {dep.parent for dep in deps if dep.parent != Path()} | {dep for dep in deps if dep.is_dir()}
    return [path for path in paths if path in deps or not folders.isdisjoint(path.parents)]


@contextlib.contextmanager
def only_sweep() -> Iterator[None]:
    """Lock the repository for one sweep. Raises SweepError if another process has the lock; a dead process loses it."""
    # Workers must not inherit the lock, so another program starts them.
    with only_one(SWEEP_FOLDER / "lock", SweepError("another sweep runs in this repository: wait until it is done")):
        yield


def open_clone(base: str) -> None:
    """Make CLONE again, at `base`, with the cache of this repository and the experiments of an earlier clone."""
    from dvc.repo import Repo

    with Repo() as repo:
        cache = {"dir": str(Path(repo.cache.local_cache_dir).absolute()), "type": repo.config["cache"].get("type")}
    with replacing_folder(CLONE) as clone:
        git("clone", "--quiet", "--no-checkout", str(Path.cwd()), str(clone))
        git("checkout", "--quiet", "-B", "sweep", base, cwd=clone)
        for key in ("user.name", "user.email"):
            git("config", key, git("config", key), cwd=clone)
        settings = "".join(
            f"    {key} = {','.join(value) if isinstance(value, list) else value}\n"
            for key, value in cache.items()
            if value
        )
        (clone / ".dvc/config.local").write_text(f"[cache]\n{settings}", encoding="utf-8")
        if CLONE.is_dir():
            pattern = f"{namespace(base)}/*"
            git("fetch", "--quiet", str(CLONE.absolute()), f"{pattern}:{pattern}", cwd=clone)


def experiment_names(base: str, repository: Path) -> set[str]:
    """Return the names of a commit's experiments in the repository."""
    prefix = namespace(base) + "/"
    listed = git("for-each-ref", "--format=%(refname)", prefix, cwd=repository).splitlines()
    return {name.removeprefix(prefix) for name in listed}


def fetch_experiment(base: str, name: str) -> None:
    """Fetch an experiment from the clone. Its outputs are already in the cache."""
    ref = f"{namespace(base)}/{name}"
    git("fetch", "--quiet", str(CLONE.absolute()), f"{ref}:{ref}")


def clone_processes() -> list[psutil.Process]:
    """Return all processes that run in the clone: workers of its queue, experiments and their stages."""
    folder = CLONE.absolute()
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if folder in (here := Path(process.cwd()), *here.parents) and process.pid != os.getpid():
                found.append(process)
    return found


def stop_processes() -> None:
    """Kill all processes that run in the clone, until none is left."""
    while running := clone_processes():
        for process in running:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(running, timeout=5)
