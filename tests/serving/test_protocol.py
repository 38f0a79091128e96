"""Requests of the Open Inference Protocol: what is decoded has the client's bits, and what is wrong is named."""

import gzip
import json
import tracemalloc
import zlib
from typing import get_args

import numpy as np
import orjson
import pytest

from onnx_release.core.spec import Dtype
from serving.errors import RequestError
from serving.protocol import (
    InferenceRequest,
    decompress,
    encode_response,
    most_rows,
)
from serving.tensors import DATATYPES
from tests.protocol_requests import ARRAYS, SPEC, changed, decode, entry, one_input, request, with_binary


def test_every_dtype_of_a_spec_has_a_datatype():
    assert set(DATATYPES) == set(get_args(Dtype))


def test_json_becomes_the_arrays_of_the_spec():
    decoded = decode(request(id="42"))
    assert decoded.id == "42"
    assert {name: (array.dtype.name, array.tolist()) for name, array in decoded.inputs.items()} == {
        "x": ("float32", [[0.5, 1.0]]),
        "ids": ("int64", [[1, -2]]),
        "mask": ("bool", [[True, False]]),
    }
    assert decoded.outputs == {"y": False}


@pytest.mark.parametrize("pad", range(17))
def test_binary_data_becomes_the_same_wherever_it_begins(pad):
    decoded = decode(*with_binary(ARRAYS, pad=pad))
    for name, array in ARRAYS.items():
        assert decoded.inputs[name].dtype == array.dtype
        assert decoded.inputs[name].tolist() == array.tolist()
        assert decoded.inputs[name].ctypes.data % 16 == 0


def test_binary_data_that_is_aligned_is_not_copied():
    for pad in range(16):
        body, length = with_binary({"x": ARRAYS["x"]}, pad=pad)
        x = decode(body, length, spec=one_input("float32")).inputs["x"]
        if not x.flags.owndata:
            assert not x.flags.writeable
            return
    pytest.fail("16 places, and none of them is aligned")


def test_inputs_are_in_the_order_of_the_spec_and_binary_data_in_that_of_the_request():
    body, length = with_binary(dict(reversed(ARRAYS.items())))
    decoded = decode(body, length)
    assert list(decoded.inputs) == ["x", "ids", "mask"]
    assert decoded.inputs["ids"].tolist() == ARRAYS["ids"].tolist()


def test_json_and_binary_data_may_be_mixed():
    ids = ARRAYS["ids"]
    mixed = {
        "inputs": [
            entry("x", "FP32", [2, 3], ARRAYS["x"].tolist()),
            entry("ids", "INT64", [2, 3], binary_data_size=ids.nbytes),
            entry("mask", "BOOL", [2, 2], [True, False, False, True]),
        ],
        "outputs": [{"name": "y"}],
    }
    header = json.dumps(mixed).encode()
    decoded = decode(header + ids.tobytes(), str(len(header)))
    assert {name: array.tolist() for name, array in decoded.inputs.items()} == {
        name: array.tolist() for name, array in ARRAYS.items()
    }


def bit_patterns(dtype):
    """Arrays [4, 8] of bits that a conversion might lose: ends of the range, the smallest, -0, and many others."""
    if dtype == "bool":
        return [np.arange(32).reshape(4, 8) % 3 == 0]
    if dtype.startswith("float"):
        info, generator = np.finfo(dtype), np.random.default_rng(0)
        special = [info.max, info.min, info.tiny, info.smallest_subnormal, -0.0, 0.1, 1 / 3, 16777217]
        drawn = generator.integers(0, 2**info.bits, 32 * 300, f"uint{info.bits}").view(dtype)
        finite = drawn[np.isfinite(drawn)][: 32 * 250].reshape(-1, 4, 8)
        with np.errstate(over="ignore"):
            special = np.nan_to_num(np.array(special * 4, np.float64).astype(dtype)).reshape(4, 8)
        return [special, *finite]
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    return [np.array([low, high, 0, 1, low + 1, high - 1, 2, 3] * 4, dtype).reshape(4, 8)]


