"""Write the hardware, the target of INT8 and the provider to a file each: a change reruns only what needs it."""

import sys

from onnx_release.core.command import run_stage
from onnx_release.core.files import write_json
from onnx_release.core.hardware import describe_hardware
from onnx_release.core.params import load_params
from onnx_release.core.paths import HARDWARE, PROVIDER, TARGET
from onnx_release.graph.probe import find_provider
from onnx_release.graph.targets import choose_target


def main() -> None:
    params = load_params()
    hardware = describe_hardware()
    target = choose_target(params.quantize_static.target, hardware)
    provider = find_provider(params.runtime)
    write_json(HARDWARE, hardware)
    write_json(TARGET, {"target": target.name})
    write_json(PROVIDER, provider)
    if provider["note"]:
        print(provider["note"], file=sys.stderr)


if __name__ == "__main__":
    run_stage(main)
