"""Import the inner parts of uvicorn on which serving/connection.py builds, and check that they are as it needs them.

uvicorn promises only its settings, and its protocol moves from release to release. A name that is gone would be noticed
in the middle of a request; here it is one message before the first.
"""

import dis
from importlib.metadata import version
from types import FunctionType
from typing import Any

from serving.serve import StartError

TESTED = "0.54.0"  # the version in requirements-serving.txt


def other_uvicorn(problem: str) -> StartError:
    installed = version("uvicorn")
    return StartError(f"uvicorn {installed} lacks what this server needs ({problem}): pip install uvicorn=={TESTED}")


try:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
    from uvicorn.server import ServerState
except ImportError as cause:
    raise other_uvicorn(str(cause).partition(" (")[0]) from cause

__all__ = ["HttpToolsProtocol", "RequestResponseCycle", "ServerState", "check_uvicorn"]

# fmt: off
# What Connection uses of its base, and what it and Cycle use of the object for a request.
CONNECTION = frozenset((
    "_start_asgi_task", "_unset_keepalive_if_required", "client", "connection_lost", "connection_made", "connections",
    "cycle", "flow", "headers", "loop", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete",
    "on_response_complete", "parser", "pause_writing", "pipeline", "resume_writing", "scope", "server_state",
    "shutdown", "timeout_keep_alive", "timeout_keep_alive_handler", "timeout_keep_alive_task", "transport", "url",
))
REQUEST = frozenset((
    "body", "disconnected", "flow", "keep_alive", "message_event", "response_complete", "response_started",
    "run_asgi", "scope", "send", "transport",
))
# fmt: on


def check_uvicorn() -> None:
    """Raise StartError if a name is missing."""
    missing = [f"HttpToolsProtocol.{name}" for name in CONNECTION - names_in(HttpToolsProtocol)]
    missing += [f"RequestResponseCycle.{name}" for name in REQUEST - names_in(RequestResponseCycle)]
    if missing:
        raise other_uvicorn(", ".join(sorted(missing)))


def names_in(kind: Any) -> set[str]:
    """Return the names that a class has, and the attributes that its methods set."""
    methods = [value for base in kind.__mro__ for value in vars(base).values() if isinstance(value, FunctionType)]
    steps = [step for method in methods for step in dis.get_instructions(method)]
    return {*dir(kind), *(step.argval for step in steps if step.opname == "STORE_ATTR")}
