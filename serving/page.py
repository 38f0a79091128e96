"""Serve the page at /: read its files once, and write what it has to know of the release into index.html.

It is plain HTML, CSS and one script, and loads nothing from other hosts: HEADERS forbid it.
"""

import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Literal, get_type_hints

from fastapi import APIRouter, Response

from onnx_release.core.spec import Spec, concrete_shape, of_batch
from onnx_release.data.model_data import ModelData
from onnx_release.runtime.release import Release
from serving.settings import Settings

# "image" where a client sends pictures, "text" where it sends text, "none" where there is no /predict.
UploadKind = Literal["image", "text", "none"]

PAGE_FOLDER = Path(__file__).parent / "page"
CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# The place in index.html for the description of the release.
BLANK = '<script type="application/json" id="release">{}</script>'

HEADERS = {
    # Scripts, styles and requests only from and to this server; blob: is the picture that was dropped.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # another release may answer at this address tomorrow
}


def page_router(release: Release, data: ModelData, settings: Settings) -> APIRouter:
    """Make the routes for / and for the files below /page/ that it loads."""
    router = APIRouter(include_in_schema=False)
    for path, (content_type, content) in render_page(release, settings, upload_kind(data, release.spec)).items():
        router.add_api_route(path, answering(content_type, content, HEADERS))
    return router


def answering(content_type: str, content: bytes, headers: Mapping[str, str]) -> Callable[[], Awaitable[Response]]:
    """Return the function of a route that always gives this answer."""

    async def answer() -> Response:
        return Response(content, headers=headers, media_type=content_type)

    return answer


def upload_kind(data: ModelData, spec: Spec) -> UploadKind:
    """Return what /predict takes; a decode() of data.py that takes text is annotated to return str."""
    decode = getattr(data, "decode", None)
    if spec.task == "tensor" or decode is None:
        return "none"
    return "text" if get_type_hints(decode).get("return") is str else "image"


def render_page(release: Release, settings: Settings, kind: UploadKind) -> dict[str, tuple[str, bytes]]:
    """Return the content type and the content of each file of the page, by its path on the server."""
    files = {
        f"/page/{path.name}": (CONTENT_TYPES[path.suffix], path.read_bytes())
        for path in sorted(PAGE_FOLDER.iterdir())
        if path.suffix in CONTENT_TYPES
    }
    content_type, html = files.pop("/page/index.html")
    filled = BLANK.replace("{}", as_script(description(release, settings, kind)))
    return {"/": (content_type, html.replace(BLANK.encode(), filled.encode())), **files}


def description(release: Release, settings: Settings, kind: UploadKind) -> dict[str, object]:
    """Describe the release for page.js. `shapes` has the shape of an example with one item for each input."""
    sizes = of_batch(release.spec, 1)
    return {
        "model": release.manifest.model,
        "variant": release.manifest.variant,
        "task": release.spec.task,
        "kind": kind,
        "max_files": settings.files,
        "upload_bytes": settings.upload_bytes,
        "shapes": {tensor.name: list(concrete_shape(tensor, sizes)) for tensor in release.spec.inputs},
    }


def as_script(content: object) -> str:
    """Return JSON for a script element, without `<`, which could end the element."""
    return json.dumps(content).replace("<", "\\u003c")
