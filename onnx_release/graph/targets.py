"""Choose the target of quantization: the types of weights and activations that a CPU or an accelerator needs."""

from dataclasses import dataclass
from typing import Any

from onnx_release.core.errors import ParameterError
from onnx_release.core.files import read_json
from onnx_release.core.paths import ModelFiles

X86 = ("x86_64", "AMD64", "i386", "i686")
ARM = ("aarch64", "arm64", "ARM64")
VNNI = ("avx512_vnni", "avx_vnni", "amx_int8")


@dataclass(frozen=True)
class Target:
    """How to quantize for one kind of machine.

    `reduce_range`: the CPU adds pairs of products in 16 bits, which two large weights saturate (see
    static_quantization/saturation.py). `symmetric`: activations have the zero point 0, as TensorRT requires; it also
    requires biases in float, and a QuantizeLinear before each operator instead of after it.
    """

    name: str
    activation_type: str
    reduce_range: bool = False
    symmetric: bool = False


TARGETS = {
    target.name: target
    for target in (
        Target("avx2", "uint8", reduce_range=True),
        Target("vnni", "uint8"),
        Target("arm64", "int8"),
        Target("tensorrt", "int8", symmetric=True),
    )
}


def choose_target(name: str, hardware: dict[str, Any]) -> Target:
    """Return the target `name`, or for "auto" the best one for the CPU in artifacts/hardware.json.

    Raises ParameterError for a target that this machine cannot run, and for "auto" on a CPU of another kind.
    """
    possible = runnable(hardware)
    if name == "auto":
        if not possible:
            raise ParameterError(
                f"quantize_static.target is auto, but {hardware['architecture']} is neither x86-64 with AVX2 nor ARM: "
                f"choose one of {', '.join(TARGETS)} and run the pipeline on such a machine"
            )
        return TARGETS[possible[0]]
    if name not in possible:
        raise ParameterError(
            f"quantize_static.target is {name}, which this machine ({hardware['cpu']}) cannot run: {NEEDS[name]}. "
            f"Run the pipeline on such a machine, or choose {' or '.join(possible)}"
        )
    return TARGETS[name]


def load_target(files: ModelFiles) -> Target:
    """Read the target that the stage `settings` chose for the model. Raises DataError if it has not run."""
    return TARGETS[read_json(files.target)["target"]]


NEEDS = {
    "avx2": "it needs an x86-64 CPU with AVX2",
    "vnni": "it needs a CPU with VNNI, without which 8-bit weights saturate",
    "arm64": "it needs a 64-bit ARM CPU",
    "tensorrt": "it needs an NVIDIA GPU",
}


def runnable(hardware: dict[str, Any]) -> list[str]:
    """Return the targets that the machine runs, the best one for its CPU first."""
    sets = hardware["instruction_sets"]
    found = []
    if hardware["architecture"] in X86 and any(name in sets for name in VNNI):
        found.append("vnni")
    if hardware["architecture"] in X86 and "avx2" in sets:
        found.append("avx2")
    if hardware["architecture"] in ARM:
        found.append("arm64")
    if hardware["gpus"]:
        found.append("tensorrt")
    return found
