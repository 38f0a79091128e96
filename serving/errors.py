"""What is wrong with a request, and the HTTP status that says so. app.py makes {"error": text} of it."""

from onnx_release.errors import ReleaseError


class RequestError(ReleaseError):
    """`status` is the HTTP status, the text one sentence: what is wrong and what to do."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
