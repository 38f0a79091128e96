"""The Open Inference Protocol by gRPC: Triton's own client, against a server of a small model on a free port."""

import asyncio
import queue
import signal
import socket
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from types import SimpleNamespace

import grpc  # type: ignore[import-untyped]
import numpy as np
import psutil
import pytest
import requests
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from fastapi import FastAPI
from prometheus_client import REGISTRY
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from onnx_release.core.errors import ParameterError
from onnx_release.core.spec import Spec
from serving.grpc_server import SHORT_PLACES, answering_grpc
from serving.settings import Settings
from serving.tensors import DATATYPES
from tests.in_process import run_here
from tests.served import PATIENCE
from tests.served import serving as served_release
from tests.serving_v2 import serving

SHAPE = ["batch", "width"]
SPEC = Spec.model_validate(
    {
        "task": "tensor",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}, "width": {"min": 2, "max": 2000, "example": 3}},
        "inputs": [{"name": dtype, "dtype": dtype, "shape": SHAPE} for dtype in DATATYPES],
        "outputs": [{"name": f"same_{dtype}", "dtype": dtype, "shape": SHAPE} for dtype in DATATYPES],
    }
)
INPUTS: dict[str, np.ndarray] = {dtype: np.array([[1, 0, 1], [0, 1, 1]]).astype(dtype) for dtype in DATATYPES}


def same(inputs):
    return {f"same_{name}": array for name, array in inputs.items()}


@contextmanager
def listening(run, spec, **settings):
    """The application and its address of gRPC."""
    with serving(run, spec, grpc_port=0, **settings) as (address, app):
        assert requests.get(f"http://{address}/v2/health/ready", timeout=PATIENCE).ok  # it has started
        yield app, f"127.0.0.1:{app.state.grpc_port}"


@pytest.fixture(scope="module")
def address():
    with listening(same, SPEC, max_batch=1, queue=3, body_bytes=100_000) as (_, address):
        yield address


@pytest.fixture
def client(address):
    with triton.InferenceServerClient(address) as client:
        yield client


@contextmanager
def connected(address):
    with grpc.insecure_channel(address) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


@pytest.fixture
def stub(address):
    with connected(address) as found:
        yield found


def tensors(arrays):
    given = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
        tensor.set_data_from_numpy(array)
        given.append(tensor)
    return given


def shared():
    """The inputs, of which the last is in shared memory."""
    *others, last = tensors(INPUTS)
    last.set_shared_memory("region", 6)
    return [*others, last]


def streamed(client):
    """Raise the error of a stream of inferences."""
    answers: queue.Queue[Exception] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error))
    error = answers.get(timeout=PATIENCE)
    client.stop_stream(cancel_requests=True)
    raise error


def asked(name="same_int8", **options):
    return [triton.InferRequestedOutput(name, **options)]


def test_every_dtype_comes_back_as_it_was_sent(client):
    result = client.infer("tiny", tensors(INPUTS), "1", request_id="a request")
    answer = result.get_response()
    assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1", "a request")
    for dtype, array in INPUTS.items():
        found = result.as_numpy(f"same_{dtype}")
        assert (found.dtype, found.tolist()) == (array.dtype, array.tolist())
    only = client.infer("tiny", tensors(INPUTS), outputs=asked()).get_response()
    assert [output.name for output in only.outputs] == ["same_int8"]


def test_infinity_goes_both_ways_and_nan_is_refused(client):
    given = np.array([[1, -np.inf, 2], [np.inf, 1, 2]], np.float32)
    result = client.infer("tiny", tensors({**INPUTS, "float32": given}))
    assert result.as_numpy("same_float32").tolist() == given.tolist()
    given[0, 1] = np.nan
    with pytest.raises(InferenceServerException, match=r"float32 has nan at \[0, 1\]: give numbers"):
        client.infer("tiny", tensors({**INPUTS, "float32": given}))


