"""gRPC of a real server: its log, ids and spans, and how its calls move to the workers of the next release."""

import json
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import psutil
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.served import PATIENCE, Server, head, serving
from tests.serving.test_operators import TRACE, collector

ALONE = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own
READY = service_pb2.ModelReadyRequest(name="lengths")
IDS = (("x-request-id", "order-17"), ("traceparent", TRACE))


@contextmanager
def connected(address: str) -> Iterator[Any]:
    with grpc.insecure_channel(address, options=ALONE) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def address_of(server: Server) -> str:
    line = server.printed()
    assert line.startswith("gRPC on 127.0.0.1:")
    return line.split()[-1]


def inference() -> Any:
    message = service_pb2.ModelInferRequest(model_name="lengths")
    message.inputs.add(name="codes", datatype="INT64", shape=[1, 3])
    message.raw_input_contents.append(np.arange(3).tobytes())
    return message


def test_a_call_has_ids_a_line_in_the_log_and_spans_as_a_request_of_http_has(lengths, monkeypatch):
    monkeypatch.setenv("SERVING_LOG_REQUESTS", "true")
    with ExitStack() as stack:
        endpoint, got = stack.enter_context(collector())
        server = stack.enter_context(
            serving(lengths, threads=1, grpc_port=0, otlp_endpoint=endpoint, drain=0.1, idle=0.1)
        )
        stub = stack.enter_context(connected(address_of(server)))
        answer, call = stub.ModelInfer.with_call(inference(), metadata=IDS)
        assert dict(call.trailing_metadata()) == dict(IDS)
        line = json.loads(server.printed())
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelReady(service_pb2.ModelReadyRequest(name="other"), metadata=[("x-request-id", "no id")])
        other = json.loads(server.printed())
        clients, end = {line["client"]}, time.monotonic() + PATIENCE
        while len(clients) == 1 and time.monotonic() < end:
            stub.ModelReady(READY)
            clients.add(json.loads(server.printed())["client"])
    assert len(clients) == 2  # its connection has ended in time for a worker that retires, and another has begun
    wanted = {"id": "order-17", "traceparent": TRACE, "method": "POST", "status": 200, "items": 1, "rows": 1}
    assert {key: line[key] for key in wanted} == wanted
    assert line["path"] == "/inference.GRPCInferenceService/ModelInfer"
    assert line["client"].startswith("127.0.0.1:")
    assert (line["received"], line["sent"]) == (inference().ByteSize(), answer.ByteSize())
    assert min(line[f"{part}_seconds"] for part in ("queue", "prepare", "model")) > 0
    assert (other["path"], other["status"]) == ("/inference.GRPCInferenceService/ModelReady", 404)
    assert dict(refused.value.trailing_metadata()) == {"x-request-id": other["id"]} != {"x-request-id": "no id"}
    spans = {
        span.name: span
        for request in got
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    }
    whole = spans["POST /inference.GRPCInferenceService/ModelInfer"]
    assert f"00-{whole.trace_id.hex()}-{whole.parent_span_id.hex()}-01" == TRACE
    assert {spans[name].parent_span_id for name in ("queue", "prepare", "model")} == {whole.span_id}


def test_new_connections_go_to_the_next_release_as_soon_as_the_one_before_retires(lengths):
    with (
        serving(lengths, threads=1, grpc_port=0, idle=PATIENCE) as server,  # the asker waits for the next release
        server.connect() as asker,
        ExitStack() as stack,
    ):
        address = address_of(server)
        port = int(address.rpartition(":")[2])
        [old] = psutil.Process(server.process.pid).children()
        server.process.send_signal(signal.SIGHUP)
        assert server.printed().startswith("serving the release")
        while asker.send(head("/v2/health/live")).answer().headers["connection"] != "close":
            pass  # until the worker knows that it is to retire
        for _ in range(16):
            stack.enter_context(connected(address)).ModelReady(READY)
        assert not [own for own in old.net_connections("tcp") if own.laddr.port == port and own.raddr]
