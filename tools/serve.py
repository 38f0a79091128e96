"""Serve artifacts/release, with the code that lies in it, if it is of the model that params.yaml names."""

import argparse
import os
import sys

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ReleaseFolderError
from onnx_release.core.params import load_params
from onnx_release.core.paths import RELEASE
from onnx_release.runtime.release import read_manifest


def main(_: argparse.Namespace) -> None:
    check_release_model(load_params().model)
    os.chdir(RELEASE)
    os.execv(sys.executable, [sys.executable, "-m", "serving"])  # in place of this process: signals reach the server


def check_release_model(model: str) -> None:
    """Raise ReleaseFolderError unless a release of the model is there."""
    found = read_manifest(RELEASE).model
    if found != model:
        raise ReleaseFolderError(
            f"{RELEASE} is a release of {found}, and params.yaml names {model}: run `make repro` to release {model}, "
            f"or write `model: {found}` there"
        )


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
