"""What an operator sees and sets: request ids, the log, metrics, spans, the token, hosts and origins."""

import http.server
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from onnx_release.core.errors import ParameterError
from serving.metrics_port import CONNECTIONS
from serving.spans import INSTALL, Spans
from tests.imports import ROOT
from tests.in_process import run_here
from tests.served import PATIENCE, Client, head

TOKEN = "c2VjcmV0LXRva2Vu=="
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PROCESS = ("process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds")
TEXTS = [("file", ("a.txt", b"abc")), ("file", ("b.txt", b"abcd"))]


class Running:
    """A server: `lines` is what it printed before it was ready, and the rest once the block has ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self.lines: list[str] = []
        while not self.lines or not self.lines[-1].startswith("serving on "):
            line = process.stdout.readline()
            assert line, process.communicate()[1]
            self.lines.append(line)
        self.address = self.lines[-1].split()[-1]
        self.port = int(self.address.rpartition(":")[2])
        self.errors = ""

    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines if line.startswith("{")]

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(self.address + path, headers=headers, timeout=PATIENCE)

    def predict(self, **headers: str) -> requests.Response:
        return requests.post(self.address + "/predict", files=TEXTS, headers=headers, timeout=PATIENCE)


@contextmanager
def serving(lengths: Path, *options: str, **environment: str) -> Iterator[Running]:
    process = start(lengths, *options, **environment)
    try:
        server = Running(process)
        yield server
        process.terminate()
        printed, server.errors = process.communicate(timeout=PATIENCE)
        server.lines += printed.splitlines()
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def start(lengths: Path, *options: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "serving", "--port", "0", *options],
        cwd=lengths,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_every_request_has_an_id_a_line_in_the_log_and_a_place_in_its_numbers(lengths):
    """Those that the application answers, those that are refused, and those whose head is no HTTP."""
    with serving(lengths, "--log-requests", "--receive", "1") as server:
        answer = server.predict(**{"X-Request-ID": "order-17", "traceparent": TRACE, "X-Forwarded-For": "10.0.0.9"})
        assert answer.status_code == 200
        assert (answer.headers["x-request-id"], answer.headers["traceparent"]) == ("order-17", TRACE)
        long = server.get("/nothing?secret=1", **{"X-Request-ID": "x" * 129, "traceparent": TRACE.upper()})
        assert re.fullmatch("[0-9a-f]{32}", long.headers["x-request-id"])
        assert "traceparent" not in long.headers
        other = server.get("/v2", Origin="https://a.example")
        assert "access-control-allow-origin" not in other.headers
        found = series(f"{server.address}/metrics")
        assert found["serving_queue_seconds_count"] == found["serving_prepare_seconds_count"] == [({}, 2.0)]
        assert found["serving_decode_seconds_count"] == found["serving_preprocess_seconds_count"] == [({}, 2.0)]
        sums = {name: found[f"serving_{name}_seconds_sum"][0][1] for name in ("prepare", "decode", "preprocess")}
        assert min(sums.values()) > 0
        assert sums["prepare"] > sums["decode"] + sums["preprocess"]
        assert all([set(labels) for labels, _ in found[name]] == [{"pid"}] for name in PROCESS)
        with Client(server.port) as slow, Client(server.port) as broken:
            late = slow.send(head("/predict", "POST", Content_Length=9, X_Request_ID="late")).answer()
            assert (late.status, late.headers["x-request-id"]) == (408, "late")
            refused = broken.send(b"GET / HTX\r\n\r\n").answer()
            assert refused.status == 400
    assert server.errors == ""
    lines = {line["id"]: line for line in server.log()}
    made = {answer.headers["x-request-id"] for answer in (long, other, refused)}
    assert set(lines) > {"order-17", "late", *made}
    assert len(server.log()) == len(lines) == 6  # with that for /metrics

    line = lines["order-17"]
    assert line.keys() >= {"time", "client", "seconds"}
    wanted = {"method": "POST", "path": "/predict", "status": 200, "items": 2, "rows": 2, "sent": len(answer.content)}
    assert {key: line[key] for key in wanted} == wanted
    assert (line["traceparent"], line["forwarded_for"]) == (TRACE, "10.0.0.9")
    assert line["received"] == int(answer.request.headers["Content-Length"])
    assert min(line[f"{part}_seconds"] for part in ("queue", "prepare", "model")) > 0
    assert line["queue_seconds"] < line["seconds"]

    line = lines[long.headers["x-request-id"]]
    assert (line["path"], line["status"], line["items"]) == ("/nothing", 404, 0)
    assert lines["late"]["status"] == 408
    assert lines[refused.headers["x-request-id"]]["status"] == 400
    assert "method" not in lines[refused.headers["x-request-id"]]


def test_nothing_but_health_is_answered_without_the_token(lengths, tmp_path):
    (tmp_path / "token").write_text(TOKEN + "\n")
    options = ("--token-file", str(tmp_path / "token"), "--metrics-port", "0", "--cors-origins", "https://a.example")
    with serving(lengths, *options) as server:
        with_token = {"Authorization": f"Bearer {TOKEN}"}
        assert server.get("/v2/health/live").status_code == server.get("/v2/health/ready").status_code == 200
        metrics = server.lines[0].split()[-1]
        for path in "/", "/docs", "/openapi.json", "/v2", "/v2/models/lengths/ready", "/nothing", "/v2/health/live/":
            answer = server.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer"), path
            assert server.get(path, **with_token).status_code != 401
        for wrong in ("Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN} {TOKEN}", "Bearer é"):
            answer = server.predict(Authorization=wrong.encode())  # type: ignore[arg-type]
            assert answer.status_code == 401, wrong
            assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
        assert server.predict(Authorization=f"bearer {TOKEN}").status_code == 200
        assert requests.get(metrics, timeout=PATIENCE).status_code == 401
        assert "serving_requests_total" in requests.get(metrics, headers=with_token, timeout=PATIENCE).text
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        assert requests.options(f"{server.address}/predict", headers=asked, timeout=PATIENCE).status_code == 200
        with Client(server.port) as client:  # a body of any size is not waited for
            refused = client.send(head("/predict", "POST", Content_Length=10**7)).answer()
            assert (refused.status, refused.headers["connection"]) == (401, "close")
    assert TOKEN not in server.errors + "".join(server.lines)


@pytest.mark.parametrize("content", [b"", b"two words", b"\xff", None])
def test_a_token_file_without_a_token_stops_the_start(lengths, tmp_path, content):
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    run = run_here(lengths, "serving", "--port", "0", "--token-file", str(path))
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith(f"error: the token file {path} ")
    assert run.stderr.count("\n") == 1


def test_two_tokens_stop_the_start(lengths):
    run = run_here(lengths, "serving", "--port", "0", "--token-file", "x", env={"SERVING_TOKEN": TOKEN})
    assert run.returncode == 1
    assert run.stderr == "error: there is a SERVING_TOKEN and a token file: give one of them\n"


def test_only_the_allowed_hosts_origins_and_addresses_are_answered(lengths):
    hosts, origins = "a.example,*.b.example,[::1]", "https://a.example,http://localhost:3"
    options = ("--allowed-hosts", hosts, "--cors-origins", origins, "--no-docs", "--no-page", "--no-metrics")
    with serving(lengths, *options, SERVING_METRICS_PORT="0") as server:
        assert server.lines[:-1] == []  # no port for metrics either
        for path in "/docs", "/redoc", "/openapi.json", "/", "/page/page.js", "/metrics":
            slash = ", and no path ends with a slash" if path == "/" else ""
            missing = server.get(path, Host="a.example")
            assert (missing.status_code, missing.json()["error"]) == (404, f"there is nothing at {path}{slash}")
        for host in "a.example", "A.Example:81", "x.b.example", "x.y.b.example:1", "[::1]", "[::1]:80":
            assert server.predict(Host=host).status_code == 200, host
        for host in "b.example", "xb.example", "a.example.org", "a.example:x", "127.0.0.1", "[::2]", "::1", "":
            assert server.predict(Host=host).status_code == 421, host
            assert server.get("/v2/health/live", Host=host).status_code == 200, host
        for origin, allowed in ("https://a.example", True), ("http://localhost:3", True), ("http://a.example", False):
            answer = server.predict(Host="a.example", Origin=origin)
            assert answer.status_code == 200  # a browser, not the server, keeps it from the page
            assert answer.headers.get("access-control-allow-origin") == (origin if allowed else None)
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Host": "a.example"}
            asked["Access-Control-Request-Headers"] = "content-type, x-request-id, authorization"
            answer = requests.options(f"{server.address}/predict", headers=asked, timeout=PATIENCE)
            assert (answer.status_code == 200) == allowed
            if not allowed:
                assert answer.json() == {"error": "Disallowed CORS origin: see --cors-origins"}


def series(address: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The labels and values of each series that /metrics has in the format of OpenMetrics."""
    accept = "application/openmetrics-text; version=1.0.0"
    answer = requests.get(address, headers={"Accept": accept}, timeout=PATIENCE)
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((sample.labels, sample.value))
    return found