def test_a_message_may_be_compressed_and_a_client_need_not_wait(address, client):
    result = client.infer("tiny", tensors(INPUTS), compression_algorithm="gzip")
    assert result.as_numpy("same_int8").tolist() == INPUTS["int8"].tolist()

    async def infer():
        async with triton_aio.InferenceServerClient(address) as waiting:
            assert await waiting.is_model_ready("tiny")
            return await waiting.infer("tiny", tensors(INPUTS))

    assert asyncio.run(infer()).as_numpy("same_int8").tolist() == INPUTS["int8"].tolist()


@pytest.mark.parametrize(
    ("dtype", "field"),
    [
        ("float32", "fp32_contents"),
        ("int64", "int64_contents"),
        ("int32", "int_contents"),
        ("int8", "int_contents"),
        ("uint8", "uint_contents"),
        ("bool", "bool_contents"),
    ],
)
def test_numbers_may_be_typed_in_place_of_raw(dtype, field):
    message = service_pb2.ModelInferRequest(model_name="tiny")
    with listening(lambda inputs: {"y": inputs["x"]}, small(dtype)) as (_, address), connected(address) as stub:
        entry = message.inputs.add(name="x", datatype=DATATYPES[dtype], shape=[1, 2])
        getattr(entry.contents, field).extend([1, 0])
        [raw] = stub.ModelInfer(message).raw_output_contents
        assert np.frombuffer(raw, dtype).tolist() == [1, 0]
        if dtype == "int8":
            entry.contents.int_contents[0] = 128
            with pytest.raises(grpc.RpcError, match="x has 128: INT8 takes whole numbers from -128 to 127"):
                stub.ModelInfer(message)


def test_infinity_is_refused_where_it_is_typed_as_in_json():
    message = service_pb2.ModelInferRequest(model_name="tiny")
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, np.inf])
    refused = pytest.raises(grpc.RpcError, match=r"x has inf: .* infinity in binary data \(of gRPC: raw_input_contents")
    with (
        listening(lambda inputs: {"y": inputs["x"]}, small("float32")) as (_, address),
        connected(address) as stub,
        refused,
    ):
        stub.ModelInfer(message)


def test_numbers_are_not_both_typed_and_raw(stub):
    message = inference()
    message.inputs[1].contents.fp32_contents.append(1)
    with pytest.raises(grpc.RpcError, match=f"{message.inputs[1].name} has contents, and raw_input_contents") as both:
        stub.ModelInfer(message)
    assert both.value.code() == grpc.StatusCode.INVALID_ARGUMENT


def test_fp16_is_raw(stub):
    message = inference()
    del message.raw_input_contents[:]
    with pytest.raises(grpc.RpcError, match="is FP16, which contents does not have"):
        stub.ModelInfer(message)


def small(dtype):
    content = SPEC.model_dump(by_alias=True, exclude_unset=True)
    content["inputs"] = [{"name": "x", "dtype": dtype, "shape": SHAPE}]
    content["outputs"] = [{"name": "y", "dtype": dtype, "shape": SHAPE}]
    return Spec.model_validate(content)


def inference(**options):
    """The message of an inference that runs."""
    message = service_pb2.ModelInferRequest(model_name="tiny", **options)
    for name, array in INPUTS.items():
        message.inputs.add(name=name, datatype=DATATYPES[name], shape=array.shape)
        message.raw_input_contents.append(array.tobytes())
    return message


def test_health_metadata_configuration_statistics_and_repository(client):
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("tiny", "1")
    assert client.get_server_metadata().name == "onnx-release"
    for version in ("", "1"):
        assert list(client.get_model_metadata("tiny", version).inputs[0].shape) == [-1, -1]
        config = client.get_model_config("tiny", version).config
        assert (config.max_batch_size, config.HasField("dynamic_batching")) == (3, True)
        assert client.get_inference_statistics("tiny", version).model_stats[0].version == "1"
    before = client.get_inference_statistics("tiny").model_stats[0]
    client.infer("tiny", tensors(INPUTS))
    with pytest.raises(InferenceServerException):
        client.infer("tiny", tensors({}))
    after = client.get_inference_statistics().model_stats[0]
    assert after.inference_count - before.inference_count == 2  # rows
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.inference_stats.fail.count - before.inference_stats.fail.count == 1
    assert [(model.name, model.state) for model in client.get_model_repository_index().models] == [("tiny", "READY")]


