"""Define every setting of the server, read from the command line, the environment (`SERVING_PORT=80`), or defaults."""

import re
from pathlib import Path
from typing import Annotated, cast

from pydantic import AfterValidator, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from serving.environment import serving_variables

# A token as RFC 6750 allows it in the header Authorization.
TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\]")
ORIGIN = re.compile(r"\*|[a-z][a-z0-9+.-]*://[^/\s,]+")


def split_list(text: str) -> list[str]:
    """Return the items of a setting that is a list with commas."""
    return [item.strip().lower() for item in text.split(",")]


def check_hosts(text: str) -> str:
    for item in split_list(text):
        if not HOST.fullmatch(item):
            raise ValueError(f"{item!r} is no host: give names or addresses without scheme and port, such as a.example")
    return text


def check_origins(text: str) -> str:
    for item in split_list(text):
        if not ORIGIN.fullmatch(item):
            raise ValueError(f"{item!r} is no origin: give scheme, host and port, such as https://a.example")
    return text


def check_token(token: SecretStr) -> SecretStr:
    if not TOKEN.fullmatch(token.get_secret_value()):
        raise ValueError("a token is letters, digits and -._~+/, and may end with =: `openssl rand -hex 32` makes one")
    return token


# Every number has a lower and an upper bound: tests/serving/test_serve.py checks it.
Processes = Annotated[int, Field(ge=1, le=1024)]  # and threads; the largest machines have about as many cores
Amount = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=2**40)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]
# The formats of onnx_release.data.images, which would import Pillow here: tests/serving/test_decoders.py compares them.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")


def check_formats(names: str) -> str:
    """Return the names of formats, with commas between them, in capitals. Raises ValueError for one that is unknown."""
    wanted = [name.strip().upper() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in FORMATS]:
        raise ValueError(f"{unknown[0] or 'nothing'} is none of {', '.join(FORMATS)}")
    return ",".join(wanted)


class Settings(BaseSettings):
    """The settings of a server. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="SERVING_", frozen=True, extra="forbid", cli_implicit_flags=True)

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is all of this machine's")
    port: Port = Field(default=8000, description="0 takes a free port and prints it")
    grpc_port: Port | None = Field(
        default=None, description="port for the Open Inference Protocol by gRPC, on the same address; null: none"
    )
    workers: Processes = Field(default=1, description="processes that share the port; each loads the model")

    # How requests are run, in each process.
    threads: Processes | None = Field(
        default=None,
        description="threads that decode, preprocess and run the model; null: one a core, shared by the workers",
    )
    max_batch: Amount | None = Field(
        default=None, description="most rows of a call of the model; null: 4 on a CPU (1 for int8_dynamic), 8 on a GPU"
    )
    queue: Amount = Field(
        default=64, description="rows that wait or run, each upload is one; one more is answered 503 at once"
    )
    deadline: Seconds = Field(default=10, description="time from a request's last byte to its answer; then it is 504")
    drain: Seconds = Field(default=30, description="time to finish the present requests after SIGTERM")

    # What a client may send.
    connections: Amount = Field(
        default=2048,
        description="open connections; one more takes the place of one without a request, or is answered 503",
    )
    receive: Seconds = Field(
        default=10, description="time for a request's head to arrive, and for a short body; then it is answered 408"
    )
    receive_rate: Bytes = Field(
        default=50_000,
        description="bytes a second: a body that arrives, or an answer read, as fast may take more than `receive`",
    )
    idle: Seconds = Field(default=5, description="a connection without a request is closed after this time")
    upload_bytes: Bytes = Field(default=10_000_000, description="size of one file")
    body_bytes: Bytes = Field(default=40_000_000, description="size of one request's body")
    buffered_bytes: Bytes = Field(
        default=400_000_000,
        description="size of all bodies and unread answers in memory, at least `body_bytes`; one more is answered 503",
        validate_default=True,
    )
    tensor_bytes: Bytes = Field(default=100_000_000, description="size of all tensors of one request, as arrays")
    pixels: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        default=50_000_000, description="pixels of one picture, read from its header before it is decoded"
    )
    formats: Annotated[str, AfterValidator(check_formats)] = Field(
        default="JPEG,PNG,WEBP", description="formats of pictures; AVIF, TIFF, BMP, GIF and PPM are the others"
    )
    decode_seconds: Seconds = Field(
        default=5, description="CPU time to decode and preprocess the files of one request; then it is answered 413"
    )
    files: Amount = Field(default=16, description="files in one request")

    # What an operator sees, and who may ask. These follow the others, since most servers need none of them.
    log_requests: bool = Field(default=False, description="a line of JSON on standard output for each request")
    otlp_endpoint: Annotated[str, Field(pattern=r"^https?://[^\s/]+")] | None = Field(
        default=None, description="URL of an OpenTelemetry collector (OTLP over HTTP) that gets a span for each request"
    )
    docs: bool = Field(default=True, description="answer /docs and /openapi.json")
    page: bool = Field(default=True, description="answer the page at /")
    metrics: bool = Field(default=True, description="answer /metrics")
    metrics_port: Port | None = Field(
        default=None, description="a port of its own for /metrics, on the same address; null: with everything else"
    )
    token_file: Path | None = Field(
        default=None, description="file with a token that every request but for health must have"
    )
    token: Annotated[SecretStr, AfterValidator(check_token)] | None = Field(
        default=None, description="the token itself, only in the environment: others can read a command line"
    )
    allowed_hosts: Annotated[str, AfterValidator(check_hosts)] | None = Field(
        default=None,
        description="names in Host that are answered, with commas, `*.a.example` for those below; null: any",
    )
    cors_origins: Annotated[str, AfterValidator(check_origins)] | None = Field(
        default=None, description="origins whose web pages may call the server, with commas, or `*` for all; null: none"
    )

    @field_validator("buffered_bytes")
    @classmethod
    def check_buffered_bytes(cls, value: int, info: ValidationInfo) -> int:
        """Raise ValueError if the largest body would never have room."""
        needed = info.data.get("body_bytes", 0)
        if value < needed:
            raise ValueError(f"it must be at least {needed}, as --body-bytes: raise it, or lower --body-bytes")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read only variables that are settings. Raises ParameterError for one that is mistyped."""
        environment = cast(EnvSettingsSource, env_settings)
        environment.env_vars = serving_variables(environment.env_vars, settings_cls.model_fields)
        return init_settings, environment
