"""Name the variants that the pipeline makes of a network, in its order."""

import sys
from collections.abc import Callable
from pathlib import Path

from onnx_release.core.child_process import ChildError, run_in_child
from onnx_release.core.errors import BenchmarkError, ParameterError, ReleaseError, SpecError
from onnx_release.core.files import replacing_folder, write_json, write_text
from onnx_release.core.metrics import LEFT_OUT, NOT_MADE
from onnx_release.core.paths import ModelFiles
from onnx_release.core.spec import Spec

# dvc.yaml makes, validates and times these, in this order, except those that a model's spec leaves out.
VARIANTS = ("export", "fp32", "fp16", "int8_dynamic", "int8_static")
# Every speed-up is relative to PyTorch as it is.
BASE = "torch_eager"
COMPILED = "torch_compile"
# Variants with reduced precision. They must keep within the spec's budget, those in float32 within its tolerance.
REDUCED = ("fp16", "int8_dynamic", "int8_static")
# `explain` compares a variant with this folder below artifacts/NAME/: quantization starts from the equalized model.
REFERENCES = {"fp32": "export", "fp16": "fp32", "int8_dynamic": "fp32", "int8_static": "calibration"}
# The raw export is only for comparison and is never released.
SHIPPABLE = ("fp32", *REDUCED)
# In the folder of a variant that could not be made: the reason.
NOT_MADE_FILE = "not_made.txt"
# Timed on OpenVINO as well, if it is installed.
ON_OPENVINO = ("fp32", "int8_static")


def made_variants(spec: Spec) -> list[str]:
    """Return the variants that the pipeline makes of a model with this spec."""
    return [variant for variant in VARIANTS if variant not in REDUCED or variant in spec.variants]


def check_made(variant: str, spec: Spec) -> None:
    """Raise SpecError for a variant that the spec leaves out."""
    if variant not in made_variants(spec):
        raise SpecError(
            f"the model's spec.yaml leaves {variant} out: add it to `variants` there and run `make repro MODEL=NAME`"
        )


def leave_out(metrics: Path | None, *outputs: Path) -> None:
    """Write a stage's metrics and outputs for a variant that the spec leaves out: a note that it is left out."""
    if metrics is not None:
        write_json(metrics, {LEFT_OUT: True})
    for path in outputs:
        if path.suffix == ".csv":
            write_no_rows(path, LEFT_OUT)
        else:
            with replacing_folder(path) as partial:
                write_text(partial / "left_out.txt", f"{path.name} is not among `variants` in the model's spec.yaml.\n")


def write_no_rows(path: Path, why: str) -> None:
    """Write a table without rows, whose only column says why: LEFT_OUT or NOT_MADE."""
    write_text(path, f"{why}\n")


def make_variant(model: str, variant: str, metrics: Path, folder: Path, *ways: Callable[[str], None]) -> None:
    """Let one of `ways`, functions of a module, write the metrics and the folder of a model's variant.

    Each is tried in a child process, the next one if the one before crashes it. A failure is a result: both then say
    why, and the run goes on with the other variants. Raises ParameterError and SpecError, which a person corrects
    before the variant can be tried.
    """
    way, *others = ways
    try:
        run_in_child(way, model)
    except (ParameterError, SpecError):
        raise
    except ReleaseError as error:
        if isinstance(error, ChildError) and others:
            make_variant(model, variant, metrics, folder, *others)
            return
        reason = f"{error}\nIf you do not need {variant}, take it out of `variants` in models/{model}/spec.yaml"
        print(f"{variant} of {model} could not be made: {reason}", file=sys.stderr)
        not_made(reason, metrics, folder)


def not_made(reason: str, metrics: Path, folder: Path) -> None:
    """Write the metrics and the folder of a variant that could not be made."""
    write_json(metrics, {NOT_MADE: reason})
    with replacing_folder(folder) as partial:
        write_text(partial / NOT_MADE_FILE, f"{reason}\n")


def why_not_made(folder: Path) -> str:
    """Return why the variant of this folder could not be made; empty if it was made, or is left out."""
    path = folder / NOT_MADE_FILE
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def variant_files(files: ModelFiles) -> dict[str, Path]:
    """Return the ONNX file of every variant that was made. Raises BenchmarkError if there is none."""
    found = {variant: files.variant(variant) for variant in VARIANTS if files.variant(variant).is_file()}
    if not found:
        raise BenchmarkError(f"{files.artifacts}/ has no variant: run `make repro MODEL={files.model}`")
    return found
