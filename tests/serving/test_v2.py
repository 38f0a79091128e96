"""The Open Inference Protocol over HTTP: Triton's own client, against a server of a small model on a free port."""

import http.client
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from google.protobuf import json_format
from onnx import TensorProto, helper
from tritonclient.grpc.model_config_pb2 import DataType, ModelConfig
from tritonclient.grpc.service_pb2 import ModelStatisticsResponse
from tritonclient.utils import InferenceServerException

from onnx_release.core.params import Runtime
from onnx_release.core.spec import Spec
from onnx_release.runtime.onnx_model import OnnxModel
from serving import protocol
from serving.tensors import DATATYPES
from tests.serving_v2 import serving

ELEMENTS = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "int64": TensorProto.INT64,
    "int32": TensorProto.INT32,
    "int8": TensorProto.INT8,
    "uint8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
SHAPE = ["batch", "width"]
SPEC = Spec.model_validate(
    {
        "task": "tensor",
        "sources": [],
        "variants": [],
        "dimensions": {"batch": {"min": 1, "max": 4, "example": 2}, "width": {"min": 2, "max": 8, "example": 3}},
        "inputs": [{"name": dtype, "dtype": dtype, "shape": SHAPE} for dtype in DATATYPES]
        + [{"name": "pair", "dtype": "float32", "shape": ["batch", 2]}],
        "outputs": [{"name": f"same_{dtype}", "dtype": dtype, "shape": SHAPE} for dtype in DATATYPES]
        + [{"name": "sum", "dtype": "float32", "shape": SHAPE}],
    }
)
INPUTS: dict[str, np.ndarray] = {
    "float32": np.array([[0.1, -0.0, 3.4028235e38], [1e-45, 1 / 3, 16777216]], np.float32),
    "float16": np.array([[0.1, -0.0, 65504], [6e-8, 1 / 3, 2048]], np.float16),
    "int64": np.array([[1, -(2**63), 2**63 - 1], [0, 2**53 + 1, -1]], np.int64),
    "int32": np.array([[1, -(2**31), 2**31 - 1], [0, 2, -1]], np.int32),
    "int8": np.array([[1, -128, 127], [0, 2, -1]], np.int8),
    "uint8": np.array([[1, 255, 128], [0, 2, 3]], np.uint8),
    "bool": np.array([[True, False, True], [False, False, True]]),
    "pair": np.array([[10, 20], [30, 40]], np.float32),
}
# sum = float32 + the first of the pair + bool as a number, all exact for these.
EXACT: dict[str, np.ndarray] = {**INPUTS, "float32": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}
SUM = [[12, 12, 14], [34, 35, 37]]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """Hands every input back, and adds up three of them; all dtypes that a spec may have."""
    nodes = [helper.make_node("Identity", [dtype], [f"same_{dtype}"]) for dtype in DATATYPES]
    nodes += [
        helper.make_node("Gather", ["pair", "zero"], ["first"], axis=1),
        helper.make_node("Cast", ["bool"], ["number"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["float32", "first"], ["both"]),
        helper.make_node("Add", ["both", "number"], ["sum"]),
    ]
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info(t.name, ELEMENTS[t.dtype], t.shape) for t in SPEC.inputs],
        [helper.make_tensor_value_info(t.name, ELEMENTS[t.dtype], t.shape) for t in SPEC.outputs],
        [helper.make_tensor("zero", TensorProto.INT64, [1], [0])],
    )
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return OnnxModel(path, SPEC, Runtime(provider="cpu", intra_threads=1))


@pytest.fixture(scope="module")
def served(model):
    with serving(model.run, SPEC, max_batch=1, queue=3, body_bytes=100_000) as (address, app):
        yield address, app


@pytest.fixture
def client(served):
    with triton.InferenceServerClient(served[0], concurrency=4) as client:
        yield client


def tensors(arrays, binary=True):
    """What the client sends; `binary` for all of them, or a set of names. FP16 is binary always."""
    given = []
    for name, array in arrays.items():
        tensor = triton.InferInput(name, list(array.shape), DATATYPES[array.dtype.name])
        as_binary = name in binary if isinstance(binary, set) else binary
        tensor.set_data_from_numpy(array, binary_data=as_binary or array.dtype == np.float16)
        given.append(tensor)
    return given


def asked(*names, binary=True):
    return [triton.InferRequestedOutput(name, binary_data=binary) for name in names]


