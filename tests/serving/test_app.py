"""The application apart from any release: what is called first, and what any error becomes."""

import asyncio
from types import SimpleNamespace
from typing import cast

import pytest
from fastapi import Request, Response
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from starlette.types import Receive, Scope, Send

from onnx_release.runtime.release import Release
from serving.app import Application, default_batch, explain_errors
from serving.errors import RequestError
from serving.record import RequestRecord, record_of, recorded


async def echo(request: Request) -> Response:
    body = await request.body()
    if not body:
        raise RequestError(400, "the body is empty")
    return Response(body)


class Failing:
    """Middleware that lets nothing through."""

    def __init__(self, app):
        pass

    async def __call__(self, scope, receive, send):
        raise ValueError("middleware")


@pytest.mark.parametrize(
    ("variant", "on_cpu", "rows"),
    [("fp32", True, 4), ("int8_static", True, 4), ("int8_dynamic", True, 1), ("fp16", False, 8)],
)
def test_batches_are_of_few_on_a_cpu_and_of_one_where_they_would_move_an_answer(variant, on_cpu, rows):
    release = cast(Release, SimpleNamespace(manifest=SimpleNamespace(variant=variant)))
    assert default_batch(release, on_cpu) == rows


def ask(method, path, body=b"x"):
    """The status, the body, and the route that a request to the application ends at."""
    app = Application()
    app.first = APIRoute("/predict", echo, methods=["POST"])
    app.add_middleware(Failing)
    scope = {"type": "http", "method": method, "path": path, "headers": [], "query_string": b""}
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message):
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    start, answer = sent
    return start["status"], answer["body"], scope["route"].path


def test_the_first_route_is_called_ahead_of_middleware():
    assert ask("POST", "/predict") == (200, b"x", "/predict")


def test_and_what_it_raises_is_explained():
    assert ask("POST", "/predict", b"") == (400, b'{"error":"the body is empty"}', "/predict")


@pytest.mark.parametrize(("method", "path"), [("GET", "/predict"), ("POST", "/predict/"), ("POST", "/")])
def test_everything_else_is_fastapi_s(method, path):
    with pytest.raises(ValueError, match="middleware"):
        ask(method, path)


@pytest.mark.parametrize(("method", "path"), [("POST", "/predict"), ("GET", "/other")])
def test_a_bug_s_traceback_has_the_id_of_its_request_and_comes_once(caplog, method, path):
    """Starlette raises once more what it has answered, and uvicorn would log it without the id."""

    async def fail(request: Request) -> Response:
        raise OSError("a disk")

    app = Application()
    app.first = APIRoute("/predict", fail, methods=["POST"])
    app.add_api_route("/other", fail)
    explain_errors(app)
    app.entrance = recorded(app.respond, ())
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    answer = TestClient(app).request(method, path, headers={"X-Request-ID": "bad-luck", "Traceparent": trace})
    assert (answer.status_code, answer.headers["x-request-id"], answer.headers["traceparent"]) == (
        500,
        "bad-luck",
        trace,
    )
    assert "bad-luck" in answer.json()["error"]
    [line] = [record for record in caplog.records if record.exc_info]
    assert line.getMessage() == f"the request bad-luck failed, traceparent {trace}"
    assert line.exc_info and str(line.exc_info[1]) == "a disk"


def test_a_connection_that_is_kept_holds_no_upload_of_its_last_request():
    """It keeps the request's scope, and with it the record, until the next request."""
    counted, scopes = [], []

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        record_of(Request(scope)).timed(dict, dict)
        await Response()(scope, receive, send)

    def observe(scope: Scope, record: RequestRecord) -> None:
        counted.append(len(record.items))
        scopes.append(scope)

    TestClient(recorded(work, (observe,))).get("/")
    assert counted == [1]
    assert record_of(Request(scopes[0])).items == []
