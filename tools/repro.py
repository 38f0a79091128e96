"""Run `dvc repro`, and if a stage fails or is interrupted, restore its earlier outputs.

The release of another model is not restored.

DVC deletes a stage's outputs before it runs the stage, and leaves them deleted if the stage fails. Outputs in DVC's
cache are restored from there; the metrics, which are in git and not in the cache, are restored from a copy.
"""

import argparse
import configparser
import re
import subprocess
import sys
from pathlib import Path

from onnx_release.core.command import run_tool, without_ctrl_c
from onnx_release.core.errors import DataError, ParameterError, ReleaseFolderError, RevisionError
from onnx_release.core.files import remove, replacing, write_text
from onnx_release.core.params import Params, load_params
from onnx_release.core.paths import LOCK, METRICS, PARAMS, RELEASE
from onnx_release.core.spec import load_spec
from onnx_release.core.yaml_files import load_yaml, read_yaml
from onnx_release.review.gates import refuse_bad_gates
from onnx_release.runtime.release import read_manifest

DVC = [sys.executable, "-m", "dvc"]
NO_GIT = """there is no git repository here, and DVC needs one. Run one of these, and then this again:
  git init                                 # all other tools work after a first commit
  dvc config --local core.no_scm true      # without git: tools.compare, tools.gate --base and tools.sweep do not run"""


def main(arguments: argparse.Namespace) -> None:
    check_git()
    check_writable()
    locked = locked_outputs()
    if arguments.model:
        set_model(arguments.model)
    params = load_params()
    load_spec(params.model)  # for a missing folder DVC would say "Parameters 'sources' are missing"
    refuse_bad_gates(params.gates)  # now, since the gates come last, and a misspelt one would show only then
    remove_another_release(params.model)  # after all checks, since only a run brings it back
    outputs = [path for path in locked if path.exists()]
    metrics = {path: path.read_bytes() for path in METRICS.rglob("*") if path.is_file()}
    succeeded = interrupted = False
    try:
        succeeded, interrupted = run_dvc()
    finally:
        if not succeeded:
            restore(outputs, metrics)
    if interrupted:
        raise KeyboardInterrupt
    sys.exit(0 if succeeded else 1)


def run_dvc() -> tuple[bool, bool]:
    """Run `dvc repro`; return whether it succeeded, and whether it was interrupted.

    Ctrl-C in a terminal goes to DVC, its stage and this process. This process waits until the others have ended:
    subprocess.run would kill DVC a quarter of a second later, while the stage may still write.
    """
    interrupted = False
    with subprocess.Popen([*DVC, "repro"]) as process:
        while process.returncode is None:
            try:
                process.wait()
            except KeyboardInterrupt:
                interrupted = True
    return process.returncode == 0, interrupted


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


def set_model(model: str) -> None:
    """Write the model's name to params.yaml.

    Raises SpecError for a model that does not exist, and ParameterError if anything else in the file is wrong; the file
    then stays as it is.
    """
    load_spec(model)
    before = PARAMS.read_text(encoding="utf-8")
    after = re.sub(r"^model: *\S+", f"model: {model}", before, count=1, flags=re.MULTILINE)
    if after != before:
        read_yaml(PARAMS, Params, ParameterError, after)
        write_text(PARAMS, after)
        print(
            f"params.yaml: model is {model} now; `git restore params.yaml dvc.lock metrics` undoes it", file=sys.stderr
        )


def remove_another_release(model: str) -> None:
    """Remove the release of another model: until the last stage succeeds, it would look like a release of this one."""
    try:
        found = read_manifest(RELEASE).model
    except ReleaseFolderError:
        return  # there is no release that could be served
    if found != model:
        remove(RELEASE)
        print(f"removed {RELEASE}, which was of {found}: `make repro MODEL={found}` makes it again", file=sys.stderr)


def locked_outputs() -> list[Path]:
    """Return the outputs in dvc.lock that DVC has in its cache. Raises DataError for a file that DVC cannot read."""
    if not LOCK.exists():
        return []
    lock = load_yaml(LOCK, DataError)
    try:
        paths = [Path(out["path"]) for stage in lock["stages"].values() for out in stage.get("outs", [])]
    except (AttributeError, KeyError, TypeError) as cause:
        raise DataError(
            f"{LOCK} is damaged: `git restore {LOCK}`, or remove it; in both cases `make repro` runs only the stages "
            "that DVC's run cache does not have"
        ) from cause
    return [path for path in paths if METRICS not in path.parents]


def restore(outputs: list[Path], metrics: dict[Path, bytes]) -> None:
    """Restore what existed before the run and is missing; a second Ctrl-C does not stop it."""
    with without_ctrl_c():
        bring_back(outputs, metrics)
    print("The outputs of the unfinished stage are as they were before this run.", file=sys.stderr)


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
    parser.add_argument("--model", help="a folder below models/; its name is written to params.yaml")
    run_tool(main, parser)