@pytest.mark.parametrize(
    ("call", "code", "says"),
    [
        (lambda client: client.infer("other", tensors(INPUTS)), "NOT_FOUND", "there is no model 'other' here"),
        (lambda client: client.infer("tiny", tensors(INPUTS), "2"), "NOT_FOUND", "tiny has no version '2'"),
        (lambda client: client.get_model_config("other"), "NOT_FOUND", "there is no model 'other'"),
        (lambda client: client.get_inference_statistics("other"), "NOT_FOUND", "there is no model 'other'"),
        (lambda client: client.load_model("tiny"), "PERMISSION_DENIED", "start another server"),
        (lambda client: client.unload_model("tiny"), "PERMISSION_DENIED", "start another server"),
        (lambda client: client.get_log_settings(), "UNIMPLEMENTED", "not found"),
        (lambda client: client.get_trace_settings(), "UNIMPLEMENTED", "not found"),
        (lambda client: client.get_system_shared_memory_status(), "UNIMPLEMENTED", "not found"),
        (lambda client: client.get_cuda_shared_memory_status(), "UNIMPLEMENTED", "not found"),
        (streamed, "UNIMPLEMENTED", "not found"),
        (lambda client: client.infer("tiny", shared()), "INVALID_ARGUMENT", "asks for shared memory"),
        (
            lambda client: client.infer("tiny", tensors(INPUTS), sequence_id=7),
            "INVALID_ARGUMENT",
            "sequence_id is not supported",
        ),
        (lambda client: client.infer("tiny", tensors({})), "INVALID_ARGUMENT", "missing"),
        (
            lambda client: client.infer("tiny", tensors({**INPUTS, "int8": np.zeros((2, 1), np.int8)})),
            "INVALID_ARGUMENT",
            r"int8 has the shape \[2, 1\]",
        ),
        (
            lambda client: client.infer("tiny", tensors({k: x.repeat(2, 0) for k, x in INPUTS.items()})),
            "RESOURCE_EXHAUSTED",
            "float32 has 4 items: send at most 3",
        ),
        (
            lambda client: client.infer("tiny", tensors({k: x.repeat(3000, 1) for k, x in INPUTS.items()})),
            "RESOURCE_EXHAUSTED",
            "larger than max",
        ),
        (
            lambda client: client.infer("tiny", tensors(INPUTS), outputs=asked(class_count=2)),
            "INVALID_ARGUMENT",
            "as a classification",
        ),
    ],
    ids=[
        "model",
        "version",
        "config",
        "stats",
        "load",
        "unload",
        "log",
        "trace",
        "shared",
        "cuda",
        "stream",
        "memory",
        "sequence",
        "none",
        "shape",
        "rows",
        "bytes",
        "classes",
    ],
)
def test_the_client_is_told_what_is_wrong(client, call, code, says):
    with pytest.raises(InferenceServerException, match=says) as refused:
        call(client)
    assert refused.value.status() == f"StatusCode.{code}"


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (b"", "INVALID_ARGUMENT", "the body is empty: send the input in it"),
        (b"\xff" * 20, "INVALID_ARGUMENT", "not a ModelInferRequest"),
        (b"\x32\x00" * 5000, "RESOURCE_EXHAUSTED", "more than 4096 fields"),
        (b"\x2a\x02\xff\xff", "INVALID_ARGUMENT", "not a ModelInferRequest"),
        (b"\x0a\x05ab", "INVALID_ARGUMENT", "not a ModelInferRequest"),
    ],
    ids=["empty", "noise", "many entries", "noise in an input", "cut off"],
)
def test_bytes_that_no_client_sends_are_refused_before_they_are_parsed(address, content, code, says):
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as refused:
            call(content, timeout=PATIENCE)
    assert (refused.value.code().name, says in refused.value.details()) == (code, True), refused.value.details()


def frame(kind, flags, stream, content):
    """A frame of HTTP/2: RFC 9113, section 4.1."""
    return len(content).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + content


def settings_frame(**window):
    """The beginning of a client's connection; `window` is how many bytes of each answer it takes, or the usual."""
    content = b"".join(struct.pack(">HI", 4, size) for size in window.values())
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, content)


