"""Write what timings depend on, and what INT8 is made for: another machine reruns what that changes, and no more."""

from onnx_release.command import run_stage
from onnx_release.files import write_json
from onnx_release.hardware import describe_hardware
from onnx_release.params import load_params
from onnx_release.paths import HARDWARE, TARGET
from onnx_release.targets import choose_target


def main() -> None:
    hardware = describe_hardware()
    target = choose_target(load_params().quantize_static.target, hardware)
    write_json(HARDWARE, hardware)
    write_json(TARGET, {"target": target.name})


if __name__ == "__main__":
    run_stage(main)
