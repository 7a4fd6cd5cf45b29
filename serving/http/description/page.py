"""The page at /docs: Swagger UI over the OpenAPI document, with nothing from another machine."""

from importlib import resources

from fastapi import APIRouter, Response
from starlette.exceptions import HTTPException

POLICY = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
PAGE = """<!doctype html>
<html lang="en">
<title>headrace: the API</title>
<meta charset="utf-8">
<link rel="icon" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
<div id="api"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/begin.js"></script>
</html>
"""
BEGIN = 'SwaggerUIBundle({ url: "openapi.json", dom_id: "#api", deepLinking: true, validatorUrl: null });\n'
FILES = {
    "swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "favicon-32x32.png": "image/png",
}  # fmt: skip


def docs_router() -> APIRouter:
    """Return the routes of the page."""
    router = APIRouter(include_in_schema=False)

    @router.get("/docs")
    async def page() -> Response:
        return _sent(PAGE, "text/html; charset=utf-8")

    @router.get("/docs/{name}")
    async def file(name: str) -> Response:
        if name == "begin.js":
            return _sent(BEGIN, "text/javascript")
        if name not in FILES:
            raise HTTPException(404, "there is no such file")
        return _sent(resources.files("fastapi_swagger").joinpath("resources", name).read_bytes(), FILES[name])

    return router


def _sent(body: str | bytes, kind: str) -> Response:
    headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    return Response(body, headers=headers, media_type=kind)
