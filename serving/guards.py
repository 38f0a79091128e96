"""Decide which requests the application sees: the token, the allowed hosts, and web pages of other origins.

Everything here is off unless a setting asks for it. Health is answered to everybody: who asks for it, such as
Kubernetes, has no token and uses the address of the pod.
"""

import orjson
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.connection import close_after_answer
from serving.settings import Settings, split_list
from serving.tokens import has_token, read_token

HEALTH = (
    "/v2/health/live",
    "/v2/health/ready",
    "/inference.GRPCInferenceService/ServerLive",
    "/inference.GRPCInferenceService/ServerReady",
)
# What a page of another origin may send and read, beyond what any page may.
CORS_METHODS = ("GET", "HEAD", "POST")
CORS_REQUEST_HEADERS = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Inference-Header-Content-Length",
    "Traceparent",
    "X-Request-ID",
)
CORS_ANSWER_HEADERS = ("Inference-Header-Content-Length", "Retry-After", "Traceparent", "X-Request-ID")
MISDIRECTED = 421  # RFC 9110, 15.5.20


class Origins(CORSMiddleware):
    """Starlette's middleware, except that a question that it refuses is answered in JSON, as every error is."""

    def preflight_response(self, request_headers: Headers) -> Response:
        answer = super().preflight_response(request_headers)
        if answer.status_code < 400:
            return answer
        text = f"{bytes(answer.body).decode()}: see --cors-origins"
        kept = {name: value for name, value in answer.headers.items() if not name.startswith("content-")}
        return Response(orjson.dumps({"error": text}), answer.status_code, kept, "application/json")


def guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """Return the application behind the guards that the settings ask for. Raises ParameterError like `read_token`."""
    token = read_token(settings)
    if token is not None:
        app = with_token(app, token)
    if settings.allowed_hosts is not None:
        app = with_hosts(app, split_list(settings.allowed_hosts))
    if settings.cors_origins is not None:  # outside of the others: a browser asks first, without a token
        app = Origins(
            app,
            split_list(settings.cors_origins),
            CORS_METHODS,
            CORS_REQUEST_HEADERS,
            expose_headers=CORS_ANSWER_HEADERS,
        )
    return app


def with_token(app: ASGIApp, token: str) -> ASGIApp:
    """Return the application, which sees only requests for health and those with the token (RFC 6750)."""

    async def check_token(scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).getlist("authorization")
        if scope["path"] in HEALTH or (len(given) == 1 and has_token(given[0], token)):
            await app(scope, receive, send)
            return
        challenge = 'Bearer error="invalid_token"' if given else "Bearer"
        text = "the request has no valid token: send the header `Authorization: Bearer TOKEN`"
        await refusal(scope, 401, text, {"WWW-Authenticate": challenge})(scope, receive, send)

    return check_token


def with_hosts(app: ASGIApp, hosts: list[str]) -> ASGIApp:
    """Return the application, which sees only requests for health and those to one of the hosts."""

    async def check_host(scope: Scope, receive: Receive, send: Send) -> None:
        given = Headers(scope=scope).getlist("host")
        if scope["path"] in HEALTH or (len(given) == 1 and any(is_host(given[0], host) for host in hosts)):
            await app(scope, receive, send)
            return
        text = "this server does not answer for the host that the request names: see --allowed-hosts"
        await refusal(scope, MISDIRECTED, text)(scope, receive, send)

    return check_host


def is_host(given: str, allowed: str) -> bool:
    """Return whether the header Host is the allowed host, or below it for `*.HOST`, with any port."""
    name, colon, port = given.lower().rpartition(":")
    host = name if colon and port.isdecimal() else given.lower()
    return host.endswith(allowed[1:]) and len(host) >= len(allowed) if allowed.startswith("*.") else host == allowed


def refusal(scope: Scope, status: int, text: str, headers: dict[str, str] | None = None) -> Response:
    """Answer in place of the application, and do not wait for a body that nobody reads."""
    close_after_answer(Request(scope))
    return Response(orjson.dumps({"error": text}), status, headers, "application/json")
