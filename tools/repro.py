"""Run `dvc repro` of one model or of all, and if a stage fails or is interrupted, restore its earlier outputs.

DVC deletes a stage's outputs before it runs the stage, and leaves them deleted if the stage fails. Outputs in DVC's
cache are restored from there; the metrics, which are in git and not in the cache, are restored from a copy.

With --all, no model that fails keeps the others from finishing. If one does, the last lines say how far each came, and
the exit code is 1.
"""

import argparse
import configparser
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from onnx_release.core.addresses import last_stages, lock_files
from onnx_release.core.command import path_with_python, run_tool, without_ctrl_c
from onnx_release.core.errors import DataError, ParameterError, ReleaseError, RevisionError
from onnx_release.core.files import replacing
from onnx_release.core.model_list import load_models, unlisted_note
from onnx_release.core.params import load_defaults
from onnx_release.core.paths import METRICS, ModelFiles
from onnx_release.core.spec import load_spec
from onnx_release.core.yaml_files import load_yaml
from onnx_release.review.gates import load_gates, refuse_bad_gates
from onnx_release.sweep.only_one import only_one
from tools.models import add_model_option, chosen_model

RUNNING = Path(".dvc/tmp/repro.lock")
BUSY = "another `make repro` runs in this folder: wait until it is done, or run this in another clone of the repository"
# What DVC says of a stage that runs every time, whether or not anything has changed.
ALWAYS_CHANGED = "always changed"
DVC = [sys.executable, "-m", "dvc"]
NO_GIT = """there is no git repository here, and DVC needs one. Run one of these, and then this again:
  git init                                 # all other tools work after a first commit
  dvc config --local core.no_scm true      # without git: tools.compare, tools.gate --base and tools.sweep do not run"""


def main(arguments: argparse.Namespace) -> None:
    os.environ["PATH"] = path_with_python()  # for the stages
    check_git()
    check_writable()
    with only_one(RUNNING, RevisionError(BUSY)):
        succeeded = run(arguments)
    sys.exit(0 if succeeded else 1)


def run(arguments: argparse.Namespace) -> bool:
    """Run the stages of the chosen model, or of all; return whether all of them succeeded."""
    locked = locked_outputs()
    names, problems = models_to_run(arguments)
    if note := unlisted_note():
        print(note, file=sys.stderr)
    if names:
        problems |= run_stages(names, locked, keep_going=arguments.all)
    if arguments.all:
        outcomes = dict.fromkeys(names, "done") | problems
        print("\n".join(["", *(f"{name}: {outcome}" for name, outcome in outcomes.items())]))
    return not problems


