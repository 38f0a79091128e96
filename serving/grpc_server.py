"""Answer the Open Inference Protocol by gRPC, on a port of its own, with the engine, the limits and the errors of HTTP.

gRPC and the protocol's messages are not among a release's packages: INSTALL has the command. The messages are those of
Triton: https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
"""

import asyncio
import importlib
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson
from fastapi import FastAPI, Request
from pydantic_core import to_jsonable_python

from onnx_release.core.errors import ParameterError
from onnx_release.core.types import Arrays
from serving import metrics, model_control, protocol, v2
from serving.engine import Job
from serving.errors import CLIENT_GONE, RequestError, error_response
from serving.grpc_tensors import check_message, read_request, write_answer
from serving.memory import memory, no_memory
from serving.protocol import InferenceRequest
from serving.reading import Places
from serving.record import RequestRecord, new_record
from serving.statistics import counted
from serving.tokens import has_token, read_token

SERVICE = "inference.GRPCInferenceService"
# The calls whose messages say nothing that matters, and the others; ModelInfer is apart.
UNREAD_CALLS = ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryModelLoad", "RepositoryModelUnload")
SHORT_CALLS = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")
HEALTH = ("ServerLive", "ServerReady")  # answered without the token
SHORT_BYTES = 4096
# Others that wait end a call which has not sent its message after so many seconds; a short one comes with its head.
READ_SECONDS, SHORT_SECONDS = 1.0, 0.1
SHORT_PLACES = 2  # few, since gRPC also reads a message as a whole that is too long for its call
INSTALL = 'pip install "tritonclient[grpc]==2.69.0"'
# The status of gRPC for each of HTTP; every other is INTERNAL.
CODES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    408: "DEADLINE_EXCEEDED",
    413: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}


class Packages(NamedTuple):
    grpc: Any
    aio: Any
    messages: Any
    message: Any
    json_format: Any


