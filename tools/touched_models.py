"""Print the models that this branch changes, one a line: those of which a stage would not run as on the base.

    python -m tools.touched_models main

`dvc status` compares the working tree, also what is not committed, with every dvc.lock of the merge base of BASE and
HEAD. It does so in a clone, where the outputs of the stages are missing: what is missing says nothing about a
change, unless the base has it in git. If a stage has changed that describes the machine, every model counts.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from onnx_release.core.addresses import lock_files, model_of
from onnx_release.core.command import run_tool
from onnx_release.core.errors import RevisionError
from onnx_release.core.files import write_text
from onnx_release.core.git import run_git
from onnx_release.core.model_list import load_models
from onnx_release.core.paths import LOCK, MACHINE_PIPELINE
from onnx_release.review.revisions import merge_base, resolve
from tools.clone import make_clone

State = Literal["modified", "new", "deleted", "not in cache"]
# What `dvc status --json` says of a stage: a word, or what has changed of its deps or outs, by path. The state of a
# file of parameters is that of each of its keys, if the file is there.
Report = str | Mapping[str, Mapping[str, State | Mapping[str, State]]]
Status = Mapping[str, Sequence[Report]]


def main(arguments: argparse.Namespace) -> None:
    base = merge_base(arguments.base, resolve(arguments.base), "HEAD", resolve("HEAD"))
    with TemporaryDirectory() as folder:
        in_base = paths_at(base)
        status = status_since(base, in_base, Path(folder) / "clone")
    for model in touched_models(status, load_models(), in_base):
        print(model)


def touched_models(status: Status, models: Iterable[str], in_base: Collection[str]) -> list[str]:
    """Return which of the models have a stage that has changed; `in_base` are the paths that the base has in git."""
    changed = [stage for stage, reports in status.items() if any(has_changed(report, in_base) for report in reports)]
    of_machine = any(stage.startswith(f"{MACHINE_PIPELINE.as_posix()}:") for stage in changed)
    names = {*map(model_of, changed)}
    return [model for model in models if of_machine or model in names]


def has_changed(report: Report, in_base: Collection[str]) -> bool:
    """Return whether a report on a stage says that it would not run as on the base."""
    if isinstance(report, str):
        return report == "changed command"
    states = [item for paths in report.values() for item in paths.items()]
    return any(
        isinstance(state, Mapping) or state in ("modified", "new") or (state == "deleted" and path in in_base)
        for path, state in states
    )


def status_since(base: str, in_base: Collection[str], clone: Path) -> Status:
    """Return `dvc status` of the working tree with each dvc.lock of the base, in a clone made there."""
    make_clone(clone, root=Path.cwd())
    locks_in_base = {Path(path) for path in in_base if Path(path).name == LOCK.name}
    for lock in {*lock_files(), *locks_in_base}:
        (clone / lock).unlink(missing_ok=True)
        if lock in locks_in_base:
            write_text(clone / lock, run_git("show", f"{base}:{lock.as_posix()}").stdout.decode())
    command = [sys.executable, "-m", "dvc", "status", "--json"]
    result = subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RevisionError(f"`dvc status` fails with the dvc.lock of {base[:7]}: {result.stderr.strip()}")
    status: Status = json.loads(result.stdout)
    return status


def paths_at(commit: str) -> set[str]:
    """Return the paths of all files and folders of a commit."""
    return set(run_git("ls-tree", "-r", "-t", "-z", "--name-only", commit).stdout.decode().split("\0"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", metavar="BASE", help="a branch, tag or commit")
    run_tool(main, parser)