def test_metrics_say_where_time_goes_which_release_answers_and_what_each_process_uses(lengths):
    with serving(lengths, "--workers", "2", "--metrics-port", "0") as server:
        assert server.get("/metrics").status_code == 404
        address = server.lines[0].split()[-1]
        assert server.predict().status_code == 200
        found = series(address)
        for name in "queue", "prepare":
            assert found[f"serving_{name}_seconds_count"] == [({}, 2.0)]
        assert found["serving_queue_items"] == [({}, 0.0)]
        manifest = json.loads((lengths / "MANIFEST.json").read_text())
        [(labels, value)] = found["serving_model_info"]
        assert value == 1
        assert (labels["model"], labels["variant"]) == ("lengths", manifest["variant"])
        assert labels["sha256"] == manifest["files"]["model.onnx"]["sha256"]
        for name in PROCESS:
            assert len({labels["pid"] for labels, _ in found[name]}) == len(found[name]) == 2
            assert all(value > 0 for _, value in found[name])
        for odd in "application/openmetrics-text; version=x", "text/plain; version=x, */*":
            assert requests.get(address, headers={"Accept": odd}, timeout=PATIENCE).status_code == 200


def test_connections_to_the_port_for_metrics_have_limits(lengths):
    with serving(lengths, "--metrics-port", "0", "--idle", "0.2") as server, ExitStack() as stack:
        address = server.lines[0].split()[-1]
        port = int(urlsplit(address).netloc.rpartition(":")[2])
        with Client(port) as silent:
            assert silent.closed()
        with Client(port) as long:
            assert long.send(head("/metrics", X="x" * 70_000)).answer().status == 431
        for _ in range(CONNECTIONS):
            stack.enter_context(Client(port)).send(b"G")
        with Client(port) as refused:
            assert refused.answer().status == 503
        stack.close()
        while (status := requests.get(address, timeout=PATIENCE).status_code) == 503:
            pass  # until the server knows that they have left
        assert status == 200