def send(served, body, path="/v2/models/tiny/infer", method="POST", **headers):
    """The status, the headers and the JSON of an answer to bytes that no client would send."""
    connection = http.client.HTTPConnection(served[0], timeout=30)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, answer.headers, json.loads(content)


def test_health_and_metadata(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert client.get_server_metadata() == {
        "name": "onnx-release",
        "version": "1",
        "extensions": ["model_repository", "model_configuration", "binary_tensor_data", "statistics"],
    }
    metadata = client.get_model_metadata("tiny")
    assert metadata == client.get_model_metadata("tiny", "1")
    assert (metadata["name"], metadata["versions"], metadata["platform"]) == ("tiny", ["1"], "onnxruntime_onnx")
    assert metadata["inputs"][0] == {"name": "float32", "datatype": "FP32", "shape": [-1, -1]}
    assert metadata["inputs"][-1] == {"name": "pair", "datatype": "FP32", "shape": [-1, 2]}
    assert [output["datatype"] for output in metadata["outputs"]] == [*DATATYPES.values(), "FP32"]


def test_another_model_or_version_is_not_there(client):
    for call, says in (
        (lambda: client.get_model_metadata("other"), "there is no model 'other' here: this is tiny"),
        (lambda: client.get_model_metadata("tiny", "2"), "tiny has no version '2': there is 1"),
        (lambda: client.infer("other", tensors(INPUTS)), "there is no model 'other' here"),
        (lambda: client.infer("tiny", tensors(INPUTS), "2"), "tiny has no version '2'"),
    ):
        with pytest.raises(InferenceServerException, match=says) as refused:
            call()
        assert refused.value.status() == "404"
    assert not client.is_model_ready("other")
    assert not client.is_model_ready("tiny", "2")


def test_the_configuration_is_one_of_triton_s(client):
    config = client.get_model_config("tiny")
    assert config == client.get_model_config("tiny", "1")
    message = json_format.ParseDict(config, ModelConfig())  # refuses what ModelConfig does not have
    assert (message.name, message.backend, message.max_batch_size) == ("tiny", "onnxruntime", 3)
    assert [(entry.name, list(entry.dims)) for entry in message.input][-1] == ("pair", [2])
    assert [entry.data_type for entry in message.output][:1] == [DataType.TYPE_FP32]
    assert message.HasField("dynamic_batching")


def test_the_configuration_of_a_model_without_rows_has_every_axis():
    with serving(dict, small([])) as served:
        _, _, config = send(served, None, "/v2/models/tiny/config", "GET")
    assert config["max_batch_size"] == 0 and "dynamic_batching" not in config
    assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}}]


def counted(client, *model):
    [found] = client.get_inference_statistics(*model)["model_stats"]
    return found


def test_statistics_count_what_succeeds_and_what_fails(client):
    before = counted(client, "tiny")
    client.infer("tiny", tensors(EXACT))
    client.infer("tiny", tensors(EXACT))
    with pytest.raises(InferenceServerException):
        client.infer("tiny", tensors(without("pair")))
    with pytest.raises(InferenceServerException):
        client.infer("other", tensors(EXACT))  # counts for no model that is here
    after = counted(client, "tiny")
    assert after == counted(client, "tiny", "1") == counted(client)
    json_format.ParseDict({"model_stats": [after]}, ModelStatisticsResponse())
    assert after["inference_count"] - before["inference_count"] == 4  # of two rows each
    assert after["last_inference"] > before["last_inference"]
    found = {name: after["inference_stats"][name]["count"] - value["count"] for name, value in stages(before).items()}
    works = dict.fromkeys(("success", "queue", "compute_input", "compute_infer", "compute_output"), 2)
    assert found == {**works, "fail": 1}
    spent = {name: after["inference_stats"][name]["ns"] - value["ns"] for name, value in stages(before).items()}
    assert all(ns > 0 for ns in spent.values())
    parts = ("queue", "compute_input", "compute_output")  # the calls of its rows may run at the same time
    assert sum(spent[name] for name in parts) < spent["success"]
    assert after["execution_count"] - before["execution_count"] == 4  # a call has one row here
    assert calls_of_one_row(after) - calls_of_one_row(before) == 4


def stages(statistics):
    return statistics["inference_stats"]


def calls_of_one_row(statistics):
    return sum(entry["compute_infer"]["count"] for entry in statistics["batch_stats"] if entry["batch_size"] == 1)