@pytest.mark.parametrize("dtype", DATATYPES)
def test_the_bits_of_an_input_survive(dtype):
    spec = one_input(dtype)
    for array in bit_patterns(dtype):
        body, length = with_binary({"x": array})
        found = [decode(body, length, spec)]
        if dtype != "float16":
            for data in (array.ravel().tolist(), array.tolist()):
                given = {"inputs": [entry("x", DATATYPES[dtype], [4, 8], data)], "outputs": [{"name": "y"}]}
                found.append(decode(given, spec=spec))
        for decoded in found:
            assert decoded.inputs["x"].dtype == dtype
            assert decoded.inputs["x"].tobytes() == array.tobytes()


@pytest.mark.parametrize(
    ("dtype", "binary"),
    [(dtype, binary) for dtype in DATATYPES for binary in (True, False) if binary or dtype != "float16"],
)
def test_the_bits_of_an_output_survive(dtype, binary):
    for array in bit_patterns(dtype):
        body, length = encode_response("m", "1", InferenceRequest({}, {"y": binary}), {"y": array})
        header, tail = (body[:length], body[length:]) if length else (body, b"")
        (output,) = json.loads(header)["outputs"]
        assert (output["name"], output["datatype"], output["shape"]) == ("y", DATATYPES[dtype], [4, 8])
        if binary:
            assert output["parameters"] == {"binary_data_size": array.nbytes}
        else:
            tail = np.array(output["data"], dtype).tobytes()
        assert tail == array.tobytes()


def test_an_answer_has_the_outputs_that_were_asked_for_in_their_order():
    outputs: dict[str, np.ndarray] = {
        "a": np.array([[1]], np.float32),
        "b": np.array([[2]], np.int64),
        "c": np.array([[3]], np.uint8),
    }
    body, length = encode_response("m", "1", InferenceRequest({}, {"c": True, "b": False, "a": True}, "7"), outputs)
    assert json.loads(body[:length]) == {
        "model_name": "m",
        "model_version": "1",
        "id": "7",
        "outputs": [
            {"name": "c", "datatype": "UINT8", "shape": [1, 1], "parameters": {"binary_data_size": 1}},
            {"name": "b", "datatype": "INT64", "shape": [1, 1], "data": [2]},
            {"name": "a", "datatype": "FP32", "shape": [1, 1], "parameters": {"binary_data_size": 4}},
        ],
    }
    assert body[length:] == b"\x03" + np.float32(1).tobytes()


def test_rows_that_are_a_part_of_a_batch_or_not_in_one_piece_are_encoded():
    whole = np.arange(12, dtype=np.int64).reshape(3, 4)
    for part in (whole[1:2], whole[:, ::2], whole.T):
        for binary in (False, True):
            body, length = encode_response("m", "1", InferenceRequest({}, {"y": binary}), {"y": part})
            data = body[length:] if length else np.int64(orjson.loads(body)["outputs"][0]["data"]).tobytes()
            assert data == part.tobytes()


def test_infinity_in_binary_data_is_a_number():
    x = np.array([[0, -np.inf, 2], [np.inf, 1, 0]], np.float32)
    assert decode(*other(x)).inputs["x"].tolist() == x.tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_that_json_does_not_have_is_refused_and_given_as_binary_data(value):
    outputs = {"y": np.array([[1, value]], np.float32)}
    with pytest.raises(RequestError, match="the output y has NaN or Infinity, which JSON lacks: ask for binary_data"):
        encode_response("m", "1", InferenceRequest({}, {"y": False}), outputs)
    body, length = encode_response("m", "1", InferenceRequest({}, {"y": True}), outputs)
    assert body[length:] == outputs["y"].tobytes()


