"""`dvc repro`, and if a stage fails or is interrupted, its earlier outputs are back in their places.

The release of another model than the one that runs is not among them.

DVC deletes a stage's outputs before it runs the stage and leaves them deleted when the stage fails. What DVC has in
its cache comes back from there; the metrics, which are in git and not in the cache, come back from a copy.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from onnx_release.command import run_tool
from onnx_release.errors import ReleaseFolderError
from onnx_release.files import remove, replacing, write_text
from onnx_release.gates import check_gates
from onnx_release.params import load_params
from onnx_release.paths import METRICS, PARAMS, RELEASE
from onnx_release.release import read_manifest
from onnx_release.spec import load_spec

DVC = [sys.executable, "-m", "dvc"]
LOCK = Path("dvc.lock")


def main(arguments: argparse.Namespace) -> None:
    if arguments.model:
        set_model(arguments.model)
    params = load_params()
    remove_another_release(params.model)
    check_gates(params.gates)  # the gate comes last, and a misspelt one would show only then
    outputs = [path for path in locked_outputs() if path.exists()]
    metrics = {path: path.read_bytes() for path in METRICS.rglob("*") if path.is_file()}
    succeeded = False
    try:
        succeeded = subprocess.run([*DVC, "repro"], check=False).returncode == 0
    finally:
        if not succeeded:
            restore(outputs, metrics)
            remove_another_release(params.model)
    sys.exit(0 if succeeded else 1)


def set_model(model: str) -> None:
    """Write the model's name to params.yaml. Raises SpecError for a model that there is not."""
    load_spec(model)
    before = PARAMS.read_text(encoding="utf-8")
    after = re.sub(r"^model: *\S+", f"model: {model}", before, count=1, flags=re.MULTILINE)
    if after != before:
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
    """Every output in dvc.lock that DVC has in its cache."""
    if not LOCK.exists():
        return []
    stages = YAML(typ="safe").load(LOCK.read_text(encoding="utf-8")).get("stages", {})
    paths = [Path(out["path"]) for stage in stages.values() for out in stage.get("outs", [])]
    return [path for path in paths if METRICS not in path.parents]


def restore(outputs: list[Path], metrics: dict[Path, bytes]) -> None:
    """Bring back what was there before the run and is gone."""
    missing = [str(path) for path in outputs if not path.exists()]
    if missing:
        subprocess.run([*DVC, "checkout", "--quiet", *missing], check=False)
    for path, content in metrics.items():
        if not path.exists():
            with replacing(path) as partial:
                partial.write_bytes(content)
    print("The outputs of the stage that failed are as they were before this run.", file=sys.stderr)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", help="a folder below models/, which params.yaml then names")
    run_tool(main, parser)