def load_packages() -> Packages:
    """Import what this needs. Raises ParameterError with the command that installs it."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # or gRPC would write lines of its own beside our errors
    protobuf = ("google.protobuf.message", "google.protobuf.json_format")
    try:
        # By name, since a release's requirements are made of its import statements.
        return Packages(*map(importlib.import_module, ("grpc", "grpc.aio", "tritonclient.grpc.service_pb2", *protobuf)))
    except ImportError as cause:
        raise ParameterError(f"--grpc-port needs packages that are not installed ({cause}): {INSTALL}") from cause


@asynccontextmanager
async def answering_grpc(app: FastAPI) -> AsyncIterator[None]:
    """Answer gRPC while the block runs, if a setting asks for it. At its end open calls have `drain` seconds.

    The workers of a server share the port, and the kernel gives each its share of the connections. Raises
    ParameterError if a package is missing, or the port cannot be had.
    """
    settings = app.state.settings
    if settings.grpc_port is None:
        yield
        return
    packages = load_packages()
    server = packages.aio.server(
        options=[
            ("grpc.max_receive_message_length", settings.body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 1),  # serve() has made sure that nobody but its workers has the port
        ],
        maximum_concurrent_rpcs=settings.connections,
    )
    server.add_generic_rpc_handlers((Service(app, packages).handler(),))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    try:
        port = server.add_insecure_port(f"{host}:{settings.grpc_port}")
    except RuntimeError as cause:
        raise ParameterError(
            f"gRPC cannot listen on {host}:{settings.grpc_port}: choose another --grpc-port or --host"
        ) from cause
    await server.start()
    app.state.grpc_port = port
    try:
        yield
    finally:
        await server.stop(settings.drain)


class Service:
    """The calls of the protocol for the application's release."""

    def __init__(self, app: FastAPI, packages: Packages) -> None:
        self.state, self.packages, self.model = app.state, packages, app.state.release.manifest.model
        # gRPC reads a message as a whole before anybody can count it, so few are read at once.
        settings = self.state.settings
        self.places = Places(max(1, settings.buffered_bytes // settings.body_bytes), READ_SECONDS)
        self.short_places = Places(SHORT_PLACES, SHORT_SECONDS)
        self.token = read_token(settings)
        self.request = Request({"type": "http", "method": "POST", "path": f"/{SERVICE}", "headers": [], "app": app})

    def handler(self) -> Any:
        """Return what gRPC calls. Each call is a stream of one message, so that it can wait to be read."""
        make = self.packages.grpc.stream_unary_rpc_method_handler
        calls = {name: make(self.answered(name)) for name in ("ModelInfer", *UNREAD_CALLS, *SHORT_CALLS)}
        return self.packages.grpc.method_handlers_generic_handler(SERVICE, calls)

    def answered(self, name: str) -> Callable[[Any, Any], Awaitable[bytes]]:
        """Return a call that is counted, and whose errors are those of HTTP with gRPC's status."""

        async def answer(stream: Any, context: Any) -> bytes:
            start, status = time.perf_counter(), 200
            try:
                self.check_token(name, context)
                return await (self.infer(stream, context) if name == "ModelInfer" else self.describe(name, stream))
            except asyncio.CancelledError:
                status = CLIENT_GONE
                raise
            except Exception as error:
                answered = await error_response(self.request, error)
                status, text = answered.status_code, orjson.loads(bytes(answered.body))["error"]
            finally:
                metrics.observe_request(f"/{SERVICE}/{name}", status, time.perf_counter() - start)
            await context.abort(getattr(self.packages.grpc.StatusCode, CODES.get(status, "INTERNAL")), text)
            raise AssertionError  # abort() has raised

        return answer

    def check_token(self, name: str, context: Any) -> None:
        """Raise RequestError (401) unless the call is for health, or has the token."""
        given = dict(context.invocation_metadata()).get("authorization", "")
        if self.token is not None and name not in HEALTH and not has_token(str(given), self.token):
            raise RequestError(401, "give the token of this server in the metadata: authorization: Bearer TOKEN")

    async def describe(self, name: str, stream: Any) -> bytes:
        """Return the answer of every call but ModelInfer: what the route of HTTP answers."""
        found: Any
        message: Any = (
            None if name in UNREAD_CALLS else self.parse(name, await self.read(stream, SHORT_BYTES, self.short_places))
        )
        if name.startswith("Model") and (message.name or name != "ModelStatistics"):  # those of all models have no name
            v2.check_model(self.model, message.name, message.version)
        match name:
            case "ServerLive":
                found = {"live": True}
            case "ServerReady" | "ModelReady":
                found = {"ready": self.state.ready}
            case "ServerMetadata":
                found = await v2.server_metadata(self.request)
            case "ModelMetadata":
                found = await v2.model_metadata(self.request)
            case "ModelConfig":
                found = {"config": await model_control.model_config(self.request)}
            case "ModelStatistics":
                found = await asyncio.to_thread(model_control.all_statistics, self.request)
            case "RepositoryIndex":
                found = {"models": model_control.models(self.request, message.ready)}
            case _:
                await model_control.refuse_control(self.request)
        answer = getattr(self.packages.messages, f"{name}Response")()
        filled = self.packages.json_format.ParseDict(to_jsonable_python(found, exclude_none=True), answer)
        return bytes(filled.SerializeToString())

    async def infer(self, stream: Any, context: Any) -> bytes:
        """Run the model for the one message of `stream`, within the limits of a request by HTTP."""
        record = new_record()
        with counted(record):
            v2.check_ready(self.request)
            self.state.engine.check_room()
            content = await self.read(stream, self.state.settings.body_bytes, self.places)
            memory.used += len(content)
            try:
                job = await self.run(content, context, record)
            finally:
                memory.used -= len(content)
            return bytes(job.value)

    async def read(self, stream: Any, most: int, places: Places) -> bytes:
        """Return the bytes of the message. Raises RequestError if it is late or too long, BusyError without room."""
        settings = self.state.settings
        try:
            async with asyncio.timeout(settings.receive) as limit, places.take(limit):
                content: bytes = await anext(aiter(stream), b"")
        except TimeoutError as cause:
            late = f"within {settings.receive:g} seconds, or {places.seconds:g} while other calls waited"
            raise RequestError(408, f"the message did not arrive {late}: send it with its call") from cause
        if len(content) > most:
            raise RequestError(413, f"the message has {len(content):,} bytes, and this call takes {most:,}")
        if memory.used + len(content) > settings.buffered_bytes:
            raise no_memory(settings)
        return content

    def parse(self, name: str, content: bytes) -> Any:
        try:
            return getattr(self.packages.messages, f"{name}Request").FromString(content)
        except self.packages.message.DecodeError as cause:
            raise RequestError(400, f"the message is not a {name}Request: check the client") from cause

    async def run(self, content: bytes, context: Any, record: RequestRecord) -> Job:
        """Run the model; the job's value is the answer's message. The client's own deadline may be the shorter one."""
        state, spec = self.state, self.state.release.spec
        seconds = min(state.settings.deadline, context.time_remaining() or state.settings.deadline)
        deadline = time.monotonic() + seconds
        limits = protocol.request_limits(spec, state.settings, deadline)
        asked: InferenceRequest

        def prepare() -> Arrays:
            nonlocal asked
            check_message(content)
            message = self.parse("ModelInfer", content)
            v2.check_model(self.model, message.model_name, message.model_version)
            asked = read_request(spec, message, limits)
            return asked.inputs

        def finish(outputs: Arrays) -> bytes:
            return write_answer(self.packages.messages, self.model, asked, outputs)

        gone = asyncio.get_running_loop().create_future()  # never done: gRPC cancels this instead
        with v2.refusing_values():
            [job] = await metrics.run_recorded(state.engine, record, [(prepare, finish)], deadline, gone)
        return job
