"""Answer the Open Inference Protocol by gRPC, on a port of its own.

A call is a request of HTTP to everything else, with the message as its body: so it has the same engine, limits, errors,
token, id, log and spans. gRPC and the messages are not among a release's packages: INSTALL has the command.
https://github.com/triton-inference-server/common/blob/main/protobuf/grpc_service.proto
"""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any
from urllib.parse import unquote

import orjson
from fastapi import FastAPI, Request, Response
from pydantic_core import to_jsonable_python
from starlette.types import Message, Receive, Scope, Send

from onnx_release.core.errors import ParameterError
from onnx_release.core.types import Arrays
from serving import model_control, v2
from serving.errors import RequestError, answer_or_error
from serving.grpc_tensors import check_message, read_request, write_answer
from serving.guards import guarded
from serving.memory import UNCOUNTED_BYTES, check_answer, memory
from serving.metrics import counted_request
from serving.optional import optional_modules
from serving.protocol import InferenceRequest, Limits
from serving.reading import Places
from serving.record import record_of, recorded
from serving.serve import in_address
from serving.statistics import counted
from serving.worker_process import retire_seconds

SERVICE = "inference.GRPCInferenceService"
# The calls whose messages say nothing that matters, and the others; ModelInfer is apart.
UNREAD_CALLS = ("ServerLive", "ServerReady", "ServerMetadata", "RepositoryModelLoad", "RepositoryModelUnload")
SHORT_CALLS = ("ModelReady", "ModelMetadata", "ModelConfig", "ModelStatistics", "RepositoryIndex")
SHORT_BYTES = 4096
# Others that wait end a call which has not sent its message after so many seconds; a short one comes with its head.
READ_SECONDS, SHORT_SECONDS = 1.0, 0.1
SHORT_PLACES = 2  # few, since gRPC also reads a message as a whole that is too long for its call
# Connections end so much earlier than a worker that retires; gRPC itself varies this by a tenth.
AGE = 0.8
INSTALL = 'pip install "tritonclient[grpc]==2.69.0"'
METADATA = (b"x-request-id", b"traceparent", b"retry-after")  # of an answer
CALL = "serving.grpc_call"  # the place of gRPC's context in the scope of a call
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
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # or gRPC would write lines of its own beside our errors
    names = ("grpc", "grpc.aio", "tritonclient.grpc.service_pb2", "google.protobuf.message")
    grpc, aio, messages, protobuf = optional_modules("--grpc-port", INSTALL, *names)
    options = {
        "grpc.max_receive_message_length": settings.body_bytes,
        "grpc.max_send_message_length": -1,
        # Clients then come to another worker, if this one retires, without the loss of a call.
        "grpc.max_connection_age_ms": round(AGE * retire_seconds(settings) * 1e3),
        # Then those end, too, whose clients do not read: longer than this no call takes by itself.
        "grpc.max_connection_age_grace_ms": round((settings.deadline + 2 * settings.receive) * 1e3),
        "grpc.so_reuseport": 1,  # serve() has made sure that nobody but its workers has the port
    }
    server = aio.server(options=list(options.items()), maximum_concurrent_rpcs=settings.connections)
    server.add_generic_rpc_handlers((Service(app, grpc, messages, protobuf).handler(),))
    where = f"{in_address(settings.host)}:{settings.grpc_port}"
    try:
        app.state.grpc_port = server.add_insecure_port(where)
    except RuntimeError as cause:
        raise ParameterError(f"gRPC cannot listen on {where}: choose another --grpc-port or --host") from cause
    await server.start()
    try:
        yield
    finally:
        await server.stop(settings.drain)