def call_frames(address, stream, message, **headers):
    """A call of ModelInfer."""
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/inference.GRPCInferenceService/ModelInfer",
        ":authority": address,
        "te": "trailers",
        "content-type": "application/grpc",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    # Literal fields without indexing: RFC 7541, section 6.2.2.
    fields = [bytes([0, len(k)]) + k.encode() + bytes([len(v)]) + v.encode() for k, v in headers.items()]
    content = b"\0" + len(message).to_bytes(4, "big") + message
    return frame(1, 4, stream, b"".join(fields)) + frame(0, 1, stream, content)


@contextmanager
def raw_connection(address):
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), PATIENCE) as connection, connection.makefile("rb") as frames:
        yield connection, frames


def ended_stream(frames):
    """The first of the calls whose answer has come to its end."""
    stream = flags = kind = 0
    while not (stream and kind < 2 and flags & 1):
        size, kind = struct.unpack(">IB", b"\0" + frames.read(4))
        flags, stream = struct.unpack(">BI", frames.read(5))
        frames.read(size)
    return stream


def test_a_content_length_that_is_no_number_is_no_bug_of_the_server(address, caplog):
    """Triton's client sends none, and gRPC hands on whatever comes."""
    with raw_connection(address) as (connection, frames):
        connection.sendall(settings_frame() + call_frames(address, 1, b"", content_length="many"))
        assert ended_stream(frames) == 1
    assert [record.getMessage() for record in caplog.records if record.name == "serving"] == []


LONG = 100_000  # of the numbers in each row of an answer
LONG_SPEC = Spec.model_validate(
    {
        "task": "tensor",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}},
        "inputs": [{"name": "x", "dtype": "float32", "shape": ["batch"]}],
        "outputs": [{"name": "y", "dtype": "float32", "shape": ["batch", LONG]}],
    }
)


def lengthen(inputs):
    return {"y": inputs["x"][:, None].repeat(LONG, 1)}


def one_row():
    message = service_pb2.ModelInferRequest(model_name="tiny")
    message.inputs.add(name="x", datatype="FP32", shape=[1])
    message.raw_input_contents.append(np.ones(1, np.float32).tobytes())
    return message.SerializeToString()


def test_answers_take_room_until_they_are_read():
    """There is room for two of 400 kB. Of three to a client that reads none, one is refused, and so are others."""
    with (
        listening(lengthen, LONG_SPEC, body_bytes=100_000, buffered_bytes=1_000_000) as (_, address),
        triton.InferenceServerClient(address) as client,
    ):

        def infer(rows):
            return client.infer("tiny", tensors({"x": np.ones(rows, np.float32)}))

        with raw_connection(address) as (connection, frames):
            calls = [call_frames(address, stream, one_row()) for stream in (1, 3, 5)]
            connection.sendall(settings_frame(window=0) + b"".join(calls))
            assert ended_stream(frames) in (1, 3, 5)
            with pytest.raises(InferenceServerException, match="requests with 1,000,000 bytes are in progress") as full:
                infer(1)
            assert full.value.status() == "StatusCode.UNAVAILABLE"
        answer, end = None, time.monotonic() + PATIENCE
        while answer is None and time.monotonic() < end:  # until the server knows that the client has left
            with suppress(InferenceServerException):
                answer = infer(2)
        assert answer is not None and answer.as_numpy("y").shape == (2, LONG)
        with pytest.raises(InferenceServerException, match=r"the answer has 1,200,0\d\d bytes") as large:
            infer(3)
        assert large.value.status() == "StatusCode.RESOURCE_EXHAUSTED"
        infer(2)  # each has given back what it took


def test_a_client_that_reads_nothing_loses_its_connection():
    soon = {"deadline": 0.5, "receive": 0.1, "drain": 0.1, "idle": 0.1}
    with listening(lengthen, LONG_SPEC, **soon) as (_, address), raw_connection(address) as (connection, frames):
        connection.sendall(settings_frame(window=0) + call_frames(address, 1, one_row()))
        frames.read()  # to its end, or this fails for want of patience


