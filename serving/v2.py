"""Answer the Open Inference Protocol over HTTP, as KServe and Triton do: health, metadata, and inference of any model.

Routes are plain functions that read the application's state; serving/protocol.py reads and writes the tensors.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.params import Depends as DependsOn
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from pydantic import BaseModel

from onnx_release.core.errors import GraphError
from onnx_release.core.spec import Spec, Tensor, concrete_shape, smallest_sizes
from onnx_release.core.types import Arrays
from onnx_release.runtime.release import Release
from serving import protocol
from serving.body import request_body
from serving.connection import gone
from serving.content import single_header
from serving.errors import BusyError, RequestError, error_responses
from serving.metrics import run_recorded
from serving.model_control import add_model_control, add_repository_routes
from serving.protocol import VERSION, InferenceRequest, Limits
from serving.record import record_of
from serving.statistics import counted
from serving.tensors import DATATYPES, abbreviated

# Those of Triton's protocol that this server has.
EXTENSIONS = ["model_repository", "model_configuration", "binary_tensor_data", "statistics"]
HEADER_LENGTH = "Inference-Header-Content-Length"
# An example in OpenAPI has at most this many elements of a tensor: /docs with a whole photograph would not open.
SHOWN_ELEMENTS = 1000


class Live(BaseModel):
    live: bool


class Ready(BaseModel):
    ready: bool


class ModelReady(BaseModel):
    name: str
    ready: bool


class ServerMetadata(BaseModel):
    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """An input or output of the model; `shape` has -1 where the client chooses the size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class OutputTensor(BaseModel):
    """An output; `data` is flat and row-major. Binary data follows the JSON instead, and `parameters` has its size."""

    name: str
    datatype: str
    shape: list[int]
    data: list[float | int | bool] | None = None
    parameters: dict[str, int] | None = None


class InferenceAnswer(BaseModel):
    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


def v2_router(release: Release) -> APIRouter:
    """Make all routes of the protocol, for the one model of `release` in its one version."""
    model = release.manifest.model

    async def known_model(name: Annotated[str, Path(examples=[model])]) -> None:
        check_model(model, name)

    async def known_version(version: Annotated[str, Path(examples=[VERSION])]) -> None:
        check_model(model, model, version)

    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    router.add_api_route("/health/live", live, summary="The process answers")
    router.add_api_route("/health/ready", ready, summary="Requests are taken", responses=error_responses(503))
    router.add_api_route("", server_metadata, summary="What this server is")
    add_repository_routes(router, Depends(known_model))
    add_model_routes(router, "/models/{name}", [Depends(known_model)], release.spec)
    checks = [Depends(known_model), Depends(known_version)]
    add_model_routes(router, "/models/{name}/versions/{version}", checks, release.spec)
    return router


def check_model(model: str, name: str, version: str = "") -> None:
    """Raise RequestError (404) unless `name` is the model, and `version` its only one, or none."""
    if name != model:
        raise RequestError(404, f"there is no model {abbreviated(name)} here: this is {model}")
    if version not in ("", VERSION):
        raise RequestError(404, f"{model} has no version {abbreviated(version)}: there is {VERSION}")


def add_model_routes(router: APIRouter, path: str, checks: list[DependsOn], spec: Spec) -> None:
    """Add the metadata, readiness and inference of the model below `path`, each after the `checks`."""
    add_model_control(router, path, checks)
    unknown = error_responses(404)
    router.add_api_route(
        path, model_metadata, summary="The model's inputs and outputs", dependencies=checks, responses=unknown
    )
    router.add_api_route(
        f"{path}/ready",
        model_ready,
        summary="Whether the model answers",
        dependencies=checks,
        responses=error_responses(503, 404),
    )
    router.add_api_route(
        f"{path}/infer",
        infer,
        methods=["POST"],
        summary="Run the model on tensors",
        dependencies=checks,
        responses={200: ANSWER, **error_responses(400, 404, 408, 413, 415, 503, 504)},
        openapi_extra={"parameters": [LENGTH_PARAMETER], "requestBody": described_body(spec)},
    )


