"""Errors of requests with their HTTP status, which app.py answers as {"error": text}."""

from typing import Any

from pydantic import BaseModel

from onnx_release.core.errors import ReleaseError

MEANINGS = {
    400: "the request is malformed",
    404: "there is no such model or path",
    408: "the request did not arrive in time",
    413: "more than a limit allows: bytes, pixels, files, batch",
    415: "this kind of body is not accepted",
    422: "an upload cannot be read",
    503: "the queue is full or the server is stopping; Retry-After says when to try again",
    504: "the deadline passed before the request was begun",
}


class Problem(BaseModel):
    """The body of every answer to a request that failed."""

    error: str


class RequestError(ReleaseError):
    """A request that is refused with the HTTP `status`; the text says in one sentence what is wrong and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Describe these statuses for OpenAPI."""
    return {status: {"model": Problem, "description": MEANINGS[status]} for status in statuses}