def test_the_repository_has_the_one_model(served, client):
    ready = {"name": "tiny", "version": "1", "state": "READY", "reason": ""}
    assert client.get_model_repository_index() == [ready]
    path = "/v2/repository/index"
    assert send(served, b'{"ready": true}', path)[2] == [ready]
    served[1].state.ready = False
    try:
        assert send(served, b'{"ready": true}', path)[2] == []
        assert send(served, b"{}", path)[2] == [
            {**ready, "state": "UNAVAILABLE", "reason": "the server is starting or stopping"}
        ]
    finally:
        served[1].state.ready = True
    for body, status, says in ((b'{"ready": 1}', 400, "the request is {'ready': 1}"), (b"{", 400, "is not JSON")):
        found, _, answer = send(served, body, path)
        assert found == status and says in answer["error"] and 'send {"ready": true}' in answer["error"]
    assert send(served, b" " * 5000, path)[0] == 413


def test_models_are_neither_loaded_nor_unloaded(client):
    for call in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=r"one release, tiny, .*: start another server") as refused:
            call("tiny")
        assert refused.value.status() == "403"
        with pytest.raises(InferenceServerException, match="there is no model 'other'") as refused:
            call("other")
        assert refused.value.status() == "404"


@pytest.mark.parametrize("binary", [True, False, {"int64", "pair"}], ids=["binary", "json", "mixed"])
@pytest.mark.parametrize("binary_out", [True, False], ids=["binary out", "json out"])
def test_every_dtype_comes_back_as_it_was_sent(client, binary, binary_out):
    names = [f"same_{dtype}" for dtype in DATATYPES]
    outputs = [out for name in names for out in asked(name, binary=binary_out or name == "same_float16")]
    result = client.infer("tiny", tensors(INPUTS, binary), outputs=outputs)
    assert [output["name"] for output in result.get_response()["outputs"]] == names
    for dtype in DATATYPES:
        found = result.as_numpy(f"same_{dtype}")
        assert (found.dtype, found.shape) == (dtype, (2, 3))
        assert found.tobytes() == INPUTS[dtype].tobytes()


def test_the_model_has_been_run(client):
    assert client.infer("tiny", tensors(EXACT)).as_numpy("sum").tolist() == SUM


def test_each_output_is_as_it_was_asked_for(client):
    outputs = asked("sum", binary=False) + asked("same_int8") + asked("same_bool", binary=False)
    result = client.infer("tiny", tensors(EXACT), outputs=outputs, request_id="a request")
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("tiny", "1", "a request")
    assert [("data" in output, output.get("parameters")) for output in answer["outputs"]] == [
        (True, None),
        (False, {"binary_data_size": 6}),
        (True, None),
    ]
    assert result.as_numpy("sum").tolist() == SUM
    assert result.as_numpy("same_int8").tolist() == EXACT["int8"].tolist()
    assert result.as_numpy("same_bool").tolist() == EXACT["bool"].tolist()


def test_requests_at_once_get_their_own_answers(model):
    """There is room in the queue for the two rows of each."""
    waiting = {}
    with (
        serving(model.run, SPEC, max_batch=1, queue=24) as served,
        triton.InferenceServerClient(served[0], concurrency=4) as client,
    ):
        for number in range(12):
            arrays = {**EXACT, "float32": np.full((2, 3), number, np.float32), "bool": np.zeros((2, 3), bool)}
            waiting[number] = client.async_infer(
                "tiny", tensors(arrays), outputs=asked("sum", binary=number % 2 == 0), request_id=str(number)
            )
        for number, request in waiting.items():
            result = request.get_result(timeout=30)
            assert result.get_response()["id"] == str(number)
            assert result.as_numpy("sum").tolist() == [[number + 10] * 3, [number + 30] * 3]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_compressed_request_is_read_and_the_answer_may_be_plain(client, algorithm):
    for binary in (True, False):
        result = client.infer(
            "tiny",
            tensors(EXACT, binary),
            request_compression_algorithm=algorithm,
            response_compression_algorithm=algorithm,
        )
        assert result.as_numpy("sum").tolist() == SUM


def test_a_version_and_parameters_that_change_nothing_are_taken(client):
    result = client.infer("tiny", tensors(EXACT), "1", priority=1, timeout=10**6, parameters={"mine": 1})
    assert result.as_numpy("sum").tolist() == SUM


def without(name):
    return {key: array for key, array in EXACT.items() if key != name}


