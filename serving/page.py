"""The page at /: its files, read once, with what it has to know of the release written into the first of them.

It is plain HTML, CSS and one script, and loads nothing from anywhere else: HEADERS forbid it.
"""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal, get_type_hints

from fastapi import APIRouter, Response

from onnx_release.core.spec import Spec, concrete_shape, example_sizes
from onnx_release.data.model_data import ModelData
from onnx_release.runtime.release import Release
from serving.settings import Settings

# "image" where a client sends pictures, "text" where it sends text, "none" where there is no /predict.
Kind = Literal["image", "text", "none"]

FOLDER = Path(__file__).parent / "page"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# What index.html has for the release's own words.
BLANK = '<script type="application/json" id="release">{}</script>'

HEADERS = {
    # Scripts, styles and requests of this server alone; blob: is the picture that was dropped.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # another release may answer at this address tomorrow
}


def page_router(release: Release, data: ModelData, settings: Settings) -> APIRouter:
    """GET / and the files below /page/ that it loads."""
    router = APIRouter(include_in_schema=False)
    for path, (content_type, content) in render_page(release, settings, upload_kind(data, release.spec)).items():
        router.add_api_route(path, answering(content_type, content), methods=["GET", "HEAD"])
    return router


def answering(content_type: str, content: bytes) -> Callable[[], Awaitable[Response]]:
    async def answer() -> Response:
        return Response(content, headers=HEADERS, media_type=content_type)

    return answer


def upload_kind(data: ModelData, spec: Spec) -> Kind:
    """What /predict takes: by its annotation, decode() of data.py gives a str for text."""
    decode = getattr(data, "decode", None)
    if spec.task == "tensor" or decode is None:
        return "none"
    return "text" if get_type_hints(decode).get("return") is str else "image"


def render_page(release: Release, settings: Settings, kind: Kind) -> dict[str, tuple[str, bytes]]:
    """Content type and content of each file of the page, by its path on the server."""
    files = {
        f"/page/{path.name}": (CONTENT_TYPES[path.suffix], path.read_bytes())
        for path in sorted(FOLDER.iterdir())
        if path.suffix in CONTENT_TYPES
    }
    content_type, html = files.pop("/page/index.html")
    filled = BLANK.replace("{}", as_script(description(release, settings, kind)))
    return {"/": (content_type, html.replace(BLANK.encode(), filled.encode())), **files}


def description(release: Release, settings: Settings, kind: Kind) -> dict[str, object]:
    """What page.js reads. `shapes` are those of an example with one item, by the name of the input."""
    sizes = example_sizes(release.spec)
    return {
        "model": release.manifest.model,
        "variant": release.manifest.variant,
        "task": release.spec.task,
        "kind": kind,
        "max_files": settings.files,
        "upload_bytes": settings.upload_bytes,
        "shapes": {tensor.name: [1, *concrete_shape(tensor, sizes)[1:]] for tensor in release.spec.inputs},
    }


def as_script(content: object) -> str:
    """JSON for a script element: no `<` in it, which alone could end the element."""
    return json.dumps(content).replace("<", "\\u003c")
