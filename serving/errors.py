"""What is wrong with a request, and the HTTP status that says so. app.py makes {"error": text} of it."""

from typing import Any

from pydantic import BaseModel

from onnx_release.core.errors import ReleaseError

MEANINGS = {
    400: "the request is malformed",
    404: "there is no such model or path",
    408: "the request did not arrive in time",
    413: "more than a limit allows: bytes, pixels, files, batch",
    415: "another kind of body than this takes",
    422: "an upload that cannot be read",
    503: "the queue is full or the server is going down; Retry-After says when to come again",
    504: "the deadline passed before the work began",
}


class Problem(BaseModel):
    """What every answer that is not the one asked for holds."""

    error: str


class RequestError(ReleaseError):
    """`status` is the HTTP status, the text one sentence: what is wrong and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For OpenAPI: what these statuses mean."""
    return {status: {"model": Problem, "description": MEANINGS[status]} for status in statuses}
