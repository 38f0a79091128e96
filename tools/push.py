"""Run `dvc push --run-cache`, and push the files that let another machine restore a run instead of repeating it."""

import argparse

from onnx_release.core.command import run_tool
from onnx_release.sweep.run_cache import push_with_runs


def main(arguments: argparse.Namespace) -> None:
    pushed = push_with_runs(arguments.remote)
    print(f"{pushed.files} files pushed; {pushed.runs} runs are on the remote")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("--remote", help="a name from `dvc remote list`; by default the default remote")
    return made


if __name__ == "__main__":
    run_tool(main, parser())
