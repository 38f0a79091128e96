"""Every limit and switch of the server: the command line, the environment (`SERVING_PORT=80`), then these defaults."""

from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

# Every number has both ends: tests/serving/test_serve.py holds it.
Processes = Annotated[int, Field(ge=1, le=1024)]  # and threads: as many cores as the largest machines have
Count = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=2**40)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class Settings(BaseSettings):
    """How one release is served. Sizes are bytes, times seconds."""

    model_config = SettingsConfigDict(env_prefix="SERVING_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is every one of this machine")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8000, description="0 takes a free one and says which")
    workers: Processes = Field(default=1, description="processes that share the port; each loads the model")

    # How requests are run, in each process.
    threads: Processes | None = Field(
        default=None, description="that decode, preprocess and run the model; null: one a core, shared by the workers"
    )
    max_batch: Count | None = Field(
        default=None, description="items run at once; null: 4 on a CPU, but 1 of int8_dynamic, and 8 on a GPU"
    )
    queue: Count = Field(default=64, description="items that are waiting or running; one more is answered 503 at once")
    deadline: Seconds = Field(
        default=10, description="from a request's last byte to the start of its work, or it is dropped (504)"
    )
    drain: Seconds = Field(default=30, description="after SIGTERM, for the requests that are there")

    # What a client may send.
    connections: Count = Field(default=2048, description="open at once; one more is answered 503 and closed")
    receive: Seconds = Field(
        default=10, description="for a request to arrive in full, its head and its body each; 408 after it"
    )
    idle: Seconds = Field(default=5, description="without a request, after which a connection is closed")
    upload_bytes: Bytes = Field(default=10_000_000, description="of one file")
    body_bytes: Bytes = Field(default=40_000_000, description="of one request")
    buffered_bytes: Bytes = Field(default=400_000_000, description="of all bodies in memory; one more is answered 503")
    tensor_bytes: Bytes = Field(default=100_000_000, description="of all tensors of one request, as arrays")
    pixels: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        default=50_000_000, description="of one picture, by its header, before it is decoded"
    )
    files: Count = Field(default=16, description="in one request")
