"""Answer the parts of Triton's protocol that are about the model: its configuration, its statistics, the repository.

https://github.com/triton-inference-server/server/tree/main/docs/protocol: extension_model_configuration.md,
extension_statistics.md, and extension_model_repository.md, of which a server of one release has only the index.
"""

from typing import Any, NoReturn

import orjson
from fastapi import APIRouter, Request
from fastapi.params import Depends as DependsOn
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from onnx_release.core.spec import Tensor, rows_are_the_batch
from serving import protocol
from serving.connection import close_after_answer
from serving.errors import ClientGoneError, RequestError, error_responses
from serving.metrics import registry
from serving.statistics import CALL_SECONDS, CALLS, INFERENCES, LAST, ROWS, SECONDS, STAGES, Counts
from serving.tensors import DATATYPES, abbreviated

INDEX_BYTES = 4096  # a question for the index is shorter
INDEX_HINT = 'send {"ready": true}, or nothing'
# Counted for each inference that succeeded.
STAGE_NAMES = ("queue", "compute_input", "compute_infer", "compute_output")


class Reshape(BaseModel):
    shape: list[int]


class TensorConfig(BaseModel):
    """An input or output; `dims` are without the batch axis if `max_batch_size` is above 0, and -1 where they vary."""

    name: str
    data_type: str
    dims: list[int]
    reshape: Reshape | None = None


class InstanceGroup(BaseModel):
    name: str
    kind: str
    count: int


class ModelConfig(BaseModel):
    """Triton's description of how a model is run; `max_batch_size` is the most rows of a request, or 0."""

    name: str
    platform: str
    backend: str
    default_model_filename: str
    max_batch_size: int
    input: list[TensorConfig]
    output: list[TensorConfig]
    instance_group: list[InstanceGroup]
    dynamic_batching: dict[str, Any] | None = None


class Duration(BaseModel):
    """How often something happened, and how many nanoseconds it took in all."""

    count: int
    ns: int


class InferenceStatistics(BaseModel):
    """Each inference, from the request's head to its answer, and the stages of those that succeeded."""

    success: Duration
    fail: Duration
    queue: Duration
    compute_input: Duration
    compute_infer: Duration
    compute_output: Duration


class BatchStatistics(BaseModel):
    """The calls of the model with `batch_size` rows."""

    batch_size: int
    compute_infer: Duration


class ModelStatistics(BaseModel):
    """`last_inference` is in milliseconds since 1970, or 0; `inference_count` counts rows, `execution_count` calls."""

    name: str
    version: str
    last_inference: int
    inference_count: int
    execution_count: int
    inference_stats: InferenceStatistics
    batch_stats: list[BatchStatistics]


class Statistics(BaseModel):
    model_stats: list[ModelStatistics]


class RepositoryEntry(BaseModel):
    """A model of the repository; `reason` says why it is not ready."""

    name: str
    version: str
    state: str
    reason: str


def add_repository_routes(router: APIRouter, known_model: DependsOn) -> None:
    """Add what is about all models. It comes before the routes of one model, whose name could be `stats`."""
    router.add_api_route("/models/stats", all_statistics, summary="What the models have done")
    router.add_api_route(
        "/repository/index",
        repository_index,
        methods=["POST"],
        summary="The models of this server",
        responses=error_responses(400, 408, 413),
        openapi_extra={"requestBody": INDEX_BODY},
    )
    for action in ("load", "unload"):
        router.add_api_route(
            f"/repository/models/{{name}}/{action}",
            refuse_control,
            methods=["POST"],
            summary=f"Not possible: this server never {action}s a model",
            status_code=403,
            response_model=None,
            dependencies=[known_model],
            responses=error_responses(403, 404),
        )


def add_model_control(router: APIRouter, path: str, checks: list[DependsOn]) -> None:
    """Add the configuration and the statistics of the model below `path`, each after the `checks`."""
    unknown = error_responses(404)
    router.add_api_route(
        f"{path}/config",
        model_config,
        summary="How the model is run",
        dependencies=checks,
        responses=unknown,
        response_model_exclude_none=True,
    )
    router.add_api_route(
        f"{path}/stats", all_statistics, summary="What the model has done", dependencies=checks, responses=unknown
    )