def test_a_short_call_takes_no_long_message(address):
    with grpc.insecure_channel(address) as channel:
        with pytest.raises(grpc.RpcError, match="5,000 bytes, and one request may have 4,096"):
            channel.unary_unary("/inference.GRPCInferenceService/ModelReady")(bytes(5000), timeout=PATIENCE)
        with pytest.raises(grpc.RpcError, match="not a ModelConfigRequest"):
            channel.unary_unary("/inference.GRPCInferenceService/ModelConfig")(b"\xff", timeout=PATIENCE)


def test_a_message_that_does_not_come_is_not_waited_for():
    come = threading.Event()

    def silence():
        come.wait(PATIENCE)
        yield from ()

    with listening(same, SPEC, receive=0.1) as (_, address), grpc.insecure_channel(address) as channel:
        call = channel.stream_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError, match=r"did not arrive within 0\.1 seconds"):
            call(silence(), timeout=PATIENCE)
    come.set()


def metadata(client):
    return client.get_model_metadata("tiny")


@pytest.mark.parametrize(
    ("name", "count", "ask"),
    [("ModelInfer", 1, lambda client: client.infer("tiny", tensors(INPUTS))), ("ModelReady", SHORT_PLACES, metadata)],
)
def test_calls_that_send_nothing_make_room_for_those_that_wait(name, count, ask):
    come = threading.Event()

    def silence():
        come.wait(PATIENCE)
        yield from ()

    one_place = {"body_bytes": 100_000, "buffered_bytes": 100_000, "receive": 20}
    with listening(same, SPEC, **one_place) as (_, address), grpc.insecure_channel(address) as channel:
        client = triton.InferenceServerClient(address)
        call = channel.stream_unary(f"/inference.GRPCInferenceService/{name}")
        silent = [call.future(silence(), timeout=PATIENCE) for _ in range(count)]
        if name == "ModelInfer":
            metadata(client)
            assert not silent[0].done()  # or the short call would have waited for its place
        while not all(one.done() for one in silent):
            ask(client)
        assert all("while other calls waited" in one.details() for one in silent)
        come.set()


def test_a_full_queue_and_a_server_that_stops():
    entered, go_on = threading.Semaphore(0), threading.Event()

    def held(inputs):
        entered.release()
        assert go_on.wait(PATIENCE)
        return same(inputs)

    with listening(held, SPEC, queue=2) as (app, address), ThreadPoolExecutor() as pool:
        client = triton.InferenceServerClient(address)
        first = pool.submit(client.infer, "tiny", tensors(INPUTS))
        assert entered.acquire(timeout=PATIENCE)
        with pytest.raises(InferenceServerException, match="the queue of 2 is full") as refused:
            client.infer("tiny", tensors(INPUTS))
        assert refused.value.status() == "StatusCode.UNAVAILABLE"
        app.state.ready = False
        assert not client.is_server_ready()
        with pytest.raises(InferenceServerException, match="the server is not ready"):
            client.infer("tiny", tensors(INPUTS))
        go_on.set()
        assert first.result(PATIENCE).as_numpy("same_int8").tolist() == INPUTS["int8"].tolist()


def failures(client):
    return client.get_inference_statistics().model_stats[0].inference_stats.fail.count


def test_a_client_s_own_deadline_ends_its_request_and_leaves_the_queue():
    entered, go_on, ran = threading.Semaphore(0), threading.Event(), []

    def held(inputs):
        ran.append(len(inputs["int8"]))
        entered.release()
        assert go_on.wait(PATIENCE)
        return same(inputs)

    with listening(held, SPEC, threads=1) as (_, address), ThreadPoolExecutor() as pool:
        client = triton.InferenceServerClient(address)
        before = failures(client)
        busy = [pool.submit(client.infer, "tiny", tensors(INPUTS)) for _ in range(2)]  # one for each thread
        assert all(entered.acquire(timeout=PATIENCE) for _ in busy)
        with pytest.raises(InferenceServerException, match="DEADLINE_EXCEEDED"):
            client.infer("tiny", tensors(INPUTS), client_timeout=0.5)
        end = time.monotonic() + PATIENCE
        while failures(client) == before and time.monotonic() < end:  # until the server has noticed
            pass
        go_on.set()
        assert [answer.result(PATIENCE).as_numpy("same_int8").shape for answer in busy] == [(2, 3), (2, 3)]
        client.infer("tiny", tensors({name: array[:1] for name, array in INPUTS.items()}))
        gone = {"path": "/inference.GRPCInferenceService/ModelInfer", "status": "499"}
        assert REGISTRY.get_sample_value("serving_requests_total", gone)
    assert ran == [2, 2, 1]


