"""Read the metrics of a Git revision, of a DVC experiment, or of the workspace."""

import functools
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from ruamel.yaml.error import YAMLError

from onnx_release.core.errors import RevisionError
from onnx_release.core.files import CONFLICT, refuse_conflict
from onnx_release.core.git import run_git
from onnx_release.core.imports import OWN_PACKAGES
from onnx_release.core.paths import LOCK, METRICS, PIPELINES, ModelFiles
from onnx_release.core.yaml_files import parse_yaml

if TYPE_CHECKING:
    import pandas as pd

# The files that are read from a revision, relative to the repository root.
READ = (METRICS, PIPELINES)
# DVC keeps experiments at refs/exps/01/234.../NAME, below the commit that they start from. It keeps other things at the
# names of NO_EXPERIMENTS.
EXPERIMENTS = "refs/exps"
NO_EXPERIMENTS = ("stash", "apply", "celery", "exec", "temp")


@dataclass(frozen=True)
class Revision:
    """A revision to compare: `name` says which it is, and `files` has the content of each file by its path.

    `sources` are the Python files of the repository's own packages, if a comparison needs them. Metrics, tables and
    dependencies are those of one model, `model`.
    """

    name: str
    files: Mapping[str, bytes]
    sources: Mapping[str, bytes] = field(default_factory=dict)
    model: str = ""

    @cached_property
    def models(self) -> list[str]:
        """Return the names of the models that have metrics, in order."""
        places = [PurePosixPath(path).relative_to(METRICS.as_posix()).parts for path in self.files if is_metrics(path)]
        names = {parts[0] for parts in places if len(parts) > 1}
        # Before models were side by side, metrics/validate/ was a folder among the files of the only one.
        return sorted(names - {"validate"} if any(len(parts) == 1 for parts in places) else names)

    def of_model(self, model: str) -> "Revision":
        """Return the revision with the metrics of this model."""
        return replace(self, model=model)

    @cached_property
    def metrics(self) -> dict[str, dict[str, Any]]:
        """Return the metrics of each file, by its name without .json. Raises RevisionError if one is not JSON."""
        found = {}
        for path, content in sorted(self.files.items()):
            if is_metrics(path) and PurePosixPath(path).is_relative_to(self.folder):
                name = PurePosixPath(path).relative_to(self.folder).with_suffix("").as_posix()
                found[name] = self.parsed(path, content)
        return found

    @property
    def folder(self) -> str:
        """Return the folder of the model's metrics."""
        return ModelFiles(self.model).metrics.as_posix()

    def parsed(self, path: str, content: bytes) -> dict[str, Any]:
        try:
            value = json.loads(content)
        except ValueError as cause:
            raise RevisionError(f"{path} of {self.name} is not JSON ({cause}): run `dvc repro` there") from cause
        if not isinstance(value, dict):
            raise RevisionError(f"{path} of {self.name} has no metrics by name: run `dvc repro` there")
        return value

    def table(self, name: str) -> "pd.DataFrame | None":
        """Read `name`.csv of the model's plots; None if missing or empty. Raises RevisionError if it is damaged."""
        path = f"{self.folder}/plots/{name}.csv"
        if path not in self.files:
            return None
        try:
            table = parse_table(self.files[path])
        except ValueError as cause:
            raise RevisionError(f"{path} of {self.name} is not a table ({cause}): run `dvc repro` there") from cause
        return None if table.empty else table

    @cached_property
    def lock(self) -> dict[str, Any]:
        """Return what the model's own dvc.lock has; empty without the file."""
        return self.yaml(ModelFiles(self.model).lock)

    def locked(self, stage: str) -> dict[str, str]:
        """Return the md5 of each dependency of the model's stage in dvc.lock, by its path; empty without the stage."""
        deps = self.lock.get("stages", {}).get(stage, {}).get("deps", [])
        return {dep["path"]: dep.get("md5", "") for dep in deps}

    def yaml(self, path: Path) -> dict[str, Any]:
        try:
            found = parse_yaml(self.files.get(path.as_posix(), b"").decode())
        except (YAMLError, ValueError) as cause:
            raise RevisionError(f"{path} of {self.name} is not valid YAML: {cause}") from cause
        return found if isinstance(found, dict) else {}


