"""Answer POST /predict: run the model on uploads and return its answers in the form of the task."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from onnx_release.core.errors import InputError
from onnx_release.core.types import Arrays, Embedding, Prediction
from onnx_release.data.model_data import ModelData
from onnx_release.data.samples import without_batch_axis
from onnx_release.runtime.onnx_model import check_request
from onnx_release.runtime.release import Release
from serving.body import LARGE_BYTES, Upload, request_body
from serving.connection import gone
from serving.content import described_uploads, plain_body, read_uploads, single_header
from serving.cpu_budget import CpuBudget
from serving.decoders import Prepared
from serving.engine import Job
from serving.errors import RequestError, error_responses
from serving.metrics import run_recorded
from serving.page import UploadKind, upload_kind
from serving.record import record_of
from serving.statistics import counted


class Classification(BaseModel):
    """Classes, the most probable first; `names` if the release has labels."""

    labels: list[int]
    names: list[str] | None
    scores: list[float] = Field(description="0 to 1")


class Boxes(BaseModel):
    """Objects, the highest score first.

    `boxes` are x1, y1, x2, y2 in pixels of the upright picture, which has `width` by `height` pixels.
    """

    boxes: list[list[float]]
    scores: list[float] = Field(description="0 to 1")
    labels: list[int]
    names: list[str] | None
    width: int
    height: int


class Vector(BaseModel):
    """The embedding."""

    vector: list[float]


BY_TASK: dict[str, type[BaseModel]] = {"classification": Classification, "detection": Boxes, "embedding": Vector}
EXAMPLES: dict[str, dict[str, Any]] = {
    "classification": {"labels": [281, 285], "names": ["tabby", "Egyptian cat"], "scores": [0.71, 0.12]},
    "detection": {
        "boxes": [[31.5, 20.0, 84.25, 79.5]],
        "scores": [0.98],
        "labels": [1],
        "names": ["face"],
        "width": 320,
        "height": 240,
    },
    "embedding": {"vector": [0.021, -0.057, 0.043]},
}


def predict_router(release: Release, data: ModelData) -> APIRouter:
    """Make the route POST /predict; for a model that takes no uploads, it answers 404 and says what to call."""
    router = APIRouter(tags=["predict"])
    name = release.manifest.model
    if not takes_uploads(release, data):

        @router.post("/predict", include_in_schema=False)
        async def no_predict(request: Request) -> Response:
            raise RequestError(404, f"{name} takes no uploads: send tensors to /v2/models/{name}/infer")

        return router

    kind = upload_kind(data, release.spec)

    @router.post(
        "/predict",
        summary="Answer for one upload or several",
        response_model=answer_type(release),
        responses=error_responses(400, 408, 413, 415, 422, 503, 504),
        openapi_extra={"requestBody": described_uploads(kind)},
    )
    async def predict(request: Request) -> Response:
        with counted(record_of(request)):
            jobs = await run_uploads(request, kind, data)
            return encode_answer(release, jobs)

    return router


async def run_uploads(request: Request, kind: UploadKind, data: ModelData) -> list[Job]:
    """Run the model on the uploads of a request."""
    state = request.app.state
    state.engine.check_room()  # before the body is kept: a full queue costs no memory
    async with request_body(request, state.settings) as sent:
        deadline = time.monotonic() + state.settings.deadline
        async with plain_body(request, sent, state.settings) as body:
            return await run_body(request, body, kind, data, deadline)


async def run_body(request: Request, body: bytes, kind: UploadKind, data: ModelData, deadline: float) -> list[Job]:
    state = request.app.state
    sent_as = single_header(request, "Content-Type") or "", body, kind, state.settings, deadline
    large = len(body) > LARGE_BYTES
    uploads = await asyncio.to_thread(read_uploads, *sent_as) if large else read_uploads(*sent_as)
    left = gone(request)
    budget = CpuBudget(state.settings.decode_seconds)
    prepare = partial(state.decoders.prepare, deadline=deadline, gone=left.done, budget=budget)
    items = [UploadPrediction(upload, prepare, data, state.release) for upload in uploads]
    work = [(item.prepare, item.finish) for item in items]
    return await run_recorded(state.engine, record_of(request), work, deadline, left)


def takes_uploads(release: Release, data: ModelData) -> bool:
    """Return whether the server has /predict for this model."""
    return release.spec.task in BY_TASK and hasattr(data, "decode")


def answer_type(release: Release) -> type[BaseModel]:
    """Make the class of the answer, which OpenAPI shows with an example of this release."""
    prediction = BY_TASK[release.spec.task]

    class Predictions(BaseModel):
        """One prediction for each upload, in their order."""

        model_config = ConfigDict(json_schema_extra={"example": example(release)})
        model: str
        variant: str
        predictions: list[prediction]  # type: ignore[valid-type]
        inference_time_ms: float = Field(description="milliseconds of all calls of the model that ran the uploads")

    return Predictions


@dataclass
class UploadPrediction:
    """The prediction for one upload, in two steps for the engine. Only pictures have sizes: height and width.

    `prepare_elsewhere` decodes and preprocesses the file in another process.
    """

    upload: Upload
    prepare_elsewhere: Callable[[bytes], Prepared]
    data: ModelData
    release: Release
    size: tuple[int, ...] = ()
    input_size: tuple[int, ...] = ()

    def prepare(self) -> Arrays:
        """Return the upload as the model's inputs, with a batch axis.

        Raises RequestError and InputError with the upload's name, and what `Decoders.prepare` raises.
        """
        try:
            prepared = self.prepare_elsewhere(self.upload.content)
            check_request(self.release.spec, prepared.inputs)
        except (RequestError, InputError) as error:
            error.args = (f"{self.upload.name}: {error}",)
            raise
        self.size = prepared.size
        self.input_size = prepared.inputs[self.release.spec.inputs[0].name].shape[-2:]
        return prepared.inputs

    def finish(self, outputs: Arrays) -> dict[str, Any]:
        """Return the model's answer in the form of JSON."""
        found = self.data.postprocess(without_batch_axis(outputs, self.release.spec))
        for array in vars(found).values():
            if not np.isfinite(array).all():  # JSON has no NaN and no infinity
                raise RequestError(500, f"{self.upload.name}: the model's answer is NaN or infinite")
        if isinstance(found, Embedding):
            return {"vector": found.vector}
        labels = self.release.labels
        classes = {
            "labels": found.labels,
            "names": None
            if labels is None
            else [labels[label] if label < len(labels) else str(label) for label in found.labels],
            "scores": found.scores,
        }
        if isinstance(found, Prediction):
            return classes
        (height, width), (input_height, input_width) = self.size, self.input_size
        # preprocess() of a detector has resized the whole picture, so a box scales like the two sizes.
        scale = np.array([width / input_width, height / input_height] * 2)
        return {"boxes": found.boxes.reshape(-1, 4) * scale, **classes, "width": width, "height": height}


def encode_answer(release: Release, jobs: list[Job]) -> Response:
    calls = {job.started: job.milliseconds for job in jobs}  # several jobs may have been run in one call
    content = {
        "model": release.manifest.model,
        "variant": release.manifest.variant,
        "predictions": [job.value for job in jobs],
        "inference_time_ms": round(sum(calls.values()), 3),
    }
    return Response(orjson.dumps(content, np.ndarray.tolist, orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def example(release: Release) -> dict[str, Any]:
    """Return the example that OpenAPI shows."""
    return {
        "model": release.manifest.model,
        "variant": release.manifest.variant,
        "predictions": [EXAMPLES[release.spec.task]],
        "inference_time_ms": 3.2,
    }
