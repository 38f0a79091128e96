"""A small application for the tests of connections and processes, served as the real one is.

`python -m tests.wire_app '{"port": 0}'` takes the settings as JSON. As for a release, only the workers import the
application, which is in tests/wire_routes.py.
"""

import argparse
import json
import sys

from onnx_release.core.command import run_tool
from serving.serve import serve
from serving.settings import Settings


def main(arguments: argparse.Namespace) -> None:
    sys.exit(serve(Settings(**json.loads(arguments.settings)), "tests.wire_routes:create_app"))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("settings")
    run_tool(main, parser)