@pytest.mark.parametrize(
    ("arrays", "options", "status", "says"),
    [
        (without("pair"), {}, "400", "pair missing"),
        (
            {**EXACT, "mask": EXACT["bool"]},
            {},
            "400",
            "there is no input called 'mask': the model has float32, float16",
        ),
        ({**EXACT, "int8": EXACT["uint8"]}, {}, "400", "int8 has the datatype 'UINT8' where INT8 is declared"),
        (
            {**EXACT, "pair": EXACT["float32"]},
            {},
            "400",
            r"pair has the shape \[2, 3\] where \['batch', 2\] is declared",
        ),
        ({**EXACT, "float32": np.array([[1, np.nan, 2]] * 2, np.float32)}, {}, "400", r"float32 has nan at \[0, 1\]"),
        ({name: array.repeat(2, 0) for name, array in EXACT.items()}, {}, "413", "float32 has 4 items: send at most 3"),
        (EXACT, {"outputs": asked("y")}, "400", "there is no output called 'y': the model has same_float32"),
        (EXACT, {"outputs": asked("same_float16", binary=False)}, "400", "FP16, which JSON does not have"),
        (EXACT, {"outputs": [triton.InferRequestedOutput("sum", class_count=2)]}, "400", "as a classification"),
        (EXACT, {"sequence_id": 5}, "400", "sequence_id is not supported"),
    ],
    ids=["missing", "name", "dtype", "shape", "nan", "batch", "output", "fp16", "classification", "sequence"],
)
def test_the_client_is_told_what_is_wrong(client, arrays, options, status, says):
    with pytest.raises(InferenceServerException, match=says) as refused:
        client.infer("tiny", tensors(arrays), **options)
    assert refused.value.status() == status


def test_infinity_goes_both_ways_as_binary_data_and_not_as_json(client):
    given = np.array([[1, -np.inf, 2], [np.inf, 1, 2]], np.float32)
    arrays = {**EXACT, "float32": given, "float16": given.astype(np.float16)}
    with pytest.raises(InferenceServerException, match="JSON has no Infinity: send the input as binary data"):
        client.infer("tiny", tensors(arrays, binary=False))
    with pytest.raises(InferenceServerException, match=r"same_float32 has NaN or Infinity.*: ask for binary_data"):
        client.infer("tiny", tensors(arrays), outputs=asked("same_float32", binary=False))
    result = client.infer("tiny", tensors(arrays))
    for name in ("float32", "float16"):
        assert result.as_numpy(f"same_{name}").tolist() == given.tolist()


def test_shared_memory_is_refused(client):
    outputs = asked("sum")
    outputs[0].set_shared_memory("region", 24)
    with pytest.raises(InferenceServerException, match="the output sum asks for shared memory, which this server"):
        client.infer("tiny", tensors(EXACT), outputs=outputs)


@pytest.mark.parametrize(
    ("body", "headers", "status", "says"),
    [
        (b"", {}, 400, "the body is empty"),
        (b"[]", {}, 400, "the request is []: give a JSON object"),
        (b"{}", {"Inference_Header_Content_Length": "3"}, 400, "the body has only 2 bytes"),
        (b"{}", {"Content_Encoding": "br"}, 415, "the Content-Encoding is 'br'"),
        (b"{}", {"Content_Encoding": "gzip"}, 400, "the body is not gzip data"),
        (b" " * 100_001, {}, 413, "the body has 100,001 bytes"),
    ],
    ids=["empty", "a list", "length", "encoding", "not gzip", "too large"],
)
def test_bytes_that_no_client_sends_are_answered_with_the_reason(served, body, headers, status, says):
    found, _, answer = send(served, body, **headers)
    assert (found, list(answer)) == (status, ["error"])
    assert says in answer["error"]


def test_a_header_that_is_given_twice_is_refused(served):
    connection = http.client.HTTPConnection(served[0], timeout=30)
    connection.putrequest("POST", "/v2/models/tiny/infer")
    for length in ("2", "1"):
        connection.putheader("Inference-Header-Content-Length", length)
    connection.putheader("Content-Length", "2")
    connection.endheaders(b"{}")
    answer = connection.getresponse()
    assert answer.status == 400
    assert json.loads(answer.read())["error"] == "Inference-Header-Content-Length is given 2 times: give it once"
    connection.close()


