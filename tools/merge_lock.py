"""Merge two versions of dvc.lock stage by stage; git calls this for the files that .gitattributes gives to dvc-lock.

`make` tells git of it, with `git config merge.dvc-lock.driver`. Entries that only one branch changed are taken from it,
as git does with lines. Both branches may have run a stage: then the result of the branch that you merge into stays, and
for a stage of a model git reports a conflict and one message says what to run. For the machine's stages there is none,
since they run every time.
"""

import argparse
from collections.abc import Mapping
from pathlib import Path

from onnx_release.core.addresses import lock_entries, model_of
from onnx_release.core.command import run_tool
from onnx_release.core.errors import DataError
from onnx_release.core.files import write_text
from onnx_release.core.paths import LOCK, METRICS, ModelFiles

Entries = Mapping[str, str]


def main(arguments: argparse.Namespace) -> None:
    base, ours, theirs = (lock_entries(path.read_text(encoding="utf-8")) for path in arguments.versions)
    write_text(arguments.versions[1], "".join(merged(base, ours, theirs).values()))
    models = sorted({*map(model_of, run_by_both(base, ours, theirs, arguments.path))} - {""})
    if models:
        raise DataError(describe_conflict(models))


def merged(base: Entries, ours: Entries, theirs: Entries) -> dict[str, str]:
    """Return the entries of both sides: theirs where only they have changed one, else ours, in the order of ours."""
    names = dict.fromkeys([*ours, *theirs])
    chosen = {name: side(name, base, ours, theirs).get(name) for name in names}
    return {name: entry for name, entry in chosen.items() if entry is not None}


def side(name: str, base: Entries, ours: Entries, theirs: Entries) -> Entries:
    """Return the side that an entry is taken from; an entry that one side has removed counts as changed."""
    return theirs if ours.get(name) == base.get(name) else ours


def run_by_both(base: Entries, ours: Entries, theirs: Entries, lock: Path) -> set[str]:
    """Return the addresses of the stages in this lock that both sides have changed, and not in the same way."""
    sides = (base, ours, theirs)
    names = {name for name in {*base, *ours, *theirs} if len({entries.get(name) for entries in sides}) == len(sides)}
    return {name if lock == LOCK else f"{lock.with_suffix('.yaml').as_posix()}:{name}" for name in names}


def describe_conflict(models: list[str]) -> str:
    """Say which models both branches ran, what was kept, and what to run."""
    locks = " ".join(path.as_posix() for path in (LOCK, *(ModelFiles(model).lock for model in models)))
    folders = " ".join(f"{METRICS.as_posix()}/{model}" for model in models)
    runs = "".join(f"\n  make repro MODEL={model}" for model in models)
    return (
        f"both branches ran {', '.join(models)}, and results cannot be merged. The locks have those of this branch. "
        "Take its metrics, too, end the merge, and run what the merge has changed (results of either branch come from "
        f"DVC's cache):\n  git checkout HEAD -- {folders}\n  git add {locks} {folders} && git commit{runs}"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "versions", nargs=3, type=Path, metavar="FILE", help="the file of the merge base, of this branch, of the other"
    )
    parser.add_argument("path", type=Path, help="the name of the file in the repository")
    run_tool(main, parser)
