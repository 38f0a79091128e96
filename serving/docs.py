"""Serve the documentation of the API at /docs: Swagger UI on /openapi.json, from the files of an installed package.

FastAPI's own page loads Swagger UI from a CDN, which a server in a closed network cannot reach. DOCS_HEADERS forbid
everything that is not from this server.
"""

import html
from importlib import resources

from fastapi import APIRouter

from serving.page import HEADERS, answering

# The files of Swagger UI, byte for byte those of swagger-ui-dist.
FILES = resources.files("fastapi_swagger") / "resources"
CONTENT_TYPES = {
    "swagger-ui-bundle.js": "text/javascript; charset=utf-8",
    "swagger-ui.css": "text/css; charset=utf-8",
    "favicon-32x32.png": "image/png",
}

# Addresses are relative, so that the page works below a prefix of a proxy.
PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>MODEL: API</title>
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
SCRIPT = """SwaggerUIBundle({
  url: "openapi.json", dom_id: "#swagger-ui", deepLinking: true, displayRequestDuration: true, validatorUrl: null,
})
"""
# Swagger UI has inline styles, and icons in its style sheet and in what it draws as data.
DOCS_HEADERS = {
    **HEADERS,
    "Content-Security-Policy": HEADERS["Content-Security-Policy"]
    .replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
    .replace("img-src 'self' blob:", "img-src 'self' data:"),
}


def docs_router(model: str) -> APIRouter:
    """Make the routes for /docs and for the files that it loads."""
    router = APIRouter(include_in_schema=False)
    files = {
        "/docs": ("text/html; charset=utf-8", PAGE.replace("MODEL", html.escape(model)).encode()),
        "/docs/start.js": ("text/javascript; charset=utf-8", SCRIPT.encode()),
    }
    files |= {f"/docs/{name}": (kind, (FILES / name).read_bytes()) for name, kind in CONTENT_TYPES.items()}
    for path, (content_type, content) in files.items():
        router.add_api_route(path, answering(content_type, content, DOCS_HEADERS))
    return router
