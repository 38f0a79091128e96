"""Serve the release of a model with the code in it."""

import argparse
import os
import sys

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ReleaseFolderError
from onnx_release.runtime.release import read_manifest
from tools.models import add_model_option, chosen_model


def main(arguments: argparse.Namespace) -> None:
    files = chosen_model(arguments.model)
    if not files.release.is_dir():
        raise ReleaseFolderError(f"there is no folder {files.release}: run `make repro MODEL={files.model}`")
    read_manifest(files.release)  # one message if it is none that can be served
    os.chdir(files.release)
    os.execv(sys.executable, [sys.executable, "-m", "serving"])  # it replaces this process, so it gets all signals


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    add_model_option(parser)
    run_tool(main, parser)
