"""Write what timings depend on, so that another machine reruns the benchmark and only that."""

from onnx_release.command import run_stage
from onnx_release.files import write_json
from onnx_release.hardware import describe_hardware
from onnx_release.paths import HARDWARE


def main() -> None:
    write_json(HARDWARE, describe_hardware())


if __name__ == "__main__":
    run_stage(main)
