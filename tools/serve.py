"""Serve artifacts/release with the code in it, if it is a release of the model in params.yaml."""

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
    os.execv(sys.executable, [sys.executable, "-m", "serving"])  # it replaces this process, so it gets all signals


def check_release_model(model: str) -> None:
    """Raise ReleaseFolderError unless there is a release of the model."""
    found = read_manifest(RELEASE).model
    if found != model:
        raise ReleaseFolderError(
            f"{RELEASE} is a release of {found}, and params.yaml names {model}: run `make repro` to release {model}, "
            f"or write `model: {found}` there"
        )


if __name__ == "__main__":
    run_tool(main, argparse.ArgumentParser(description=__doc__))
