"""Define every setting of the server, read from the command line, the environment (`SERVING_PORT=80`), or defaults."""

from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

# Every number has a lower and an upper bound: tests/serving/test_serve.py checks it.
Processes = Annotated[int, Field(ge=1, le=1024)]  # and threads; the largest machines have about as many cores
Amount = Annotated[int, Field(ge=1, le=1_000_000)]
Bytes = Annotated[int, Field(ge=1, le=2**40)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
# The formats of onnx_release.data.images, which would import Pillow here: tests/serving/test_pictures.py compares them.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "GIF", "PPM")


def check_formats(names: str) -> str:
    """Return the names of formats, with commas between them, in capitals. Raises ValueError for one that is unknown."""
    wanted = [name.strip().upper() for name in names.split(",")]
    if unknown := [name for name in wanted if name not in FORMATS]:
        raise ValueError(f"{unknown[0] or 'nothing'} is none of {', '.join(FORMATS)}")
    return ",".join(wanted)


class Settings(BaseSettings):
    """The settings of a server. Sizes are in bytes, times in seconds."""

    model_config = SettingsConfigDict(env_prefix="SERVING_", frozen=True, extra="forbid")

    host: str = Field(default="127.0.0.1", description="address to listen on; 0.0.0.0 is all of this machine's")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(default=8000, description="0 takes a free port and prints it")
    workers: Processes = Field(default=1, description="processes that share the port; each loads the model")

    # How requests are run, in each process.
    threads: Processes | None = Field(
        default=None,
        description="threads that decode, preprocess and run the model; null: one a core, shared by the workers",
    )
    max_batch: Amount | None = Field(
        default=None, description="most items in a call of the model; null: 4 on a CPU (1 for int8_dynamic), 8 on a GPU"
    )
    queue: Amount = Field(default=64, description="items that wait or run; one more is answered 503 at once")
    deadline: Seconds = Field(
        default=10, description="a request that waits longer after its last byte is dropped (504)"
    )
    drain: Seconds = Field(default=30, description="time to finish the present requests after SIGTERM")

    # What a client may send.
    connections: Amount = Field(default=2048, description="open connections; one more is answered 503 and closed")
    receive: Seconds = Field(
        default=10, description="time for a request's head to arrive, and for its body; then it is answered 408"
    )
    idle: Seconds = Field(default=5, description="a connection without a request is closed after this time")
    upload_bytes: Bytes = Field(default=10_000_000, description="size of one file")
    body_bytes: Bytes = Field(default=40_000_000, description="size of one request's body")
    buffered_bytes: Bytes = Field(
        default=400_000_000, description="size of all bodies in memory; one more is answered 503"
    )
    tensor_bytes: Bytes = Field(default=100_000_000, description="size of all tensors of one request, as arrays")
    pixels: Annotated[int, Field(ge=1, le=2**31 - 1)] = Field(
        default=50_000_000, description="pixels of one picture, read from its header before it is decoded"
    )
    formats: Annotated[str, AfterValidator(check_formats)] = Field(
        default="JPEG,PNG,WEBP", description="formats of pictures; AVIF, TIFF, BMP, GIF and PPM are the others"
    )
    decode_seconds: Seconds = Field(
        default=5, description="CPU time to decode and preprocess one file; then it is stopped and answered 413"
    )
    files: Amount = Field(default=16, description="files in one request")
