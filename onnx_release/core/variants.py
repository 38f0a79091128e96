"""The files that the pipeline makes of one network, in the order of the pipeline."""

from pathlib import Path

from onnx_release.core.errors import BenchmarkError, SpecError
from onnx_release.core.files import replacing_folder, write_json, write_text
from onnx_release.core.paths import variant_model
from onnx_release.core.spec import Spec

# What dvc.yaml makes, validates and times, in this order, but for those that a model's spec leaves out.
VARIANTS = ("export", "fp32", "fp16", "int8_dynamic", "int8_static")
# What every speed-up is relative to: PyTorch as it is.
BASE = "torch_eager"
COMPILED = "torch_compile"
# Fewer bits than float32: these pass within the spec's budget, the others within its tolerance.
REDUCED = ("fp16", "int8_dynamic", "int8_static")
# What `explain` holds a variant against, as a folder below artifacts/: quantization starts from the equalized model.
REFERENCES = {"fp32": "export", "fp16": "fp32", "int8_dynamic": "fp32", "int8_static": "calibration"}
# The raw export is there to be compared with; it never ships.
SHIPPABLE = ("fp32", *REDUCED)
# Timed on OpenVINO as well, where that is installed.
ON_OPENVINO = ("fp32", "int8_static")


def made_variants(spec: Spec) -> list[str]:
    """Those of VARIANTS that the model's spec has the pipeline make."""
    return [variant for variant in VARIANTS if variant not in REDUCED or variant in spec.variants]


def check_made(variant: str, spec: Spec) -> None:
    """Raises SpecError for a variant that the spec leaves out."""
    if variant not in made_variants(spec):
        raise SpecError(
            f"{variant} is left out by the model's spec.yaml: add it to `variants` there and run `make repro`"
        )


def leave_out(metrics: Path | None, *outputs: Path) -> None:
    """Write what a stage must write for a variant that the spec leaves out: that it is left out, and nothing else."""
    if metrics is not None:
        write_json(metrics, {"left_out": True})
    for path in outputs:
        if path.suffix == ".csv":
            write_text(path, "left_out\n")  # a table without rows
        else:
            with replacing_folder(path) as partial:
                write_text(partial / "left_out.txt", f"{path.name} is not among `variants` in the model's spec.yaml.\n")


def variant_files() -> dict[str, Path]:
    """The model of every variant that there is. Raises BenchmarkError if there is none at all."""
    files = {variant: variant_model(variant) for variant in VARIANTS if variant_model(variant).is_file()}
    if not files:
        raise BenchmarkError("artifacts/ holds no variant at all: run `dvc repro`")
    return files
