"""Take every model, and every kind of model that `tools.new_model` writes, to a release that starts and answers.

    python -m tools.releases [NAME ...]

runs the pipeline of each in a clone in a temporary folder that keeps up this model alone, with few samples and short
timings, so the metrics mean nothing. Then it starts the release as anybody does, waits until it is ready, and asks over
HTTP for the outputs of an evaluation sample, which must equal the pipeline's to the bit. The models are the folders
below models/, whether or not they are listed; the others are what `python -m tools.new_model` writes for each task,
unedited. Exits with code 1 if one of them fails; takes about ten minutes on 2 cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from http.client import HTTPException
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ReleaseError, ReleaseFolderError, RevisionError, SpecError
from onnx_release.core.files import read_json
from onnx_release.core.git import run_git
from onnx_release.core.paths import MODELS, ModelFiles
from onnx_release.core.variants import made_variants
from onnx_release.data.samples import SampleFile
from onnx_release.runtime.onnx_model import OnnxModel
from onnx_release.runtime.release import Release, open_release
from onnx_release.validate.metrics import ValidateMetrics
from serving.tensors import DATATYPES
from tools.clone import list_models, make_clone, run
from tools.new_model import TASKS
from tools.server_process import READY, ServerCommand, ask, post, running

# Enough to run every stage, and no more.
QUICK = {
    "prepare.calibration": "24",
    "prepare.evaluation": "24",
    "quantize_static.minutes": "0.2",
    "validate.resamples": "200",
    "benchmark.starts": "1",
    "benchmark.turn_seconds": "0.02",
    "profile.calls": "10",
}
# torch.compile then returns the network unchanged: to compile it takes longer than all the rest.
ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1"}
AT_ONCE = 2  # pipelines; a short one spends most of its time starting Python, on one core
# These are beside the clone, for the options of `tools.new_model`.
PHOTOGRAPHS, WEIGHTS = Path("../photographs"), Path("../weights.pth")
NEW_MODELS = {
    **{f"new_{task}": ["--task", task] for task in TASKS},
    "new_photographs": ["--task", "classification", "--images", str(PHOTOGRAPHS)],
    "new_weights": ["--task", "classification", "--weights", str(WEIGHTS)],
}
# The weights are those of the network that is written without weights.
UNTRAINED = "new_classification"
SAVE_WEIGHTS = f"""
import torch
from models.{UNTRAINED}.network import Network
torch.save(Network().state_dict(), {str(WEIGHTS)!r})
"""
LINES = 30  # the last lines of a failed command's output that are shown
PATIENCE = 30.0  # seconds to wait for an answer


def main(arguments: argparse.Namespace) -> None:
    if run_git("rev-parse").returncode:
        raise RevisionError("this makes a clone of a git repository, and there is none here: run `git init`")
    names = [*models_below(MODELS), *NEW_MODELS]
    unknown = set(arguments.models) - set(names)
    if unknown:
        raise SpecError(f"there is no model {', '.join(sorted(unknown))}: choose from {', '.join(names)}")
    failed = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {pool.submit(try_release, name): name for name in arguments.models or names}
        try:
            for done in as_completed(running):
                passed, said = done.result()
                print(f"{running[done]}: {said}", flush=True)
                failed += [] if passed else [running[done]]
        except BaseException:
            pool.shutdown(cancel_futures=True)  # otherwise Ctrl-C would wait for all that have not begun
            raise
    if failed:
        sys.exit(f"error: no working release of {', '.join(failed)}: see above")


def models_below(folder: Path) -> list[str]:
    """Return every folder there with files; Python's compiled files do not count, since they outlive a branch."""
    return sorted({path.relative_to(folder).parts[0] for path in folder.glob("*/*") if "__pycache__" not in path.parts})


def try_release(name: str) -> tuple[bool, str]:
    """Return whether the model was released and answers, and a line about it."""
    start = time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            said = release_model(make_clone(Path(folder) / "clone", QUICK), name)
    except (ReleaseError, OSError, HTTPException, subprocess.SubprocessError) as error:
        return False, f"FAILED: {error}"
    return True, f"{said} ({time.perf_counter() - start:.0f} s)"


