"""`dvc repro`, and if a stage fails or is interrupted, its earlier outputs are back in their places.

The release of another model than the one that runs is not among them.

DVC deletes a stage's outputs before it runs the stage and leaves them deleted when the stage fails. What DVC has in
its cache comes back from there; the metrics, which are in git and not in the cache, come back from a copy.
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
from onnx_release.review.gates import check_gates
from onnx_release.runtime.release import read_manifest

DVC = [sys.executable, "-m", "dvc"]
NO_GIT = """there is no git repository here, and DVC asks for one. Either will do, and then run this again:
  git init                                 # the rest of the tools has what it needs after a first commit
  dvc config --local core.no_scm true      # without git: tools.compare, tools.gate --base and tools.sweep do not run"""


def main(arguments: argparse.Namespace) -> None:
    check_git()
    check_writable()
    locked = locked_outputs()
    if arguments.model:
        set_model(arguments.model)
    params = load_params()
    load_spec(params.model)  # a name that is no folder is "Parameters 'sources' are missing" to DVC
    check_gates(params.gates)  # the gate comes last, and a misspelt one would show only then
    remove_another_release(params.model)  # as the last of what may be refused: it takes a run to come back
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
    """Whether `dvc repro` succeeded, and whether it was interrupted.

    Ctrl-C in a terminal goes to DVC and its stage as well as to this process, which waits until they have ended:
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
    """Raise RevisionError where DVC would refuse to run: in an archive's files, which have no git repository.

    In a copy without the hidden files, or below the root, it would look for its own folder in vain.
    """
    if not Path(".dvc").is_dir():
        raise RevisionError(
            "there is no folder .dvc here: run this from the repository root, and in a copy, copy what is hidden, too"
        )
    if any((folder / ".git").exists() for folder in (Path.cwd(), *Path.cwd().parents)):
        return
    config = configparser.ConfigParser()
    config.read([".dvc/config", ".dvc/config.local"], encoding="utf-8")
    if not config.getboolean("core", "no_scm", fallback=False):
        raise RevisionError(NO_GIT)


def check_writable() -> None:
    """Raise the system's OSError where nothing can be written, of which DVC makes an unexpected error of its own."""
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
            f"params.yaml: model is {model} now; `git restore params.yaml dvc.lock metrics` goes back", file=sys.stderr
        )


def remove_another_release(model: str) -> None:
    """Remove the release of another model: it would stay until the last stage succeeds, as if it were of this one."""
    try:
        found = read_manifest(RELEASE).model
    except ReleaseFolderError:
        return  # there is none, and nothing that could be served
    if found != model:
        remove(RELEASE)
        print(f"{RELEASE} was of {found}, so it is removed: `make repro MODEL={found}` brings it back", file=sys.stderr)


def locked_outputs() -> list[Path]:
    """Every output in dvc.lock that DVC has in its cache. Raises DataError for a lock that DVC could not read."""
    if not LOCK.exists():
        return []
    lock = load_yaml(LOCK, DataError)
    try:
        paths = [Path(out["path"]) for stage in lock["stages"].values() for out in stage.get("outs", [])]
    except (AttributeError, KeyError, TypeError) as cause:
        raise DataError(
            f"{LOCK} is damaged: `git restore {LOCK}`, or remove it; either way `make repro` runs again only what "
            "DVC's run cache does not have"
        ) from cause
    return [path for path in paths if METRICS not in path.parents]


def restore(outputs: list[Path], metrics: dict[Path, bytes]) -> None:
    """Bring back what was there before the run and is gone; a second Ctrl-C does not stop it."""
    with without_ctrl_c():
        bring_back(outputs, metrics)
    print("The outputs of the stage that did not end are as they were before this run.", file=sys.stderr)


def bring_back(outputs: list[Path], metrics: dict[Path, bytes]) -> None:
    """Bring back the outputs that DVC's cache has, and the metrics from these copies, where they are gone."""
    missing = [str(path) for path in outputs if not path.exists()]
    if missing:
        subprocess.run([*DVC, "checkout", "--quiet", *missing], check=False)
    for path, content in metrics.items():
        if not path.exists():
            with replacing(path) as partial:
                partial.write_bytes(content)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder below models/, which params.yaml then names")
    run_tool(main, parser)