def test_a_port_for_metrics_that_is_taken_stops_the_start(lengths):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = run_here(lengths, "serving", "--port", "0", "--metrics-port", port)
    assert run.returncode == 1
    assert (
        f"cannot listen on 127.0.0.1:{port}" in run.stderr and "choose another --metrics-port or --host" in run.stderr
    )


@contextmanager
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    """The address of a collector of spans, and what it gets."""
    got: list[ExportTraceServiceRequest] = []

    class Collector(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Collector) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", got
        finally:
            listening.shutdown()
            thread.join()


def test_a_request_is_a_span_with_its_parent_and_what_its_items_cost(lengths):
    with collector() as (address, got), serving(lengths, "--otlp-endpoint", address) as server:
        assert server.predict(traceparent=TRACE).status_code == 200
    [resource] = [resource for request in got for resource in request.resource_spans]
    assert ("service.name", "lengths") in [(x.key, x.value.string_value) for x in resource.resource.attributes]
    spans = {span.name: span for scope in resource.scope_spans for span in scope.spans}
    assert set(spans) == {"POST /predict", "queue", "prepare", "model"}
    whole = spans["POST /predict"]
    assert f"00-{whole.trace_id.hex()}-{whole.parent_span_id.hex()}-01" == TRACE
    assert {x.key: x.value.int_value for x in whole.attributes}["http.response.status_code"] == 200
    for name in "queue", "prepare", "model":
        part = spans[name]
        assert part.parent_span_id == whole.span_id
        assert whole.start_time_unix_nano <= part.start_time_unix_nano < part.end_time_unix_nano
        assert part.end_time_unix_nano <= whole.end_time_unix_nano


def test_spans_without_their_packages_are_an_error_with_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("opentelemetry.sdk", "opentelemetry.exporter"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk", None)  # as if it were not installed
    with pytest.raises(ParameterError, match="packages that are not installed") as raised:
        Spans("http://127.0.0.1:4318", "lengths")
    assert INSTALL in str(raised.value)
    assert INSTALL in (ROOT / "docs/serving.md").read_text(encoding="utf-8")
