"""Read the messages of inference by gRPC into arrays, and write arrays into them, with the checks that HTTP's have.

A message is looked over before it is parsed: an entry of two bytes takes about 100 as an object.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from onnx_release.core.spec import Spec
from serving import protocol
from serving.errors import RequestError
from serving.protocol import VERSION, InferenceRequest, Limits, Object
from serving.tensors import DATATYPES, from_binary

# The number of the field raw_input_contents in ModelInferRequest; the others are bounded, in entries and in bytes.
RAW_FIELD = 7
MOST_FIELDS, MOST_BYTES = 4096, 4_194_304
# The field of InferTensorContents that has the numbers of a dtype, where they are not raw; FP16 has none.
CONTENTS = {
    "float32": "fp32_contents",
    "int64": "int64_contents",
    "int32": "int_contents",
    "int8": "int_contents",
    "uint8": "uint_contents",
    "bool": "bool_contents",
}


def check_message(message: bytes) -> None:
    """Raise RequestError for a ModelInferRequest of too many parts (413), and for bytes that are none (400)."""
    place = fields = size = 0
    while place < len(message):
        tag, place = read_varint(message, place)
        length, place = read_varint(message, place)
        place += length
        fields += 1
        size += length if tag >> 3 != RAW_FIELD else 0
        if tag & 7 != 2 or place > len(message):  # every field of the message has a length
            raise RequestError(400, "the message is not a ModelInferRequest: check the client")
        if fields > MOST_FIELDS or size > MOST_BYTES:
            raise RequestError(
                413,
                f"the message has more than {MOST_FIELDS} fields, or {MOST_BYTES:,} bytes besides raw_input_contents: "
                "send tensors there",
            )


def read_varint(message: bytes, place: int) -> tuple[int, int]:
    """Return the number at `place`, and where it ends."""
    value = 0
    for position, byte in enumerate(message[place : place + 10]):
        value |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return value, place + position + 1
    raise RequestError(400, "the message is not a ModelInferRequest: check the client")


def read_request(spec: Spec, message: Any, limits: Limits) -> InferenceRequest:
    """Return the request in a ModelInferRequest. Raises RequestError as `decode_request` does."""
    request: Object = {
        "inputs": [{"name": x.name, "datatype": x.datatype, "shape": list(x.shape)} for x in message.inputs],
        "outputs": [{"name": x.name, "parameters": parameters(x)} for x in message.outputs],
    }
    for entry in message.inputs:
        protocol.check_no_shared_memory(parameters(entry), entry.name)
    given = protocol.given_inputs(spec, request)
    protocol.check_shapes(spec, given, limits.rows, limits.bytes)
    # Every output is raw, which JSON's binary data is, too.
    outputs = protocol.asked_outputs(spec, request, {"binary_data_output": True})
    raw = list(message.raw_input_contents)
    if raw and len(raw) != len(message.inputs):
        raise RequestError(
            400, f"raw_input_contents has {len(raw)} entries, and there are {len(message.inputs)} inputs"
        )
    contents = raw or [typed_bytes(spec, entry) for entry in message.inputs]
    declared = {tensor.name: tensor for tensor in spec.inputs}
    arrays = {}
    for entry, content in zip(message.inputs, contents, strict=True):
        arrays[entry.name] = from_binary(declared[entry.name], list(entry.shape), len(content), content, 0)
    return InferenceRequest({tensor.name: arrays[tensor.name] for tensor in spec.inputs}, outputs, message.id or None)


def parameters(entry: Any) -> dict[str, Any]:
    """Return the parameters of a message in the form of JSON's."""
    return {
        key: getattr(value, value.WhichOneof("parameter_choice") or "", None) for key, value in entry.parameters.items()
    }


def typed_bytes(spec: Spec, entry: Any) -> bytes:
    """Return the numbers in an input's `contents` as raw bytes. Raises RequestError for FP16 and one out of range."""
    dtype = next(tensor.dtype for tensor in spec.inputs if tensor.name == entry.name)
    if dtype not in CONTENTS:
        raise RequestError(400, f"{entry.name} is FP16, which contents does not have: send it in raw_input_contents")
    try:
        return np.array(list(getattr(entry.contents, CONTENTS[dtype])), dtype).tobytes()
    except OverflowError as cause:
        raise RequestError(400, f"{entry.name} has a number that {DATATYPES[dtype]} does not have ({cause})") from cause


def write_answer(messages: Any, model: str, request: InferenceRequest, outputs: Mapping[str, np.ndarray]) -> bytes:
    """Return a ModelInferResponse, in which every output is raw: little-endian and row-major."""
    arrays = {name: np.ascontiguousarray(outputs[name]) for name in request.outputs}
    answer = messages.ModelInferResponse(
        model_name=model,
        model_version=VERSION,
        id=request.id or "",
        outputs=[
            messages.ModelInferResponse.InferOutputTensor(
                name=name, datatype=DATATYPES[array.dtype.name], shape=array.shape
            )
            for name, array in arrays.items()
        ],
        raw_output_contents=[array.tobytes() for array in arrays.values()],
    )
    return bytes(answer.SerializeToString())