@pytest.mark.parametrize(
    ("top", "expected"),
    [
        ({"outputs": [{"name": "y"}]}, {"y": False}),
        (
            {"outputs": [{"name": "half", "parameters": {"binary_data": True}}, {"name": "y"}]},
            {"half": True, "y": False},
        ),
        ({"parameters": {"binary_data_output": True}, "outputs": []}, {"y": True, "half": True}),
        (
            {
                "parameters": {"binary_data_output": True},
                "outputs": [{"name": "y", "parameters": {"binary_data": False}}, {"name": "half"}],
            },
            {"y": False, "half": True},
        ),
    ],
    ids=["json", "each its own", "all", "overridden"],
)
def test_outputs_are_given_as_they_are_asked_for(top, expected):
    found = decode(request(**top)).outputs
    assert (found, list(found)) == (expected, list(expected))


def test_without_outputs_all_are_given():
    whole = request(parameters={"binary_data_output": True})
    del whole["outputs"]
    assert decode(whole).outputs == {"y": True, "half": True}


def test_parameters_that_change_nothing_are_taken():
    custom = {"priority": 1, "timeout": 1000, "mine": "a", "binary_data_output": False}
    assert decode(request(parameters=custom, model_name="m")).outputs == {"y": False}
    whole = changed("x", parameters={"content_type": "np"})
    whole["outputs"][0]["parameters"] = {"mine": 1}
    assert decode(whole).inputs["x"].tolist() == [[0.5, 1]]


