"""Define the errors of requests, and answer any error with {"error": text} and its HTTP status."""

import logging
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from onnx_release.core.errors import DataError, InputError, ReleaseError
from onnx_release.data.pixel_limit import TooManyPixelsError

MEANINGS = {
    400: "the request is malformed",
    404: "there is no such model or path",
    408: "the request did not arrive in time",
    413: "more than a limit allows: bytes, pixels, files, batch, time or memory to decode",
    415: "this kind of body, or this format of picture, is not accepted",
    422: "an upload cannot be read",
    503: "the queue is full or the server is stopping; Retry-After says when to try again",
    504: "the deadline passed before the request was begun",
}
# nginx's status for a client that closed its connection; nobody reads it.
CLIENT_GONE = 499

log = logging.getLogger("serving")


async def error_response(_: Request, error: Exception) -> Response:
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
            status, headers, text = (
                error.status_code,
                dict(error.headers or {}),
                f"{error.detail}: /docs lists all paths",
            )
        case RequestValidationError():
            status, text = 400, "; ".join(f"{problem['loc'][-1]}: {problem['msg']}" for problem in error.errors())
        case _:
            log.error("a request failed", exc_info=error)
            status, text = 500, "the server failed on this request and has logged why"
    return Response(orjson.dumps({"error": text}), status, headers, "application/json")


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
    """The job waited longer than its deadline, and was not begun."""


class ClientGoneError(ReleaseError):
    """The connection closed before the job was begun; there is nobody to read this."""