def is_metrics(path: str) -> bool:
    """Return whether it is a file of metrics."""
    pure = PurePosixPath(path)
    return pure.suffix == ".json" and pure.is_relative_to(METRICS.as_posix())


@functools.lru_cache(maxsize=32)
def parse_table(content: bytes) -> "pd.DataFrame":
    """Read a table of metrics/NAME/plots/, which serves several metrics. Raises ValueError if it is damaged."""
    import pandas as pd  # late, since a run of the pipeline needs no table

    columns = pd.read_csv(io.BytesIO(content), nrows=0).columns
    # A group may be called NA or null.
    empty = {name: [""] for name in columns if name != "group"}
    return pd.read_csv(io.BytesIO(content), dtype={"group": str}, keep_default_na=False, na_values=empty)


def load_pair(base: str, head: str | None) -> tuple[Revision, Revision]:
    """Read both sides of a comparison; None for `head` is the workspace.

    `base` and `head` are branches, tags or commits, or names of DVC's experiments. Unless `base` is an experiment, the
    merge base of the two is read, as in a pull request: later commits of the base's branch are no change of `head`.
    Raises RevisionError if one of them does not exist or has no metrics, or if git finds no merge base.
    """
    head_commit = resolve(head or "HEAD")
    base_commit = resolve(base)
    name = f"{base} ({base_commit[:7]})"
    if not is_experiment(base):
        common = merge_base(base, base_commit, head or "the workspace", head_commit)
        if common != base_commit:
            name = f"merge base of {base} and {head or 'the workspace'} ({common[:7]})"
        base_commit = common
    before = with_sources(at_commit(base_commit, name), base_commit)
    if head is None:
        return before, workspace()
    return before, with_sources(at_commit(head_commit, f"{head} ({head_commit[:7]})"), head_commit)


def resolve(revision: str) -> str:
    """Return the commit of a branch, a tag, a commit or an experiment. Raises RevisionError if there is none."""
    found = run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if found.returncode == 0:
        return found.stdout.decode().strip()
    experiments = experiments_called(revision)
    if len(experiments) == 1:
        return next(iter(experiments.values()))
    if experiments:
        listed = "\n".join(f"  {commit[:7]}  {ref}" for ref, commit in experiments.items())
        raise RevisionError(f"there are {len(experiments)} experiments called {revision}; name a commit:\n{listed}")
    if run_git("rev-parse", "--git-dir").returncode != 0:
        raise RevisionError("this is not a git repository: run the command in a clone of one")
    raise RevisionError(
        f"there is no branch, tag, commit or experiment called {revision}: `git branch -a` and `dvc exp list -A` list "
        "them; `git fetch` and `dvc exp pull REMOTE NAME` get those that are elsewhere"
        + (f"\nThis clone is shallow: {UNSHALLOW}" if is_shallow() else "")
    )


def is_experiment(revision: str) -> bool:
    """Return whether it is an experiment's name, and not a revision that git itself knows."""
    known = run_git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}").returncode == 0
    return not known and bool(experiments_called(revision))


def experiments_called(name: str) -> dict[str, str]:
    """Return the commits of the experiments of this name by ref; only those below HEAD if there are any."""
    listed = run_git("for-each-ref", "--format=%(objectname) %(refname)", EXPERIMENTS).stdout.decode().splitlines()
    refs = {ref: commit for commit, _, ref in (line.partition(" ") for line in listed)}
    found = {
        ref: commit
        for ref, commit in refs.items()
        if ref.split("/")[2] not in NO_EXPERIMENTS and ref.split("/")[4:] == [name]
    }
    current = run_git("rev-parse", "HEAD").stdout.decode().strip()
    here = {ref: commit for ref, commit in found.items() if ref.startswith(f"{namespace(current)}/")}
    return here or found


UNSHALLOW = "`git fetch --unshallow` gets the missing history (in a workflow: fetch-depth: 0)"