async def model_config(request: Request) -> ModelConfig:
    state = request.app.state
    release, engine = state.release, state.engine
    rows = protocol.most_rows(release.spec, state.settings.queue) if rows_are_the_batch(release.spec) else 0
    kind = "KIND_GPU" if engine.gpu else "KIND_CPU"
    return ModelConfig(
        name=release.manifest.model,
        platform="onnxruntime_onnx",
        backend="onnxruntime",
        default_model_filename="model.onnx",
        max_batch_size=rows,
        input=[tensor_config(tensor, rows > 0) for tensor in release.spec.inputs],
        output=[tensor_config(tensor, rows > 0) for tensor in release.spec.outputs],
        instance_group=[
            InstanceGroup(name=release.manifest.model, kind=kind, count=1 if engine.gpu else len(engine.threads))
        ],
        dynamic_batching={} if rows else None,
    )


def tensor_config(tensor: Tensor, batched: bool) -> TensorConfig:
    """Describe an input or output. Triton does not take an empty list of axes."""
    dims = [-1 if isinstance(axis, str) else axis for axis in tensor.shape[1 if batched else 0 :]]
    reshape = None if dims else Reshape(shape=[])
    return TensorConfig(
        name=tensor.name, data_type=f"TYPE_{DATATYPES[tensor.dtype]}", dims=dims or [1], reshape=reshape
    )


def all_statistics(request: Request) -> Statistics:
    counts = Counts(registry())
    calls, seconds = counts.by_label(CALLS), counts.by_label(CALL_SECONDS)
    succeeded = int(counts.of(INFERENCES, "success"))
    durations = {name: duration(succeeded, counts.of(STAGES, name)) for name in STAGE_NAMES}
    outcomes = {name: duration(counts.of(INFERENCES, name), counts.of(SECONDS, name)) for name in ("success", "fail")}
    model = ModelStatistics(
        name=request.app.state.release.manifest.model,
        version=protocol.VERSION,
        last_inference=int(counts.of(LAST) * 1e3),
        inference_count=int(counts.of(ROWS)),
        execution_count=int(sum(calls.values())),
        inference_stats=InferenceStatistics(**outcomes, **durations),
        batch_stats=[
            BatchStatistics(batch_size=int(rows), compute_infer=duration(calls[rows], seconds.get(rows, 0.0)))
            for rows in sorted(calls, key=int)
        ],
    )
    return Statistics(model_stats=[model])


def duration(count: float, seconds: float) -> Duration:
    return Duration(count=int(count), ns=round(seconds * 1e9))


async def repository_index(request: Request) -> list[RepositoryEntry]:
    """List the one model; with {"ready": true} only if it is ready."""
    return models(request, asks_for_ready(await short_body(request)))


def models(request: Request, only_ready: bool) -> list[RepositoryEntry]:
    state = request.app.state
    if only_ready and not state.ready:
        return []
    reason = "" if state.ready else "the server is starting or stopping"
    name, version = state.release.manifest.model, protocol.VERSION
    return [RepositoryEntry(name=name, version=version, state="READY" if state.ready else "UNAVAILABLE", reason=reason)]


async def short_body(request: Request) -> bytes:
    """Return the body. Raises RequestError (413) for more than INDEX_BYTES."""
    body = b""
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > INDEX_BYTES:
                close_after_answer(request)
                raise RequestError(413, f"the body has more than {INDEX_BYTES} bytes: {INDEX_HINT}")
    except ClientDisconnect as cause:
        raise ClientGoneError("the client closed the connection while it sent the body") from cause
    return body


def asks_for_ready(body: bytes) -> bool:
    """Return `ready` of the request for the index; an empty body is one without it."""
    try:
        asked = orjson.loads(body) if body.strip() else {}
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the request is not JSON ({error}): {INDEX_HINT}") from error
    ready = asked.get("ready", False) if isinstance(asked, dict) else None
    if not isinstance(ready, bool):
        raise RequestError(400, f"the request is {abbreviated(asked)}: {INDEX_HINT}")
    return ready


async def refuse_control(request: Request) -> NoReturn:
    model = request.app.state.release.manifest.model
    close_after_answer(request)
    raise RequestError(
        403, f"this server has one release, {model}, from its start to its end: start another server for another model"
    )


INDEX_BODY: dict[str, Any] = {
    "required": False,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "properties": {"ready": {"type": "boolean", "description": "leave out models that are not ready"}},
            },
            "examples": {"ready": {"value": {"ready": True}}},
        }
    },
}