def models_to_run(arguments: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    """Return the names of the models to run, and what is wrong with those that cannot run while others can.

    Raises ParameterError and SpecError if no model can.
    """
    if not arguments.all:
        files = chosen_model(arguments.model)
        check_model(files)
        return [files.model], {}
    refuse_bad_gates(load_defaults().gates)
    names, problems = [], {}
    for name in load_models():
        try:
            check_model(ModelFiles(name))
            names.append(name)
        except ReleaseError as error:
            problems[name] = f"not run: {error}"
    return names, problems


def check_model(files: ModelFiles) -> None:
    """Raise SpecError or ParameterError now for what DVC, or only the last step, would say in other words."""
    load_spec(files.model)  # DVC would name a key of a file that a stage writes
    load_gates(files)  # the gates come last, and a misspelt one would show only then
    if not files.pipeline.is_file():
        raise ParameterError(f"there is no {files.pipeline}, which has the stages: run `python -m tools.pipelines`")


def run_stages(names: Sequence[str], locked: Iterable[Path], keep_going: bool) -> dict[str, str]:
    """Run the stages of these models, and restore what is then missing if one fails; return how far the models came.

    Only those that are not done are in it. Raises KeyboardInterrupt after Ctrl-C.
    """
    outputs = [path for path in locked if path.exists()]
    metrics = {path: path.read_bytes() for path in METRICS.rglob("*") if path.is_file()}
    succeeded = interrupted = False
    problems = {}
    try:
        succeeded, interrupted = run_dvc(names, keep_going)
        if not succeeded:
            problems = find_failures(names) if keep_going and not interrupted else dict.fromkeys(names, "failed")
    finally:
        if not succeeded:
            restore(outputs, metrics)
    if interrupted:
        raise KeyboardInterrupt
    return problems


def run_dvc(names: Iterable[str], keep_going: bool) -> tuple[bool, bool]:
    """Run `dvc repro` of these models; return whether it succeeded, and whether it was interrupted.

    Ctrl-C in a terminal goes to DVC, its stage and this process. This process waits until the others have ended:
    subprocess.run would kill DVC a quarter of a second later, while the stage may still write.
    """
    interrupted = False
    command = [*DVC, "repro", *(["--keep-going"] if keep_going else []), *targets(names)]
    with subprocess.Popen(command) as process:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
    return process.returncode == 0, interrupted


def targets(names: Iterable[str]) -> list[str]:
    """Return the stages of these models on which no other one depends."""
    return [stage for name in names for stage in last_stages(name)]


def find_failures(names: Sequence[str]) -> dict[str, str]:
    """Return how far each model came that is not done, after a run of DVC that kept going and failed.

    A stage has failed if DVC does not find it up to date and finds all that it depends on up to date. Without these,
    as after an error in dvc.yaml, DVC has said what is wrong.
    """
    # Imported late, since they take a second.
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from networkx import descendants

    failures = {}
    with contextlib.suppress(DvcException), Repo() as repo:
        changes = repo.status(targets=targets(names), with_deps=True)
        graph = repo.index.graph  # leads from each stage to those that it depends on
        stale = {
            stage for stage in graph if any(change != ALWAYS_CHANGED for change in changes.get(stage.addressing, []))
        }
        for name in names:
            last = [stage for stage in graph if stage.addressing in targets([name])]
            needed = {*last}.union(*(descendants(graph, stage) for stage in last))
            failed = [stage.addressing for stage in needed & stale if not descendants(graph, stage) & stale]
            if failed:
                failures[name] = f"failed at {', '.join(sorted(failed))}"
    return failures or dict.fromkeys(names, "not done: DVC says above why")


def check_git() -> None:
    """Raise RevisionError if DVC would refuse to run.

    An unpacked archive has no git repository. A copy without hidden files, and a folder below the root, have no .dvc.
    """
    if not Path(".dvc").is_dir():
        raise RevisionError(
            "there is no folder .dvc here: run this from the repository root; if this is a copy, copy hidden files, too"
        )
    if any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
        return
    config = configparser.ConfigParser()
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    if not config.getboolean("core", "no_scm", fallback=False):
        raise RevisionError(NO_GIT)


def check_writable() -> None:
    """Raise the system's OSError if nothing can be written here; DVC would report an unexpected error."""
    probe = Path(".dvc/tmp/writable")
    probe.parent.mkdir(exist_ok=True)
    probe.touch()
    probe.unlink()


def locked_outputs() -> list[Path]:
    """Return the outputs that DVC has in its cache. Raises DataError for a file that DVC cannot read."""
    paths = []
    for file in lock_files():
        if not file.exists():
            continue
        lock = load_yaml(file, DataError)
        try:
            paths += [Path(out["path"]) for stage in lock["stages"].values() for out in stage.get("outs", [])]
        except (AttributeError, KeyError, TypeError) as cause:
            raise DataError(
                f"{file} is damaged: `git restore {file}`, or remove it; in both cases `make repro` runs only the "
                "stages that DVC's run cache does not have"
            ) from cause
    return [path for path in paths if METRICS not in path.parents]


def restore(outputs: list[Path], metrics: dict[Path, bytes]) -> None:
    """Restore what existed before the run and is missing; a second Ctrl-C does not stop it."""
    with without_ctrl_c():
        bring_back(outputs, metrics)
    print("The outputs of unfinished stages are as they were before this run.", file=sys.stderr)


def bring_back(outputs: list[Path], metrics: dict[Path, bytes]) -> None:
    """Bring back missing outputs from DVC's cache, and missing metrics from these copies."""
    missing = [str(path) for path in outputs if not path.exists()]
    if missing:
        subprocess.run([*DVC, "checkout", "--quiet", *missing], check=False)
    for path, content in metrics.items():
        if not path.exists():
            with replacing(path) as partial:
                partial.write_bytes(content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    chosen = parser.add_mutually_exclusive_group()
    add_model_option(chosen)
    chosen.add_argument("--all", action="store_true", help="run all models on the list")
    run_tool(main, parser)