def test_tensors_are_read_and_written_off_the_event_loop(client, monkeypatch):
    threads = []
    for name in ("decompress", "decode_request", "encode_response"):
        function = getattr(protocol, name)

        def noting(*args, function=function):
            threads.append(threading.current_thread().name)
            return function(*args)

        monkeypatch.setattr(protocol, name, noting)
    client.infer("tiny", tensors(EXACT))
    assert len(threads) == 3
    assert all(name.startswith("engine-") for name in threads)


def test_a_server_that_is_not_ready_says_so_and_lives(served, client):
    app = served[1]
    app.state.ready = False
    try:
        assert client.is_server_live()
        assert not client.is_server_ready()
        assert not client.is_model_ready("tiny")
        for path in ("/v2/health/ready", "/v2/models/tiny/ready"):
            status, headers, answer = send(served, None, path, "GET")
            assert (status, headers["Retry-After"]) == (503, "1")
            assert answer == {"error": "the server is not ready: it is starting or stopping"}
    finally:
        app.state.ready = True
    assert client.is_server_ready()


def test_a_full_queue_is_answered_at_once(model):
    entered, go_on = threading.Semaphore(0), threading.Event()

    def held(inputs):
        entered.release()
        assert go_on.wait(30)
        return model.run(inputs)

    body, length = triton.InferenceServerClient.generate_request_body(
        tensors(EXACT), outputs=asked("sum", binary=False)
    )
    with serving(held, SPEC, queue=2) as served, ThreadPoolExecutor() as pool:
        first = pool.submit(send, served, body, Inference_Header_Content_Length=str(length))
        assert entered.acquire(timeout=30)
        status, headers, answer = send(served, body, Inference_Header_Content_Length=str(length))
        assert (status, headers["Retry-After"]) == (503, "1")
        assert "the queue of 2 is full" in answer["error"]
        go_on.set()
        status, _, answer = first.result(timeout=30)
        assert (status, answer["outputs"][0]["data"]) == (200, np.ravel(SUM).tolist())


class Held:
    """A model whose calls wait until it is let go."""

    def __init__(self):
        self.entered, self.go_on = threading.Semaphore(0), threading.Event()

    def __call__(self, inputs):
        self.entered.release()
        assert self.go_on.wait(30)
        return {"y": inputs["x"]}


def ask(width):
    """A request of one row of `width` numbers, as JSON."""
    return json.dumps(
        {"inputs": [{"name": "x", "shape": [1, width], "datatype": "FP32", "data": [0] * width}]}
    ).encode()


def test_the_deadline_is_kept_whatever_the_threads_do():
    """No more than two requests run, and both threads are held until all requests are answered."""
    model = Held()
    with serving(model, small(["batch", 3]), max_batch=1, deadline=0.2) as served, ThreadPoolExecutor() as pool:
        for status, _, answer in pool.map(send, [served] * 5, [ask(3)] * 5):
            assert (status, answer["error"].split(":")[0]) == (504, "the request was not answered by its deadline")
        begun = served[1].state.engine.pending
        assert begun <= 2
        model.go_on.set()
    assert sum(model.entered.acquire(blocking=False) for _ in range(5)) <= begun


@pytest.mark.parametrize("width", [3, 300_000], ids=["short", "long"])
def test_a_client_that_leaves_gives_back_the_place_where_it_waits(width):
    model = Held()
    with serving(model, small(["batch", width]), max_batch=1) as served, ThreadPoolExecutor() as pool:
        working = [pool.submit(send, served, ask(width)) for _ in range(2)]
        assert model.entered.acquire(timeout=30) and model.entered.acquire(timeout=30)
        engine = served[1].state.engine
        leaving = http.client.HTTPConnection(served[0], timeout=30)
        leaving.request("POST", "/v2/models/tiny/infer", ask(width))
        while engine.pending < 3:
            pass
        leaving.close()
        while engine.pending > 2:
            pass
        model.go_on.set()
        assert [future.result(timeout=30)[0] for future in working] == [200, 200]


def test_a_value_that_the_model_cannot_take_is_the_request_s_fault(save_graph):
    """A token beyond the vocabulary is of the right dtype and shape."""
    path = save_graph(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [("x", TensorProto.INT64, ["batch", 2])],
        [("y", TensorProto.INT64, ["batch", 2])],
        {"table": np.arange(4) * 10},
    )
    spec = small(["batch", 2], "int64")
    model = OnnxModel(path, spec, Runtime(provider="cpu", intra_threads=1))
    with serving(model.run, spec) as served, triton.InferenceServerClient(served[0]) as client:
        assert client.infer("tiny", tensors({"x": np.array([[3, 1]], np.int64)})).as_numpy("y").tolist() == [[30, 10]]
        with pytest.raises(InferenceServerException, match=r"the model fails on x \[1, 2\]: .*idx=4") as refused:
            client.infer("tiny", tensors({"x": np.array([[3, 4]], np.int64)}))
        assert refused.value.status() == "400"