BAD_JSON = {
    "nothing": (b"", "the request is not JSON: Input is a zero-length"),
    "not json": (b"\x89PNG", "the request is not JSON"),
    "not utf-8": (b'{"id": "\xff"}', "the request is not JSON"),
    "cut off": (b'{"inputs": [', "the request is not JSON"),
    "a list": ([1], r"the request is \[1\]: give a JSON object with inputs"),
    "a number": (b"1", "the request is 1: give a JSON object"),
    "null": (b"null", "the request is nothing: give a JSON object"),
    "deep json": (b'{"inputs": ' + b"[" * 2000 + b"]" * 2000 + b"}", "not JSON: depth limit"),
    "deep data": (
        changed("x", data=json.loads("[" * 500 + "1" + "]" * 500)),
        r"x has a list of 1 at depth 1 of its data, where the shape \[1, 2\] has lists of 2",
    ),
    "deep value": (changed("x", data=[1, json.loads("[" * 500 + "]" * 500)]), "x has .* at depth 0 of its data"),
    "deep id": (request(id=json.loads("[" * 500 + "]" * 500)), r"id is \[{7}\.\.\.\]{7}: give a string"),
    "nan": (b'{"inputs": [NaN]}', "NaN is not JSON, nor taken in binary data"),
    "infinity": (b'{"inputs": [-Infinity]}', "JSON has no Infinity: send the input as binary data"),
    "1e400": (b'{"inputs": [1e400]}', "not JSON: number is infinity.*: send the input as binary data"),
    "id": (request(id=7), "id is 7: give a string, or none"),
    "parameters": (request(parameters=[]), r"parameters of the request is \[\]: give an object"),
    "sequence": (request(parameters={"sequence_id": 1}), "sequence_id is not supported"),
    "binary_data_output": (
        request(parameters={"binary_data_output": 1}),
        "binary_data_output of the request is 1: give true or false",
    ),
    "no inputs": ({}, "the model takes x, ids, mask: x, ids, mask missing"),
    "inputs": ({"inputs": {"x": 1}}, "inputs of the request is {'x': 1}: give a list"),
    "an input": ({"inputs": ["x"]}, "inputs has 'x': give objects with a name"),
    "misspelt": (request(x=entry("X", "FP32", [1, 2], [1, 2])), "there is no input called 'X': the model has x, ids"),
    "long name": (
        request(x=entry("X" * 60_000, "FP32", [1, 2], [1, 2])),
        "there is no input called 'X{20,}...X{20,}':",
    ),
    "no name": (request(x={"data": []}), "there is no input called nothing"),
    "name of a list": (request(x=entry(["x"], "FP32", [1, 2], [1, 2])), r"there is no input called \['x'\]"),
    "missing": ({"inputs": request()["inputs"][:2]}, "the model takes x, ids, mask: mask missing"),
    "twice": (request(mask=entry("x", "FP32", [1, 2], [1, 2])), "the input x is given twice"),
    "dtype": (changed("x", datatype="FP64"), "x has the datatype 'FP64' where FP32 is declared"),
    "our name of it": (changed("x", datatype="float32"), "x has the datatype 'float32' where FP32 is declared"),
    "no dtype": (changed("ids", datatype=None), "ids has the datatype nothing where INT64 is declared"),
    "dtype of a list": (changed("x", datatype=["FP32"]), r"x has the datatype \['FP32'\] where FP32"),
    "rank": (changed("x", shape=[2]), r"x has the shape \[2\] where \['batch', 'width'\] is declared"),
    "no batch axis": (changed("x", shape=[9]), r"x has the shape \[9\] where \['batch', 'width'\] is declared"),
    "scalar": (changed("x", shape=[]), r"x has the shape \[\] where"),
    "fixed size": (
        changed("mask", shape=[1, 3], data=[True] * 3),
        r"mask has the shape \[1, 3\] where \['batch', 2\] is declared",
    ),
    "other batch": (changed("ids", shape=[2, 2]), r"ids has the shape \[2, 2\] where .* \(batch is 1\)"),
    "other width": (changed("ids", shape=[1, 3]), r"ids has the shape \[1, 3\] where .* \(width is 2\)"),
    "empty batch": (
        request(entry("x", "FP32", [0, 2], []), entry("ids", "INT64", [0, 2], []), entry("mask", "BOOL", [0, 2], [])),
        "batch is 0, where 1 to 4 is declared",
    ),
    "out of bounds": (
        request(entry("x", "FP32", [1, 9], [1] * 9), entry("ids", "INT64", [1, 9], [1] * 9)),
        "width is 9, where 2 to 8 is declared",
    ),
    "no shape": (changed("x", shape=None), "x has the shape nothing: give a list of whole numbers"),
    "shape": (changed("x", shape="12"), "x has the shape '12': give a list"),
    "negative size": (changed("x", shape=[-1, 2]), r"x has the shape \[-1, 2\]: give a list of whole numbers"),
    "half a size": (changed("x", shape=[1.0, 2]), r"x has the shape \[1.0, 2\]: give a list of whole numbers"),
    "size of true": (changed("x", shape=[True, 2]), r"x has the shape \[True, 2\]: give a list of whole numbers"),
    "huge size": (changed("x", shape=[1, 2**63]), r"x has the shape \[1, 9223372036854775808\] where"),
    "huge product": (changed("mask", shape=[1, 2**40, 2**40]), "mask has the shape .* where"),
    "many axes": (changed("x", shape=[1] * 5000), r"x has the shape \[1, 1, 1, 1, 1, 1, ...\] where"),
    "too few": (changed("x", data=[1]), r"x has 1 element where the shape \[1, 2\] has 2"),
    "too many": (changed("x", data=[1, 2, 3]), r"x has 3 elements where the shape \[1, 2\] has 2"),
    "no elements": (changed("x", data=[]), "x has 0 elements where"),
    "no data": (changed("x", data=None), "x has the data nothing: give a list, or binary data"),
    "data": (changed("x", data="AAAA"), "x has the data 'AAAA': give a list"),
    "ragged": (
        changed("x", data=[[1, 2, 3]]),
        r"x has a list of 3 at depth 1 of its data, where the shape \[1, 2\] has lists of 2",
    ),
    "half nested": (
        request(
            entry("x", "FP32", [2, 2], [[1, 2], 3]),
            entry("ids", "INT64", [2, 2], [1, 2, 3, 4]),
            entry("mask", "BOOL", [2, 2], [True] * 4),
        ),
        r"x has 3 at depth 1 of its data, where the shape \[2, 2\] has lists of 2",
    ),
    "flat and nested": (
        changed("x", data=[1, [2]]),
        r"x has a list of 2 at depth 0 of its data, where the shape \[1, 2\]",
    ),
    "nested too deep": (changed("x", data=[[[1], [2]]]), r"x has \[1\]: FP32 takes numbers"),
    "text": (changed("x", data=[1, "2"]), "x has '2': FP32 takes numbers up to 3.4028235e"),
    "null element": (changed("x", data=[1, None]), "x has nothing: FP32 takes numbers"),
    "object": (changed("x", data=[1, {}]), "x has {}: FP32 takes numbers"),
    "bool for a number": (changed("x", data=[1, True]), "x has True: FP32 takes numbers"),
    "bool for an integer": (changed("ids", data=[1, True]), "ids has True: INT64 takes whole numbers"),
    "float for an integer": (
        changed("ids", data=[1, 2.0]),
        "ids has 2.0: INT64 takes whole numbers from -9223372036",
    ),
    "number for a bool": (changed("mask", data=[True, 1]), "mask has 1: BOOL takes true or false"),
    "over float32": (changed("x", data=[1, -1e39]), r"x has -1e\+39: FP32 takes .* 3.4028235e\+38, and inf"),
    "over int64": (changed("ids", data=[1, 2**63]), "ids has 9223372036854775808: INT64 takes whole numbers from"),
    "over 64 bits": (changed("ids", data=[1, 2**64]), r"ids has 1.8\d+e\+19: INT64 takes whole numbers"),
    "unknown output": (request(outputs=[{"name": "z"}]), "there is no output called 'z': the model has y, half"),
    "an input as output": (request(outputs=[{"name": "x"}]), "there is no output called 'x'"),
    "output": (request(outputs=["y"]), "outputs has 'y': give objects with a name"),
    "outputs": (request(outputs="y"), "outputs of the request is 'y': give a list"),
    "outputs of null": (request(outputs=None), "outputs of the request is nothing: give a list"),
    "output twice": (request(outputs=[{"name": "y"}, {"name": "y"}]), "the output y is asked for twice"),
    "binary_data": (
        request(outputs=[{"name": "y", "parameters": {"binary_data": "yes"}}]),
        "binary_data of the output y is 'yes': give true or false",
    ),
    "classification": (
        request(outputs=[{"name": "y", "parameters": {"classification": 3}}]),
        "the output y is asked for as a classification: this server gives tensors only",
    ),
    "shared memory out": (
        request(outputs=[{"name": "y", "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 8}}]),
        "the output y asks for shared memory, which this server does not have",
    ),
    "shared memory in": (
        request(x=entry("x", "FP32", [1, 2], shared_memory_region="r", shared_memory_byte_size=8)),
        "x asks for shared memory, which this server does not have: send the data itself",
    ),
    "half in json": (request(outputs=[{"name": "half"}]), "the output half is FP16, which JSON does not have: ask for"),
    "no header": (request(x=entry("x", "FP32", [1, 2], binary_data_size=8)), "x has binary_data_size: give the header"),
}


@pytest.mark.parametrize(("content", "says"), BAD_JSON.values(), ids=BAD_JSON)
def test_json_that_is_wrong_is_refused_with_what_is_found_and_declared(content, says):
    with pytest.raises(RequestError, match=says) as refused:
        decode(content)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 400


def other(array, **sizes):
    """A request in binary data, with `array` in place of x or of what has its shape."""
    name = "x" if array.shape == (2, 3) else "mask"
    return with_binary({**ARRAYS, name: array}, ARRAYS, **sizes)


GOOD, LENGTH = with_binary(ARRAYS)
BAD_BINARY = {
    "length of text": (GOOD, "ten", "Inference-Header-Content-Length is 'ten': give the bytes of the JSON object"),
    "negative length": (GOOD, "-1", "Inference-Header-Content-Length is '-1'"),
    "length of spaces": (GOOD, f" {LENGTH}", "Inference-Header-Content-Length is ' "),
    "underscore": (GOOD, "1_0", "Inference-Header-Content-Length is '1_0'"),
    "other digits": (GOOD, "٣", "Inference-Header-Content-Length is '٣'"),
    "endless length": (GOOD, "9" * 10_000, "Inference-Header-Content-Length is '9{20,}...9{20,}'"),
    "empty length": (GOOD, "", "Inference-Header-Content-Length is ''"),
    "length beyond": (GOOD, str(len(GOOD) + 1), f"is {len(GOOD) + 1}, but the body has only {len(GOOD)} bytes"),
    "short length": (GOOD, str(int(LENGTH) - 1), "the request is not JSON"),
    "long length": (GOOD, str(int(LENGTH) + 1), "the request is not JSON"),
    "no length": (GOOD, None, "the request is not JSON"),
    "trailing": (GOOD + b"more", LENGTH, "the body has 4 bytes after the last input: check binary_data_size"),
    "trailing after json": (
        json.dumps(request()).encode() + b"!",
        str(len(json.dumps(request()))),
        "the body has 1 byte after the last input",
    ),
    "cut off": (GOOD[:-1], LENGTH, "the body ends after 3 of the 4 bytes of mask: it is cut off"),
    "first cut off": (GOOD[: int(LENGTH) + 5], LENGTH, "the body ends after 5 of the 24 bytes of x"),
    "byte count": (*with_binary(ARRAYS, x=8), r"x has binary_data_size 8 where FP32 \[2, 3\] takes 24 bytes"),
    "other item size": (*other(np.zeros((2, 3)), x=48), r"x has binary_data_size 48 where FP32 \[2, 3\] takes 24"),
    "negative count": (*with_binary(ARRAYS, x=-24), "x has binary_data_size -24 where"),
    "half a count": (*with_binary(ARRAYS, x=24.0), "x has binary_data_size 24.0 where"),
    "count of text": (*with_binary(ARRAYS, x="24"), "x has binary_data_size '24' where"),
    "count of true": (*with_binary(ARRAYS, mask=True), "mask has binary_data_size True where"),
    "count of null": (*with_binary(ARRAYS, x=None), "x has binary_data_size nothing where"),
    "nan": (*other(np.array([[0, 1, 2], [0, np.nan, 2]], np.float32)), r"x has nan at \[1, 1\]: give numbers"),
    "bool of 2": (*other(np.array([[0, 1], [2, 0]], np.uint8)), "mask has the byte 2: BOOL is 0 or 1"),
}


@pytest.mark.parametrize(("body", "length", "says"), BAD_BINARY.values(), ids=BAD_BINARY)
def test_binary_data_that_is_wrong_is_refused(body, length, says):
    with pytest.raises(RequestError, match=says) as refused:
        decode(body, length)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_a_batch_over_the_maximum_is_too_large(binary):
    arrays = {name: np.concatenate([array] * 2)[:3] for name, array in ARRAYS.items()}
    inputs = [
        entry(name, DATATYPES[array.dtype.name], list(array.shape), array.tolist()) for name, array in arrays.items()
    ]
    content, length = with_binary(arrays) if binary else ({"inputs": inputs, "outputs": [{"name": "y"}]}, None)
    assert decode(content, length, rows=3).inputs["x"].shape == (3, 3)
    with pytest.raises(RequestError, match="x has 3 items: send at most 2 in one request") as refused:
        decode(content, length, rows=2)
    assert refused.value.status == 413


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("int32", 2**31),
        ("int32", -(2**31) - 1),
        ("int8", 128),
        ("int8", -129),
        ("uint8", 256),
        ("uint8", -1),
        ("float32", 3.5e38),
    ],
    ids=str,
)
def test_a_value_that_the_dtype_does_not_have_is_refused(dtype, value):
    whole = {"inputs": [entry("x", DATATYPES[dtype], [1, 2], [1, value])], "outputs": [{"name": "y"}]}
    with pytest.raises(RequestError) as refused:
        decode(whole, spec=one_input(dtype))
    assert str(refused.value).startswith(f"x has {value}: {DATATYPES[dtype]} takes")
    assert refused.value.status == 400


def test_fp16_is_not_taken_in_json():
    whole = {"inputs": [entry("x", "FP16", [1, 2], [1, 2])], "outputs": [{"name": "y"}]}
    with pytest.raises(RequestError, match="x is FP16, which JSON does not have: send it as binary data"):
        decode(whole, spec=one_input("float16"))


def test_data_and_binary_data_are_not_both_taken():
    header = json.dumps(request(x=entry("x", "FP32", [1, 2], [1, 2], binary_data_size=8))).encode()
    with pytest.raises(RequestError, match="x has both data and binary_data_size: give one of them"):
        decode(header + bytes(8), str(len(header)))


PLAIN = b'{"inputs": []}' * 100


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        (None, PLAIN),
        ("identity", PLAIN),
        ("gzip", gzip.compress(PLAIN, mtime=0)),
        (" GZip ", gzip.compress(PLAIN, mtime=0)),
        ("deflate", zlib.compress(PLAIN)),
    ],
    ids=["none", "identity", "gzip", "in other letters", "deflate"],
)
def test_a_compressed_body_is_read(encoding, body):
    assert decompress(body, encoding, len(PLAIN)) == PLAIN


