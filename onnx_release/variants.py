"""The files that the pipeline makes of one network, in the order of the pipeline."""

from pathlib import Path

from onnx_release.errors import BenchmarkError
from onnx_release.paths import variant_model

# What dvc.yaml validates and times, in this order.
VARIANTS = ("export", "fp32", "fp16", "int8_dynamic", "int8_static")
# What every speed-up is relative to: PyTorch as it is.
BASE = "torch_eager"
COMPILED = "torch_compile"
# Fewer bits than float32: these pass within the budget, the others within PyTorch's own rounding.
REDUCED = ("fp16", "int8_dynamic", "int8_static")
# What `explain` holds a variant against, as a folder below artifacts/: quantization starts from the equalized model.
REFERENCES = {"fp32": "export", "fp16": "fp32", "int8_dynamic": "fp32", "int8_static": "calibration"}
# The raw export is there to be compared with; it never ships.
SHIPPABLE = ("fp32", *REDUCED)
# Timed on OpenVINO as well, where that is installed.
ON_OPENVINO = ("fp32", "int8_static")


def variant_files() -> dict[str, Path]:
    """The model of every variant that there is. Raises BenchmarkError if there is none at all."""
    files = {variant: variant_model(variant) for variant in VARIANTS if variant_model(variant).is_file()}
    if not files:
        raise BenchmarkError("artifacts/ holds no variant at all: run `dvc repro`")
    return files