BATCH = {"min": 1, "max": 4, "example": 2}


def small(shape, dtype="float32", dimensions=None):
    """A spec whose one input is of this shape and dtype; its batch is of up to 4, and `dimensions` are its others."""
    only = {
        "inputs": [{"name": "x", "dtype": dtype, "shape": shape}],
        "outputs": [{"name": "y", "dtype": dtype, "shape": shape}],
    }
    return Spec.model_validate(
        {
            "task": "tensor",
            "sources": [],
            "variants": [],
            "dimensions": ({"batch": {"min": 1, "max": 4, "example": 2}} if "batch" in shape else {})
            | (dimensions or {}),
            **only,
        }
    )


def test_the_example_of_openapi_runs():
    with serving(lambda inputs: {"y": inputs["x"] + 1}, small(["batch", 3])) as served:
        _, _, openapi = send(served, None, "/openapi.json", "GET")
        operation = openapi["paths"]["/v2/models/{name}/infer"]["post"]
        body = operation["requestBody"]["content"]
        example = body["application/json"]["examples"]["zeros"]
        status, _, answer = send(served, json.dumps(example["value"]).encode())
        assert status == 200
        assert answer["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 1.0, 1.0]}]
    assert body["application/octet-stream"]
    assert [(parameter["name"], parameter["in"]) for parameter in operation["parameters"]] == [
        ("name", "path"),
        ("Inference-Header-Content-Length", "header"),
    ]
    assert operation["responses"].keys() >= {"200", "400", "404", "408", "413", "415", "503", "504"}
    assert set(operation["responses"]["200"]["content"]) == {"application/json", "application/octet-stream"}


def test_a_size_may_be_zero_where_the_spec_allows_it():
    spec = small(["batch", "kept"], dimensions={"kept": {"min": 0, "max": 4, "example": 2}})
    with serving(lambda inputs: {"y": inputs["x"]}, spec) as served:
        _, _, openapi = send(served, None, "/openapi.json", "GET")
        assert send(served, ask(0))[2]["outputs"][0]["shape"] == [1, 0]
    content = openapi["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]
    [described] = content["schema"]["properties"]["inputs"]["items"]["anyOf"]
    assert described["properties"]["shape"]["items"] == {"type": "integer", "minimum": 0}


def test_an_axis_that_follows_a_size_is_described_and_checked():
    spec = small(["batch", "kept", "kept + 1"], dimensions={"kept": {"min": 1, "max": 4, "example": 2}})
    with serving(lambda inputs: {"y": inputs["x"]}, spec) as served:
        _, _, openapi = send(served, None, "/openapi.json", "GET")
        content = openapi["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]
        example = content["examples"]["zeros"]["value"]
        assert send(served, json.dumps(example).encode())[2]["outputs"][0]["shape"] == [1, 1, 2]
        example["inputs"][0] |= {"shape": [1, 1, 3], "data": [0] * 3}
        status, _, answer = send(served, json.dumps(example).encode())
        assert status == 400 and "(kept + 1 is 2)" in answer["error"]
    [described] = content["schema"]["properties"]["inputs"]["items"]["anyOf"]
    assert described["properties"]["shape"]["description"] == "batch (1 to 4), kept (1 to 4), kept + 1"


def test_there_is_no_example_that_would_be_too_long_to_show():
    with serving(dict, small(["batch", 3, 224, 224], "uint8")) as served:
        _, _, openapi = send(served, None, "/openapi.json", "GET")
    body = openapi["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]
    assert body["content"]["application/json"]["examples"] == {}
    assert body["description"] == "No example is shown, since x has 150528 numbers at least."


def test_there_is_no_json_example_of_an_input_that_json_does_not_have():
    with serving(dict, small(["batch", 3], "float16")) as served:
        _, _, openapi = send(served, None, "/openapi.json", "GET")
    body = openapi["paths"]["/v2/models/{name}/infer"]["post"]["requestBody"]
    assert body["content"]["application/json"]["examples"] == {}
    assert body["description"] == "No example is shown, since x is FP16, which JSON does not have."
