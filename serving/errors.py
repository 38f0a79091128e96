"""Define the errors of requests, and answer any error with {"error": text} and its HTTP status."""

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from onnx_release.core.errors import DataError, InputError, ReleaseError
from onnx_release.data.pixel_limit import TooManyPixelsError
from serving.record import CLIENT_GONE, record_of

MEANINGS = {
    400: "the request is malformed",
    403: "this server does not do that",
    404: "there is no such model or path",
    408: "the request did not arrive in time",
    413: "more than a limit allows: bytes, pixels, files, batch, time or memory to decode",
    415: "this kind of body, or this format of picture, is not accepted",
    422: "an upload cannot be read",
    503: "the queue is full or the server is stopping; Retry-After says when to try again",
    504: "the deadline passed before the answer",
}
SHOWN_PATH = 200  # characters of a client's path that an error message repeats

log = logging.getLogger("serving")


async def answer_or_error(endpoint: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    """Return what the endpoint answers, or the answer to its error."""
    try:
        return await endpoint(request)
    except Exception as error:
        return await error_response(request, error)


async def error_response(request: Request, error: Exception) -> Response:
    """Answer a request that failed with {"error": what is wrong, and what to do}."""
    headers: dict[str, str] = {}
    text = str(error)
    match error:
        case RequestError():
            status = error.status
        case BusyError():
            status, headers = 503, {"Retry-After": str(error.seconds)}
        case DeadlineError():
            status = 504
        case ClientGoneError():
            status = CLIENT_GONE
        case TooManyPixelsError():
            status = 413
        case DataError() | InputError():
            status = 422
        case HTTPException():
            status, headers, text = explain_routing(request, error)
        case RequestValidationError():
            status, text = 400, "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        case _:
            record = record_of(request)
            record.bug = True
            trace = f", traceparent {record.traceparent}" if record.traceparent else ""
            log.error("the request %s failed%s", record.id, trace, exc_info=error)
            status, text = 500, f"the server failed on the request {record.id} and has logged why"
    return Response(orjson.dumps({"error": text}), status, headers, "application/json")


def explain_routing(request: Request, error: HTTPException) -> tuple[int, dict[str, str], str]:
    """Return the status, headers and text for a path or a method that no route takes. GET is HEAD's, too."""
    path, headers = request.scope["path"][:SHOWN_PATH], dict(error.headers or {})
    if error.status_code == 405:
        methods = set(headers["Allow"].split(", "))
        headers["Allow"] = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        return 405, headers, f"{request.method} is not for {path}: use {headers['Allow']}"
    if error.status_code == 404:
        hint = ", and no path ends with a slash" if request.scope["path"].endswith("/") else ""
        listed = ": /docs lists all paths" if getattr(request.app, "openapi_url", None) else ""
        return 404, headers, f"there is nothing at {path}{listed}{hint}"
    return error.status_code, headers, str(error.detail)


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these statuses for OpenAPI."""
    return {status: {"model": Problem, "description": MEANINGS[status]} for status in statuses}


class Problem(BaseModel):
    """The body of every answer to a request that failed."""

    error: str


class RequestError(ReleaseError):
    """A request that is refused with the HTTP `status`; the text says in one sentence what is wrong and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class BusyError(ReleaseError):
    """The queue is full, or the server is stopping; `seconds` is how long to wait before trying again."""

    def __init__(self, text: str, seconds: int) -> None:
        super().__init__(text)
        self.seconds = seconds


class DeadlineError(ReleaseError):
    """The deadline of a request has passed before its answer; what still runs of it is for nobody."""

    def __init__(self) -> None:
        super().__init__(
            "the request was not answered by its deadline: try again when there is less load, or send less"
        )


def check_deadline(deadline: float) -> None:
    """Raise DeadlineError if time.monotonic() is past `deadline`."""
    if time.monotonic() > deadline:
        raise DeadlineError


class ClientGoneError(ReleaseError):
    """The connection closed before the answer; there is nobody to read this."""