def merge_base(base: str, base_commit: str, head: str, head_commit: str) -> str:
    """Return the last commit that both have. Raises RevisionError if there is none, or it is not in this clone."""
    found = run_git("merge-base", base_commit, head_commit)
    if found.returncode == 0:
        return found.stdout.decode().strip()
    if is_shallow():
        raise RevisionError(f"this clone is shallow and lacks the merge base of {base} and {head}: {UNSHALLOW}")
    raise RevisionError(f"{base} and {head} have no commit in common: choose a base that {head} starts from")


def namespace(commit: str) -> str:
    """Return where DVC keeps the experiments that start from a commit, by its full hash."""
    return f"{EXPERIMENTS}/{commit[:2]}/{commit[2:]}"


def is_shallow() -> bool:
    return run_git("rev-parse", "--is-shallow-repository").stdout.decode().strip() == "true"


def at_commit(commit: str, name: str) -> Revision:
    """Read a commit. Raises RevisionError if it has no metrics of a model."""
    wanted = [path.as_posix() for path in READ]
    listed = run_git("ls-tree", "--name-only", commit, *wanted).stdout.decode().splitlines()
    revision = Revision(name, contents(commit, name, listed) if listed else {})
    refuse_without_models(revision, "choose a base that has run `make repro` and committed its metrics")
    return revision


def refuse_without_models(revision: Revision, fix: str) -> None:
    """Raise RevisionError if the revision has no metrics, or none of a model, as before models were side by side."""
    if revision.models:
        return
    if any(is_metrics(path) for path in revision.files):
        raise RevisionError(
            f"{revision.name} has no models, since its metrics are directly below {METRICS}/, as before models were "
            f"side by side: choose a revision with {METRICS}/NAME/, or run `make repro` there and commit its metrics"
        )
    raise RevisionError(f"{revision.name} has no {METRICS}/: {fix}")


def with_sources(revision: Revision, commit: str) -> Revision:
    """Add the sources of its commit to a revision."""
    listed = run_git("ls-tree", "-r", "-z", "--name-only", commit, *OWN_PACKAGES).stdout.decode().split("\0")
    wanted = [path for path in listed if path.endswith(".py")]
    return replace(revision, sources=contents(commit, revision.name, wanted) if wanted else {})


def contents(commit: str, name: str, paths: Sequence[str]) -> dict[str, bytes]:
    """Read the files of a commit at or below some paths, by path. Raises RevisionError if git cannot read them."""
    archive = run_git("archive", "--format=tar", commit, *paths)
    if archive.returncode != 0:
        raise RevisionError(f"{name} cannot be read: {archive.stderr.decode().strip()}")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        files = {item.name: tar.extractfile(item) for item in tar if item.isfile()}
        found = {path: file.read() for path, file in files.items() if file}
    broken = [path for path, content in found.items() if CONFLICT.search(content.decode(errors="replace"))]
    if broken:
        raise RevisionError(
            f"{name} was committed with git's conflict markers in {', '.join(broken)}: choose another revision, "
            "or fix it there, as docs/review.md says under Merging, and commit"
        )
    return found


def workspace() -> Revision:
    """Read the working tree, with its sources. Raises RevisionError if it has no metrics of a model."""
    kept = (*METRICS.rglob("*"), *PIPELINES.glob(f"*/{LOCK}"))
    files = [path for path in kept if path.suffix != ".partial" and path.is_file()]
    for path in files:
        refuse_conflict(path, path.read_text(encoding="utf-8", errors="replace"), RevisionError)
    changed = run_git("status", "--porcelain", "--", *(path.as_posix() for path in READ)).stdout.strip()
    name = "workspace, not committed" if changed else "workspace, as committed"
    sources = [path for package in OWN_PACKAGES for path in Path(package).rglob("*.py") if path.is_file()]
    contents_of = [{path.as_posix(): path.read_bytes() for path in found} for found in (files, sources)]
    found = Revision(name, contents_of[0], contents_of[1])
    refuse_without_models(replace(found, name="the workspace"), "run `make repro`")
    return found