async def live() -> Live:
    return Live(live=True)


async def ready(request: Request) -> Ready:
    check_ready(request)
    return Ready(ready=True)


async def server_metadata(request: Request) -> ServerMetadata:
    return ServerMetadata(name="onnx-release", version=request.app.version, extensions=EXTENSIONS)


async def model_metadata(request: Request) -> ModelMetadata:
    release = request.app.state.release
    return ModelMetadata(
        name=release.manifest.model,
        versions=[VERSION],
        platform="onnxruntime_onnx",
        inputs=[metadata(tensor) for tensor in release.spec.inputs],
        outputs=[metadata(tensor) for tensor in release.spec.outputs],
    )


async def model_ready(request: Request) -> ModelReady:
    check_ready(request)
    return ModelReady(name=request.app.state.release.manifest.model, ready=True)


async def infer(request: Request) -> Response:
    """Run the model on tensors, given in JSON, or as binary data after the JSON.

    With binary data, Inference-Header-Content-Length is the length of the JSON.

    The body may be compressed with gzip or deflate (Content-Encoding). Binary data is little-endian and row-major.
    """
    release: Release = request.app.state.release

    def decode(body: bytes, limits: Limits) -> InferenceRequest:
        plain = protocol.decompress(body, encoding, request.app.state.settings.body_bytes)
        return protocol.decode_request(release.spec, plain, header_length, limits)

    def encode(asked: InferenceRequest, outputs: Arrays) -> tuple[bytes, int | None]:
        return protocol.encode_response(release.manifest.model, VERSION, asked, outputs)

    with counted(record_of(request)):
        header_length = single_header(request, HEADER_LENGTH)
        encoding = single_header(request, "Content-Encoding")
        content, json_length = await run_inference(request, decode, encode)
    if json_length is None:
        return Response(content, media_type="application/json")
    return Response(content, 200, {HEADER_LENGTH: str(json_length)}, "application/octet-stream")


async def run_inference(
    request: Request,
    decode: Callable[[bytes, Limits], InferenceRequest],
    encode: Callable[[InferenceRequest, Arrays], Any],
) -> Any:
    """Run the model on what `decode` reads from the body, and return what `encode` makes of the outputs.

    Both run on a thread of the engine, and may raise RequestError.
    """
    state = request.app.state
    spec: Spec = state.release.spec
    state.engine.check_room()  # before the body is read, so that a full queue costs the client no upload
    asked: InferenceRequest

    def prepare() -> Arrays:
        nonlocal asked
        asked = decode(body, protocol.request_limits(spec, state.settings, deadline))
        return asked.inputs

    def finish(outputs: Arrays) -> Any:
        return encode(asked, outputs)

    async with request_body(request, state.settings) as body:
        deadline = time.monotonic() + state.settings.deadline
        with refusing_values():
            [job] = await run_recorded(state.engine, record_of(request), [(prepare, finish)], deadline, gone(request))
    return job.value


@contextmanager
def refusing_values() -> Iterator[None]:
    """Refuse a request (400) with a value that the model cannot use, such as a token beyond its vocabulary."""
    try:
        yield
    except GraphError as error:
        if isinstance(error.__cause__, InvalidArgument):  # which ONNX Runtime raises for it
            raise RequestError(400, str(error)) from error
        raise


def check_ready(request: Request) -> None:
    if not request.app.state.ready:
        raise BusyError("the server is not ready: it is starting or stopping", 1)


def metadata(tensor: Tensor) -> TensorMetadata:
    shape = [-1 if isinstance(axis, str) else axis for axis in tensor.shape]
    return TensorMetadata(name=tensor.name, datatype=DATATYPES[tensor.dtype], shape=shape)


# The description of inference in OpenAPI.

