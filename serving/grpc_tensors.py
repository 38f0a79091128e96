"""Read the messages of inference by gRPC into arrays, and write arrays into them, with the checks that HTTP's have.

A message is looked over before it is parsed: an entry of two bytes takes about 100 as an object.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from onnx_release.core.plain_text import count_of
from onnx_release.core.spec import Spec
from serving import protocol
from serving.errors import RequestError
from serving.protocol import VERSION, InferenceRequest, Limits, Object
from serving.tensors import DATATYPES

# The number of the field raw_input_contents in ModelInferRequest; the others are bounded, in entries and in bytes.
RAW_FIELD = 7
MOST_FIELDS, MOST_BYTES = 4096, 4_194_304
VARINT = rb"([\x80-\xff]{0,9}[\x00-\x7f])"
FIELD = re.compile(VARINT * 2)  # the beginning of a field that has a length, as all of this message have
# The field of InferTensorContents that has the numbers of a datatype, where they are not raw; FP16 has none.
CONTENTS = {
    "FP32": "fp32_contents",
    "INT64": "int64_contents",
    "INT32": "int_contents",
    "INT8": "int_contents",
    "UINT8": "uint_contents",
    "BOOL": "bool_contents",
}


def check_message(message: bytes) -> None:
    """Raise RequestError for a ModelInferRequest of too many parts (413), and for bytes that are none (400)."""
    place = fields = size = 0
    while place < len(message):
        head = FIELD.match(message, place)
        tag, length = map(number, head.groups()) if head else (0, 0)
        place = (head.end() if head else place) + length
        fields += 1
        size += length if tag >> 3 != RAW_FIELD else 0
        if tag & 7 != 2 or place > len(message):
            raise RequestError(400, "the message is not a ModelInferRequest: check the client")
        if fields > MOST_FIELDS or size > MOST_BYTES:
            most = f"{MOST_FIELDS} fields, or {MOST_BYTES:,} bytes besides raw_input_contents"
            raise RequestError(413, f"the message has more than {most}: send tensors there")


def number(varint: bytes) -> int:
    return sum((byte & 0x7F) << (7 * position) for position, byte in enumerate(varint))


def read_request(spec: Spec, message: Any, limits: Limits) -> InferenceRequest:
    """Return the request in a ModelInferRequest, read as HTTP's. Raises RequestError as `decode_request` does."""
    for entry in message.inputs:  # first, since such an input has no raw contents
        protocol.check_no_shared_memory(parameters(entry), entry.name)
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            400, f"raw_input_contents has {count_of(len(raw), 'entry')} for {count_of(len(message.inputs), 'input')}"
        )
    for entry in message.inputs if raw else ():
        if entry.contents.ByteSize():
            text = f"{entry.name} has contents, and raw_input_contents has its numbers, too: send them once"
            raise RequestError(400, text)
    contents = raw or [None] * len(message.inputs)
    request: Object = {
        "inputs": [in_json(entry, content) for entry, content in zip(message.inputs, contents, strict=True)],
        "outputs": [{"name": entry.name, "parameters": parameters(entry)} for entry in message.outputs],
        # Every output is raw, which JSON's binary data is, too.
        "parameters": {**parameters(message), "binary_data_output": True},
    }
    given, outputs, _ = protocol.check_asked(spec, request, limits)
    # If there is one input, this copies nothing.
    arrays = protocol.read_tensors(spec, given, b"".join(raw), 0 if raw else None, limits.deadline)
    return InferenceRequest(arrays, outputs, message.id)


def in_json(entry: Any, content: bytes | None) -> Object:
    """Return an input in the form of JSON's; `content` is its raw one."""
    found: Object = {"name": entry.name, "datatype": entry.datatype, "shape": list(entry.shape)}
    if content is not None:
        return {**found, "parameters": {**parameters(entry), "binary_data_size": len(content)}}
    if entry.datatype == "FP16":
        raise RequestError(400, f"{entry.name} is FP16, which contents does not have: send it in raw_input_contents")
    field = CONTENTS.get(entry.datatype)
    return {**found, "parameters": parameters(entry), "data": list(getattr(entry.contents, field)) if field else []}


def parameters(entry: Any) -> dict[str, Any]:
    """Return the parameters of a message in the form of JSON's."""
    return {
        key: getattr(value, value.WhichOneof("parameter_choice") or "", None) for key, value in entry.parameters.items()
    }


def write_answer(messages: Any, model: str, request: InferenceRequest, outputs: Mapping[str, np.ndarray]) -> bytes:
    """Return a ModelInferResponse, in which every output is raw: little-endian and row-major."""
    answer = messages.ModelInferResponse(model_name=model, model_version=VERSION, id=request.id)
    for name in request.outputs:
        array = np.ascontiguousarray(outputs[name])
        answer.outputs.add(name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape)
        answer.raw_output_contents.append(array.tobytes())
    return bytes(answer.SerializeToString())
