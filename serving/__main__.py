"""Serve the release in the current folder over HTTP."""

import argparse
import json
import os
import sys
from typing import Any

from pydantic import SecretStr, ValidationError
from pydantic_settings import CliApp, CliSettingsSource

from onnx_release.core.command import run_tool
from onnx_release.core.errors import ParameterError
from serving.settings import Settings
from serving.tokens import read_token
from serving.worker_process import WORKER


def main(arguments: argparse.Namespace) -> None:
    if arguments.worker:
        work_as_told(json.loads(os.environ.pop(WORKER)))
        return
    settings = read_settings(arguments)
    if sys.platform == "win32":
        raise ParameterError("the server runs on Linux and macOS: use WSL, or the release's Dockerfile")
    if settings.token_file is not None:
        # Here, so that what is wrong with it is said once; and for all workers, also for those of a release that is
        # in the folder later, since the file may have moved with the one before.
        token = SecretStr(read_token(settings) or "")
        settings = settings.model_copy(update={"token": token, "token_file": None})
    # Imported late, so that neither --help nor a wrong value waits for the libraries.
    from serving.serve import serve

    sys.exit(serve(settings))


def work_as_told(given: dict[str, Any]) -> None:
    """Be a worker process of the server that serving/worker_process.py describes."""
    from serving.serve import loading

    with loading():
        from serving.worker import work
    try:
        settings = Settings(**given["settings"])
    except ValidationError as cause:  # in another release than the one that read them from the command line
        raise wrong_settings(cause) from cause
    work(settings, given["app"], given["channel"])


def read_settings(arguments: argparse.Namespace) -> Settings:
    """Read the command line, then the environment, then defaults. Raises ParameterError with each wrong value."""
    if getattr(arguments, "token", None) is not None:
        raise ParameterError("--token: others can read a command line: use --token-file, or SERVING_TOKEN")
    try:
        return CliApp.run(Settings, arguments, cli_settings_source=SOURCE)
    except ValidationError as cause:
        raise wrong_settings(cause) from cause


def wrong_settings(cause: ValidationError) -> ParameterError:
    problems = "\n".join(f"  {describe_problem(problem)}" for problem in cause.errors())
    return ParameterError(f"wrong settings:\n{problems}")


def describe_problem(problem: Any) -> str:
    name = str(problem["loc"][0])
    option, variable = name.replace("_", "-"), name.upper()
    found = "" if name == "token" else f", not {problem['input']!r}"  # a log is no place for a token
    return f"--{option} or SERVING_{variable}: {problem['msg']}{found}"


PARSER = argparse.ArgumentParser(prog="python -m serving", description=__doc__)
# For serving/worker_process.py alone. An older release does not know it, and so ends at once.
PARSER.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
SOURCE: CliSettingsSource[argparse.ArgumentParser] = CliSettingsSource(
    Settings, root_parser=PARSER, case_sensitive=True, cli_kebab_case=True
)

if __name__ == "__main__":
    run_tool(main, PARSER)