LENGTH_PARAMETER = {
    "name": HEADER_LENGTH,
    "in": "header",
    "description": "bytes of the JSON object; required if binary data follows it",
    "schema": {"type": "integer", "minimum": 0},
}
BINARY = {"schema": {"type": "string", "format": "binary"}}
ANSWER = {
    "model": InferenceAnswer,
    "description": "The outputs. If there is binary data, Inference-Header-Content-Length has the length of the JSON.",
    "content": {"application/octet-stream": BINARY},
}


def described_body(spec: Spec) -> dict[str, Any]:
    """Describe the body of an inference request: its JSON schema, and an example that runs as it is."""
    names = [tensor.name for tensor in spec.outputs]
    schema = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string", "description": "comes back in the answer"},
            "parameters": {
                "type": "object",
                "properties": {"binary_data_output": {"type": "boolean", "description": "for all outputs"}},
            },
            "inputs": {
                "type": "array",
                "minItems": len(spec.inputs),
                "maxItems": len(spec.inputs),
                "items": {"anyOf": [input_schema(spec, tensor) for tensor in spec.inputs]},
            },
            "outputs": {
                "type": "array",
                "description": "the outputs to answer with; all of them if this is missing",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"enum": names},
                        "parameters": {"type": "object", "properties": {"binary_data": {"type": "boolean"}}},
                    },
                },
            },
        },
    }
    content = {"application/json": {"schema": schema, "examples": examples(spec)}, "application/octet-stream": BINARY}
    return {"required": True, "content": content, "description": unshown(spec)}


# What JSON calls a number of each kind of dtype.
JSON_TYPES = {"f": "number", "i": "integer", "u": "integer", "b": "boolean"}


def input_schema(spec: Spec, tensor: Tensor) -> dict[str, Any]:
    axes = ", ".join(
        f"{axis} ({spec.dimensions[axis].min} to {spec.dimensions[axis].max})" if axis in spec.dimensions else str(axis)
        for axis in tensor.shape
    )
    rank = len(tensor.shape)
    least = min(concrete_shape(tensor, smallest_sizes(spec)), default=1)
    return {
        "type": "object",
        "required": ["name", "shape", "datatype"],
        "properties": {
            "name": {"const": tensor.name},
            "datatype": {"const": DATATYPES[tensor.dtype]},
            "shape": {
                "type": "array",
                "items": {"type": "integer", "minimum": min(least, 1)},
                "minItems": rank,
                "maxItems": rank,
                "description": axes,
            },
            "data": {
                "type": "array",
                "items": {"type": [JSON_TYPES[np.dtype(tensor.dtype).kind], "array"]},
                "description": "row-major, flat or nested as the shape",
            },
            "parameters": {
                "type": "object",
                "properties": {"binary_data_size": {"type": "integer", "description": "bytes, in place of data"}},
            },
        },
    }


def examples(spec: Spec) -> dict[str, Any]:
    """Return an example request with zeros of the smallest shapes, unless `unshown` says why there is none."""
    if unshown(spec):
        return {}
    inputs = []
    for tensor in spec.inputs:
        shape = concrete_shape(tensor, smallest_sizes(spec))
        zeros = [False if tensor.dtype == "bool" else 0] * math.prod(shape)
        inputs.append({"name": tensor.name, "datatype": DATATYPES[tensor.dtype], "shape": shape, "data": zeros})
    outputs = [
        {"name": tensor.name, "parameters": {"binary_data": tensor.dtype == "float16"}} for tensor in spec.outputs
    ]
    return {"zeros": {"value": {"id": "1", "inputs": inputs, "outputs": outputs}}}


def unshown(spec: Spec) -> str:
    """Return why the description has no example, or "". An example that is cut short would be refused."""
    for tensor in spec.inputs:
        if tensor.dtype == "float16":
            return f"No example is shown, since {tensor.name} is FP16, which JSON does not have."
        elements = math.prod(concrete_shape(tensor, smallest_sizes(spec)))
        if elements > SHOWN_ELEMENTS:
            return f"No example is shown, since {tensor.name} has {elements} numbers at least."
    return ""
