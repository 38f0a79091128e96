"""Take every model, and every kind of model that `tools.new_model` writes, to a release that starts and answers.

    python -m tools.releases [NAME ...]

runs the pipeline of each in a clone in a temporary folder, with few samples and short timings, which are of no use but
to run. Then it starts the release as anybody does, and asks over HTTP whether it is ready and for the outputs of an
evaluation sample, which must be the pipeline's to the bit. The models are the folders below models/; the others are
what `python -m tools.new_model` writes for each task, unedited. Ends with code 1 if one of them fails; takes about
ten minutes on 2 cores.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from onnx_release.command import run_tool
from onnx_release.errors import ReleaseError, ReleaseFolderError, SpecError
from onnx_release.files import read_json
from onnx_release.onnx_model import OnnxModel
from onnx_release.paths import EVALUATION, METRICS, MODELS, RELEASE, variant_model
from onnx_release.release import read_manifest
from onnx_release.runtime import load_tuned
from onnx_release.samples import SampleFile, with_batch_axis
from onnx_release.spec import Spec, load_spec
from onnx_release.variants import made_variants
from serving.tensors import DATATYPES
from tests.clone import make_clone, run
from tests.served import Server, head, serving
from tools.new_model import TASKS

# Enough to run every stage, and no more.
QUICK = {
    "prepare.calibration": "24",
    "prepare.evaluation": "24",
    "quantize_static.minutes": "0.2",
    "validate.resamples": "200",
    "benchmark.starts": "1",
    "benchmark.turn_seconds": "0.02",
    "tune.seconds": "null",
    "profile.calls": "10",
}
# torch.compile hands back the network as it is: compiling it takes longer than the rest.
ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1"}
# Beside the clone, for the options of `tools.new_model`.
PHOTOGRAPHS, WEIGHTS = Path("../photographs"), Path("../weights.pth")
NEW_MODELS = {
    **{f"new_{task}": ["--task", task] for task in TASKS},
    "new_photographs": ["--task", "classification", "--images", str(PHOTOGRAPHS)],
    "new_weights": ["--task", "classification", "--weights", str(WEIGHTS)],  # of new_classification's network
}
SAVE_WEIGHTS = f"""
import torch
from models.new_classification.network import Network
torch.save(Network().state_dict(), {str(WEIGHTS)!r})
"""
LINES = 30  # of what a command that failed has printed


def main(arguments: argparse.Namespace) -> None:
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        clone = make_clone(Path(folder) / "clone", QUICK)
        names = [*models_below(clone), *NEW_MODELS]
        unknown = set(arguments.models) - set(names)
        if unknown:
            raise SpecError(f"there is no model {', '.join(sorted(unknown))} to release: there are {', '.join(names)}")
        make_new_models(clone)
        for name in arguments.models or names:
            start = time.perf_counter()
            try:
                said = release(clone, name)
            except (ReleaseError, AssertionError, OSError, subprocess.SubprocessError) as error:
                failed.append(name)
                said = f"FAILED: {error}"
            print(f"{name}: {said} ({time.perf_counter() - start:.0f} s)", flush=True)
    if failed:
        sys.exit(f"error: no release that answers of {', '.join(failed)}: see above")


def models_below(clone: Path) -> list[str]:
    """Every folder below models/, whatever is in it."""
    return sorted(path.name for path in (clone / MODELS).iterdir() if path.is_dir() and path.name != "__pycache__")


def make_new_models(clone: Path) -> None:
    draw_photographs(clone / PHOTOGRAPHS)
    for name, options in NEW_MODELS.items():
        if str(WEIGHTS) in options:
            command = [sys.executable, "-c", SAVE_WEIGHTS]
            check(subprocess.run(command, cwd=clone, capture_output=True, text=True, check=False))
        check(run(clone, "tools.new_model", name, *options))


def draw_photographs(folder: Path) -> None:
    """Two classes of pictures, forty of each."""
    generator = np.random.default_rng(0)
    for label, shade in (("dark", 60), ("light", 200)):
        (folder / label).mkdir(parents=True)
        for number in range(40):
            pixels = np.clip(generator.normal(shade, 40, (260, 300, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{number}.png")


def release(clone: Path, name: str) -> str:
    """What was released of the model, in words, once it has answered. Raises ReleaseFolderError if it does not."""
    check(run(clone, "tools.repro", "--model", name, env=ENVIRONMENT))
    with contextlib.chdir(clone):
        manifest = read_manifest(RELEASE)
        spec = load_spec(name)
        if manifest.model != name:
            raise ReleaseFolderError(f"{RELEASE} is a release of {manifest.model}")
        with serving(RELEASE) as server:
            ask(server, name, spec, manifest.variant)
        failures = [variant for variant in made_variants(spec) if not passed(variant)]
    return f"{manifest.variant} answers" + (f"; {', '.join(failures)} failed validation" if failures else "")


def passed(variant: str) -> bool:
    return bool(read_json(METRICS / "validate" / f"{variant}.json")["passed"])


def ask(server: Server, name: str, spec: Spec, variant: str) -> None:
    """Raises ReleaseFolderError unless the server is ready and gives the variant's own outputs of a sample."""
    ready = server.get("/v2/health/ready")
    if ready.status != 200:
        raise ReleaseFolderError(f"/v2/health/ready gives {ready.status}: {ready.content!r}")
    inputs = with_batch_axis(SampleFile(EVALUATION).inputs(0))
    wanted = OnnxModel(variant_model(variant), spec, load_tuned()).run(inputs)
    tensors = [
        {
            "name": tensor.name,
            "datatype": DATATYPES[tensor.dtype],
            "shape": inputs[tensor.name].shape,
            "data": inputs[tensor.name].ravel().tolist(),
        }
        for tensor in spec.inputs
    ]
    body = json.dumps({"inputs": tensors}).encode()
    with server.connect() as client:
        request = head(f"/v2/models/{name}/infer", "POST", Content_Length=len(body), Content_Type="application/json")
        answer = client.send(request, body).answer("POST")
    if answer.status != 200:
        raise ReleaseFolderError(f"/v2/models/{name}/infer gives {answer.status}: {answer.content!r}")
    for found in answer.json()["outputs"]:
        expected = wanted[found["name"]]
        array = np.array(found["data"], expected.dtype).reshape(found["shape"])
        if not np.array_equal(array, expected):
            raise ReleaseFolderError(
                f"the output {found['name']} is not the pipeline's, off by {abs(array - expected).max()}"
            )


def check(result: subprocess.CompletedProcess[str]) -> None:
    """Raises ReleaseFolderError with the end of what a command printed, if it failed."""
    if result.returncode:
        printed = (result.stdout + result.stderr).splitlines()[-LINES:]
        raise ReleaseFolderError("\n".join(["", *printed]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="NAME", help="those alone, of models/ and of the new ones")
    run_tool(main, parser)