def release_model(clone: Path, name: str) -> str:
    """Release the model, check its answer, and say which variant it is. Raises ReleaseFolderError if it fails."""
    files = ModelFiles(name)
    if name in NEW_MODELS:
        make_new_model(clone, name)
    list_models(clone, name)
    check_succeeded(run(clone, "tools.repro", "--model", name, env=ENVIRONMENT))
    release = open_release(clone / files.release)
    if release.manifest.model != name:
        raise ReleaseFolderError(f"{files.release} is a release of {release.manifest.model}")
    server = ServerCommand("the release", (sys.executable, "-m", "serving", "--port", "{port}"), release.folder, {})
    with running(server, READY) as found:
        model = clone / files.variant(release.manifest.variant)
        check_answer(found.port, release, model, SampleFile(clone / files.evaluation_samples))
    validations = {
        variant: read_json(clone / ValidateMetrics.path(name, variant)) for variant in made_variants(release.spec)
    }
    failures = [variant for variant, validation in validations.items() if not validation["passed"]]
    return f"{release.manifest.variant} answers" + (f"; {', '.join(failures)} failed validation" if failures else "")


def make_new_model(clone: Path, name: str) -> None:
    """Run `tools.new_model`, after making the files beside the clone that its options name."""
    options = NEW_MODELS[name]
    if str(PHOTOGRAPHS) in options:
        draw_photographs(clone / PHOTOGRAPHS)
    if str(WEIGHTS) in options:
        make_new_model(clone, UNTRAINED)
        command = [sys.executable, "-c", SAVE_WEIGHTS]
        check_succeeded(subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False))
    check_succeeded(run(clone, "tools.new_model", name, *options))


def draw_photographs(folder: Path) -> None:
    """Draw two classes of pictures, forty of each."""
    generator = np.random.default_rng(0)
    for label, shade in (("dark", 60), ("light", 200)):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            pixels = np.clip(generator.normal(shade, 40, (260, 300, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def check_answer(port: int, release: Release, pipelines: Path, samples: SampleFile) -> None:
    """Raise ReleaseFolderError unless the server gives the outputs of the pipeline's model for a sample.

    `pipelines` is the ONNX file that the release should be.
    """
    inputs = samples.batch(0)
    wanted = OnnxModel(pipelines, release.spec, release.runtime).run(inputs)
    tensors = [
        {
            "name": tensor.name,
            "datatype": DATATYPES[tensor.dtype],
            "shape": inputs[tensor.name].shape,
            "data": inputs[tensor.name].ravel().tolist(),
        }
        for tensor in release.spec.inputs
    ]
    path = f"/v2/models/{release.manifest.model}/infer"
    code, content = ask(port, post(path, json.dumps({"inputs": tensors}).encode(), "application/json"))
    if code != 200:
        raise ReleaseFolderError(f"{path} gives {code}: {content!r}")
    found = {
        tensor["name"]: np.array(tensor["data"]).reshape(tensor["shape"]) for tensor in json.loads(content)["outputs"]
    }
    if found.keys() != wanted.keys():
        raise ReleaseFolderError(f"{path} gives the outputs {', '.join(found)} and not {', '.join(wanted)}")
    for name, expected in wanted.items():
        if not np.array_equal(found[name].astype(expected.dtype), expected):
            error = abs(found[name] - expected).max()
            raise ReleaseFolderError(f"the output {name} is not the pipeline's, off by {error}")


def check_succeeded(result: subprocess.CompletedProcess[str]) -> None:
    """Raise ReleaseFolderError with the end of its output if a command failed."""
    if result.returncode:
        printed = (result.stdout + result.stderr).splitlines()[-LINES:]
        raise ReleaseFolderError("\n".join(["", *printed]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "models", nargs="*", metavar="NAME", help="models to take, of models/ and of the new ones; by default all"
    )
    run_tool(main, parser)