BOMB = gzip.compress(bytes(10**7))
BAD_BODIES = {
    "brotli": ("br", PLAIN, 415, "the Content-Encoding is 'br': use gzip, deflate or none"),
    "two": ("gzip, deflate", PLAIN, 415, "the Content-Encoding is 'gzip, deflate'"),
    "not gzip": ("gzip", PLAIN, 400, "the body is not gzip data, as Content-Encoding says"),
    "deflate for gzip": ("gzip", zlib.compress(PLAIN), 400, "the body is not gzip data"),
    "broken": ("deflate", zlib.compress(PLAIN)[:-1] + b"!", 400, "the body is not deflate data"),
    "cut off": ("gzip", gzip.compress(PLAIN, mtime=0)[:-1], 400, "the body's gzip data is cut off"),
    "empty": ("gzip", b"", 400, "the body's gzip data is cut off"),
    "more behind": ("gzip", gzip.compress(PLAIN, mtime=0) + b"more", 400, "the body has 4 bytes after its gzip data"),
    "a byte too large": ("gzip", gzip.compress(PLAIN + b" "), 413, f"more than {len(PLAIN)} bytes once decompressed"),
    "bomb": ("gzip", BOMB, 413, f"more than {len(PLAIN)} bytes once decompressed"),
}


@pytest.mark.parametrize(("encoding", "body", "status", "says"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_does_not_decompress_is_refused(encoding, body, status, says):
    with pytest.raises(RequestError, match=says) as refused:
        decompress(body, encoding, len(PLAIN))
    assert refused.value.status == status


def test_a_bomb_is_not_unpacked():
    tracemalloc.start()
    try:
        with pytest.raises(RequestError, match="more than 1000 bytes"):
            decompress(BOMB, "gzip", 1000)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()


def test_a_request_has_as_many_rows_as_the_spec_and_the_queue_allow():
    assert [most_rows(SPEC, queue) for queue in (2, 4, 100)] == [2, 4, 4]
    assert most_rows(one_input("float32", [1, "width"]), 8) == 1


def test_all_tensors_together_are_bounded():
    # Two floats, two integers of 64 bits and two bytes.
    assert decode(request(), size=26).inputs.keys() == {"x", "ids", "mask"}
    with pytest.raises(RequestError, match="the inputs are 26 bytes, and one request may have 25") as refused:
        decode(request(), size=25)
    assert refused.value.status == 413