def test_a_call_has_the_token_unless_it_is_for_health():
    with listening(same, SPEC, token="secret") as (_, address), triton.InferenceServerClient(address) as client:
        assert client.is_server_live() and client.is_server_ready()
        for headers in ({}, {"authorization": "Bearer other"}):
            for call in (client.get_server_metadata, partial(client.infer, "tiny", tensors(INPUTS))):
                with pytest.raises(InferenceServerException, match="the request has no valid token") as refused:
                    call(headers=headers)
                assert refused.value.status() == "StatusCode.UNAUTHENTICATED"
        client.infer("tiny", tensors(INPUTS), headers={"authorization": "Bearer secret"})


def test_the_traceback_of_a_bug_has_the_ids_of_its_call(caplog):
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    ids = (("x-request-id", "order-17"), ("traceparent", trace))

    def broken(inputs):
        raise RuntimeError("a bug")

    says = pytest.raises(grpc.RpcError, match="the server failed on the request order-17")
    with listening(broken, SPEC) as (_, address), connected(address) as stub, says as failed:
        stub.ModelInfer(inference(), metadata=ids)
    assert failed.value.code() == grpc.StatusCode.INTERNAL
    [logged] = [record for record in caplog.records if record.name == "serving"]
    assert logged.getMessage() == f"the request order-17 failed, traceparent {trace}"
    assert "a bug" in str(logged.exc_info)


def refused_start(app):
    async def start():
        async with answering_grpc(app):
            pass

    with pytest.raises(ParameterError) as refused:
        asyncio.run(start())
    return str(refused.value)


def test_a_port_that_cannot_be_had_ends_the_start():
    app = FastAPI()
    app.state.release, app.state.observers = SimpleNamespace(manifest=SimpleNamespace(model="tiny")), ()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        app.state.settings = Settings(grpc_port=port)
        assert refused_start(app) == f"gRPC cannot listen on 127.0.0.1:{port}: choose another --grpc-port or --host"


def test_the_workers_of_the_next_release_listen_on_the_same_port_and_no_other_server(lengths, tmp_path):
    model = service_pb2.ModelReadyRequest(name="lengths")
    with served_release(lengths, threads=1, grpc_port=0, drain=0.5, idle=0.5) as server:
        line = server.printed()
        assert line.startswith("gRPC on 127.0.0.1:")
        address = line.split()[-1]
        before = psutil.Process(server.process.pid).children()
        with triton.InferenceServerClient(address) as kept:
            assert kept.is_model_ready("lengths")
            server.process.send_signal(signal.SIGHUP)
            while psutil.wait_procs(before, 0)[1]:  # no call is lost meanwhile, on this connection or on a new one
                assert kept.is_model_ready("lengths")
                with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as new:
                    service_pb2_grpc.GRPCInferenceServiceStub(new).ModelReady(model)
            assert server.printed().startswith("serving the release")
            assert kept.is_model_ready("lengths")
        other = run_here(tmp_path, "serving", "--port", "0", "--grpc-port", address.rpartition(":")[2])
    refusal = f"error: cannot listen on {address} (Address already in use): choose another --grpc-port or --host\n"
    assert (other.returncode, other.stderr) == (1, refusal)


def test_a_missing_package_is_named_with_what_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "tritonclient.grpc.service_pb2", None)
    app = FastAPI()
    app.state.settings = Settings(grpc_port=0)
    packages = "--grpc-port needs packages that are not installed"
    assert refused_start(app).startswith(packages)
    assert refused_start(app).endswith(': pip install "tritonclient[grpc]==2.69.0"')
