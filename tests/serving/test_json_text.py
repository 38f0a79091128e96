"""JSON that is long: what is not parsed, and numbers that are read in pieces to the same bits."""

import json

import numpy as np
import orjson
import pytest

from serving.errors import DeadlineError, RequestError
from serving.tensors import DATATYPES
from tests.protocol_requests import SPEC, decode, entry, one_input


@pytest.fixture
def parsed(monkeypatch):
    """The sizes of the texts that orjson parses."""
    sizes, loads = [], orjson.loads

    def noting(text):
        sizes.append(len(text))
        return loads(text)

    monkeypatch.setattr(orjson, "loads", noting)
    return sizes


LONG = {
    "lists": b'{"inputs": [' + b"[]," * 50_000 + b"0]}",
    "objects": b'{"inputs": [' + b'{"":{}},' * 20_000 + b"0]}",
    "deep": b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "texts": b'{"inputs": [' + b'"",' * 50_000 + b"0]}",
    "names": b'{"inputs": [' + b'{"name": "x"},' * 10_000 + b"0]}",
    "keys": b"{" + b",".join(b'"%d":0' % n for n in range(20_000)) + b"}",
    "a long name": b'{"inputs": [{"name": "' + b"x" * 100_000 + b'"}]}',
    "one text": b'{"id": "' + b"x" * 100_000 + b'"}',
    "white space": b'{"inputs":' + b" " * 100_000 + b"[]}",
    "numbers elsewhere": b'{"shape": [' + b"0," * 50_000 + b"0]}",
    "many data": b'{"inputs": [' + b'{"data":[]},' * 10_000 + b"0]}",
    "data of texts": b'{"inputs": [{"data": [' + b'"",' * 50_000 + b"0]}]}",
    "data of objects": b'{"inputs": [{"data": [' + b"{}," * 50_000 + b"0]}]}",
    "data that does not end": b'{"inputs": [{"data": [' + b"0," * 50_000,
    "data in a text": b'{"id": "\\"data": [' + b"0," * 50_000 + b'0]"}',
    "a key that ends in data": b'{"my\\"data": [' + b"0," * 50_000 + b"0]}",
}


@pytest.mark.parametrize("body", LONG.values(), ids=LONG)
def test_json_that_is_long_beside_its_numbers_is_not_parsed(body, parsed):
    with pytest.raises(
        RequestError, match="the JSON has more than 70,656 bytes besides the numbers in data"
    ) as refused:
        decode(body)
    assert refused.value.status == 413
    assert parsed == []


WIDE = SPEC.model_copy(
    update={
        "dimensions": {name: bounds.model_copy(update={"max": 100_000}) for name, bounds in SPEC.dimensions.items()},
        "inputs": [SPEC.inputs[0].model_copy(update={"shape": ["batch", 2, "width"]})],
    }
)
WHOLE = np.arange(60_000, dtype=np.float32).reshape(3, 2, 10_000) / 7


def long_request(data, shape=(3, 2, 10_000), **top):
    """The text of a request whose data is longer than is parsed at once."""
    described = entry("x", "FP32", list(shape), "HERE")
    text = json.dumps({"inputs": [described], "outputs": [{"name": "y"}], **top})
    assert len(data) > 65_536
    return text.replace('"HERE"', data).encode()


@pytest.mark.parametrize("indent", [None, 1], ids=["dense", "indented"])
@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
def test_long_data_is_read_in_pieces_to_the_same_bits(nested, indent, parsed):
    data = WHOLE.tolist() if nested else WHOLE.ravel().tolist()
    decoded = decode(long_request(json.dumps(data, indent=indent), id="7"), spec=WIDE)
    assert decoded.inputs["x"].tobytes() == WHOLE.tobytes()
    assert (decoded.id, decoded.inputs["x"].shape) == ("7", (3, 2, 10_000))
    assert len(parsed) > 8 and max(parsed) < 75_000


@pytest.mark.parametrize("dtype", ["int64", "bool", "uint8"])
def test_long_data_of_every_kind_is_read(dtype):
    array = (np.arange(200_000).reshape(2, 2, 50_000) % 2).astype(dtype)
    spec = WIDE.model_copy(update={"inputs": [WIDE.inputs[0].model_copy(update={"dtype": dtype})]})
    text = long_request(json.dumps(array.tolist()), array.shape).replace(b"FP32", DATATYPES[dtype].encode())
    assert decode(text, spec=spec).inputs["x"].tobytes() == array.tobytes()


