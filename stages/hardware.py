"""Describe the machine, on which timings, the target of INT8 and the provider depend, once for all models."""

import argparse

from onnx_release.core.command import run_tool
from onnx_release.core.files import write_json
from onnx_release.core.hardware import describe_hardware
from onnx_release.core.paths import HARDWARE


def main(_: argparse.Namespace) -> None:
    write_json(HARDWARE, describe_hardware())


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
