"""Serve the release in the current folder over HTTP."""

import argparse
import sys
from typing import Any

from pydantic import ValidationError
from pydantic_settings import CliApp, CliSettingsSource

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ParameterError, ReleaseFolderError
from serving.settings import Settings


def main(arguments: argparse.Namespace) -> None:
    settings = read_settings(arguments)
    if sys.platform == "win32":
        raise ParameterError("the server runs on Linux and macOS: use WSL, or the release's Dockerfile")
    # Imported late, so that neither --help nor a wrong value waits for the libraries.
    try:
        from serving.serve import serve
    except (ImportError, SyntaxError) as cause:
        raise ReleaseFolderError(
            f"the server cannot be loaded ({cause}): run `pip install -r requirements.txt`, or fetch the release again"
        ) from cause

    sys.exit(serve(settings))


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Read the command line, then the environment, then defaults. Raises ParameterError with each wrong value."""
    if getattr(arguments, "token", None) is not None:
        raise ParameterError("--token: others can read a command line: use --token-file, or SERVING_TOKEN")
    try:
        return CliApp.run(Settings, arguments, cli_settings_source=SOURCE)
    except ValidationError as cause:
        problems = "\n".join(f"  {describe_problem(problem)}" for problem in cause.errors())
        raise ParameterError(f"wrong settings:\n{problems}") from cause


def describe_problem(problem: Any) -> str:
    name = str(problem["loc"][0])
    option, variable = name.replace("_", "-"), name.upper()
    found = "" if name == "token" else f", not {problem['input']!r}"  # a log is no place for a token
    return f"--{option} or SERVING_{variable}: {problem['msg']}{found}"


PARSER = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
SOURCE: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(
    Settings, root_parser=PARSER, case_sensitive=True, cli_kebab_case=True
)

if __name__ == "__main__":
    run_tool(main, PARSER)