FLAT = json.dumps(WHOLE.ravel().tolist())
NESTED = json.dumps(WHOLE.tolist())
MIDDLE = FLAT.index(",", 200_000)
BAD_LONG = {
    "too few": (FLAT[: FLAT.rindex(",")] + "]", "x has 59999 elements where the shape .* has 60000"),
    "too many": (FLAT[:-1] + ", 1]", "x has 60001 elements where the shape"),
    "comma at the end": (FLAT[: FLAT.rindex(",")] + ", ]", "not JSON: .*data of x"),
    "two commas": (FLAT[: MIDDLE - 5] + ",," + FLAT[MIDDLE + 1 :], "elements|not JSON"),
    "no number": (
        FLAT[:MIDDLE] + ", 1x" + FLAT[MIDDLE:].replace(",", "", 1),
        "elements|not JSON: .*, in the data of x",
    ),
    "NaN": (
        FLAT.replace("142.", "NaN, 142.", 1).replace("[0.0, ", "[", 1),
        "not JSON: .* in the data of x; NaN is not JSON",
    ),
    "null": (FLAT.replace("[0.0,", "[null,"), "x has nothing: FP32 takes numbers"),
    "a boolean": (FLAT.replace("[0.0,", "[true,"), "x has True: FP32 takes numbers"),
    "too large": (FLAT.replace("[0.0,", "[1e39,"), r"x has 1e\+39: FP32 takes numbers up to"),
    "other nesting": (
        json.dumps(WHOLE.reshape(2, 3, -1).tolist()),
        r"the lists in the data of x are not nested as the shape \[3, 2, 10000\]",
    ),
    "a number before a list": (NESTED.replace("], [", ", 1[], [", 1), "elements|not nested"),
    "moved in front of a list": (NESTED.replace("[0.0,", "0.0[,", 1), "not JSON|not nested"),
    "moved behind a list": (NESTED.replace(", [1428", ",1428.0[", 1), "elements|not nested|not JSON"),
    "a bracket more": (FLAT + "]", "not JSON|not nested|elements"),
    "a bracket less": (NESTED[:-1], "not JSON|not nested"),
    "a long number": ("[" + "0." + "1" * 80_000 + FLAT[4:], "x has more than 4096 bytes between two commas"),
    "much white space": (FLAT.replace(",", "," + " " * 80_000, 1), "x has more than 4096 bytes between two commas"),
}


@pytest.mark.parametrize(("data", "says"), BAD_LONG.values(), ids=BAD_LONG)
def test_long_data_that_is_wrong_is_refused(data, says):
    with pytest.raises(RequestError, match=says) as refused:
        decode(long_request(data), spec=WIDE)
    assert refused.value.status == 400
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize("swap", [("0.0, 0.14", "0.0[, 0.14"), ("[0.0,", "0.0[,"), ("], [", "[], "), (", [", "[,")])
def test_data_is_json_or_refused_as_the_parser_of_the_whole_would_say(swap):
    """A bracket that moves beyond a number leaves the order of brackets and commas as it was."""
    text = long_request(NESTED.replace(swap[0], swap[1], 1))
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(text)
    with pytest.raises(RequestError):
        decode(text, spec=WIDE)


@pytest.mark.parametrize("size", [2, 30_000, 300_000], ids=["short", "at once", "in pieces"])
def test_dense_data_in_an_indented_request_is_read(size):
    """orjson by itself refuses it."""
    free = {name: bounds.model_copy(update={"min": 1, "max": size}) for name, bounds in SPEC.dimensions.items()}
    spec = one_input("float32").model_copy(update={"dimensions": free})
    data = "[" + "0," * (size // 2 - 1) + "1]"
    given = {"inputs": [entry("x", "FP32", [size // 2, 1], "HERE")], "outputs": [{"name": "y"}]}
    described = json.dumps(given, indent=2)
    found = decode(described.replace('"HERE"', data).encode(), spec=spec, rows=size).inputs["x"]
    assert found.sum() == found[-1, 0] == 1


def test_reading_long_data_ends_at_the_deadline():
    with pytest.raises(DeadlineError):
        decode(long_request(FLAT), spec=WIDE, deadline=0)


def test_the_largest_request_in_its_longest_form_is_parsed():
    spec = one_input("float32", ["batch", 1, 1, 1, "width"])
    spec = spec.model_copy(
        update={"dimensions": {name: d.model_copy(update={"max": 200}) for name, d in spec.dimensions.items()}}
    )
    data = np.random.default_rng(0).random((200, 1, 1, 1, 200)).astype(np.float32)
    body = json.dumps({"inputs": [entry("x", "FP32", list(data.shape), data.tolist())], "outputs": [{"name": "y"}]})
    assert (decode(body.encode(), spec=spec, rows=200).inputs["x"] == data).all()