class Service:
    """The calls of the protocol for the application's release."""

    def __init__(self, app: FastAPI, grpc: Any, messages: Any, protobuf: Any) -> None:
        self.app, self.state, self.model = app, app.state, app.state.release.manifest.model
        self.grpc, self.messages, self.protobuf = grpc, messages, protobuf
        # gRPC reads a message as a whole before anybody can count it, so few are read at once.
        settings = self.state.settings
        count = max(1, settings.buffered_bytes // settings.body_bytes)
        self.places = Places(count, READ_SECONDS, settings.body_bytes)
        self.short_places = Places(SHORT_PLACES, SHORT_SECONDS, SHORT_BYTES)
        # Hosts and origins are about web pages, and these cannot speak gRPC.
        own = settings.model_copy(update={"allowed_hosts": None, "cors_origins": None})
        self.entrance = recorded(guarded(self.respond, own), self.state.observers)

    def handler(self) -> Any:
        """Return what gRPC calls. Each call is a stream of one message, so that it can wait to be read."""
        make = self.grpc.stream_unary_rpc_method_handler
        calls = {name: make(partial(self.answer, name)) for name in ("ModelInfer", *UNREAD_CALLS, *SHORT_CALLS)}
        return self.grpc.method_handlers_generic_handler(SERVICE, calls)

    async def answer(self, name: str, stream: Any, context: Any) -> bytes:
        """Answer a call by a request to `respond`, with the status of gRPC for that of HTTP."""
        answers: list[Message] = []

        async def receive() -> Message:
            places = self.places if name == "ModelInfer" else self.short_places
            return {"type": "http.request", "body": await places.read(stream, self.state.settings.receive)}

        async def send(message: Message) -> None:
            answers.append(message)

        scope = self.scope(name, context)
        with counted_request(scope, lambda: record_of(Request(scope)).status):
            await self.entrance(scope, receive, send)
        head, body = answers
        context.set_trailing_metadata([(k.decode(), v.decode()) for k, v in head["headers"] if k in METADATA])
        if head["status"] != 200:
            code = getattr(self.grpc.StatusCode, CODES.get(head["status"], "INTERNAL"))
            await context.abort(code, orjson.loads(body["body"])["error"])
        return bytes(body["body"])

    def scope(self, name: str, context: Any) -> Scope:
        """Return a call as the request of HTTP that it is on the wire."""
        path = f"/{SERVICE}/{name}"
        kind, _, peer = unquote(context.peer()).partition(":")
        host, _, port = peer.rpartition(":")
        # Those of a body are for gRPC, and not checked.
        metadata = [(key, value) for key, value in context.invocation_metadata() if not key.startswith("content-")]
        return {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "route": SimpleNamespace(path=path),
            "headers": [(k.encode(), v.encode("latin-1", "replace")) for k, v in metadata if isinstance(v, str)],
            "client": (host.strip("[]"), int(port)) if kind.startswith("ip") else None,
            "app": self.app,
            CALL: context,
        }

    async def respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"].rpartition("/")[2]
        endpoint = self.infer if name == "ModelInfer" else partial(self.describe, name)
        await (await answer_or_error(endpoint, Request(scope, receive)))(scope, receive, send)

    def parse(self, name: str, content: bytes) -> Any:
        """Return the message of a call. Raises RequestError (400) for bytes that are none."""
        try:
            return getattr(self.messages, f"{name}Request").FromString(content)
        except self.protobuf.DecodeError as cause:
            raise RequestError(400, f"the message is not a {name}Request: check the client") from cause

    async def infer(self, request: Request) -> Response:
        """Run the model, as HTTP's route does."""

        def decode(body: bytes, limits: Limits) -> InferenceRequest:
            check_message(body)
            message = self.parse("ModelInfer", body)
            v2.check_model(self.model, message.model_name, message.model_version)
            return read_request(self.state.release.spec, message, limits)

        def encode(asked: InferenceRequest, outputs: Arrays) -> bytes:
            return write_answer(self.messages, self.model, asked, outputs)

        with counted(record_of(request)):
            v2.check_ready(request)
            content = await v2.run_inference(request, decode, encode)
            self.take_room(len(content), request.scope[CALL])
            return Response(content)

    def take_room(self, size: int, context: Any) -> None:
        """Count an answer of `size` bytes until its call ends, which is when gRPC has sent it, or the client has left.

        Raises RequestError or BusyError if there is no room for it, as HTTP does.
        """
        if size <= UNCOUNTED_BYTES:
            return
        check_answer(size, self.state.settings)

        def give_back(_: Any) -> None:
            memory.used -= size

        memory.used += size
        context.add_done_callback(give_back)

    async def describe(self, name: str, request: Request) -> Response:
        """Return the answer of every call but ModelInfer: what the route of HTTP answers."""
        found: Any
        message = self.parse(name, b"" if name in UNREAD_CALLS else await request.body())
        if name.startswith("Model") and (message.name or name != "ModelStatistics"):  # those of all models have no name
            v2.check_model(self.model, message.name, message.version)
        match name:
            case "ServerLive":
                found = {"live": True}
            case "ServerReady" | "ModelReady":
                found = {"ready": self.state.ready}
            case "ServerMetadata":
                found = await v2.server_metadata(request)
            case "ModelMetadata":
                found = await v2.model_metadata(request)
            case "ModelConfig":
                found = {"config": await model_control.model_config(request)}
            case "ModelStatistics":
                found = await asyncio.to_thread(model_control.all_statistics, request)
            case "RepositoryIndex":
                found = {"models": model_control.models(request, message.ready)}
            case _:
                await model_control.refuse_control(request)
        answer = getattr(self.messages, f"{name}Response")(**to_jsonable_python(found, exclude_none=True))
        return Response(answer.SerializeToString())
