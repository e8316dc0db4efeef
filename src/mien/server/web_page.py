"""Serves the page at `/` and the files with which it recognises faces on the visitor's device."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.staticfiles import StaticFiles

from mien.errors import CheckpointError, MissingExtraError
from mien.languages import page_languages
from mien.predict.recognizer import Recognizer
from mien.server.device import MANIFEST, PAGE, device_files

PAGE_FILES = {"/": "index.html"} | {f"/{path.name}": path.name for path in sorted(PAGE.iterdir()) if path.is_file()}
"""The files of the page by their addresses."""

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".onnx": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
"""Media types by ending. Those that the system knows may be wrong, and browsers refuse a script with a wrong one."""

HEADERS = {
    "Cache-Control": "no-cache",  # ask whether a file has changed: after an update, old and new files do not fit together
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; img-src 'self' blob: data:; "
    "media-src 'self' blob:; worker-src 'self' blob:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'self'",
    "Cross-Origin-Embedder-Policy": "require-corp",  # this and the next let WebAssembly use threads
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

DEVICE = f"/device/{MANIFEST}"
"""The address that tells the page whether it can recognise faces without the server."""


LANGUAGES = "/languages.json"
"""The address of the page's texts in every language."""


def add_page(app: FastAPI, recognizer: Recognizer, with_device: bool, language: str | None = None) -> None:
    """Add the routes of the page and its files.

    Args:
        app: The application.
        recognizer: Whose answers the device shall give.
        with_device: Serve the files for the device too, if this install has onnxruntime-web and its browser build can run the
            model and the detector. The model is among them, and scripts that a browser loads carry no API key.
        language: The language in which the page starts; see `mien.languages.page_languages`.
    """
    files: dict[str, bytes | Path] = {address: PAGE / name for address, name in PAGE_FILES.items()}
    files[LANGUAGES] = json.dumps(page_languages(language), ensure_ascii=False).encode()
    if with_device:
        with suppress(CheckpointError, MissingExtraError):
            files |= {f"/device/{name}": content for name, content in device_files(recognizer).items()}
    for address, content in files.items():
        ending = Path(PAGE_FILES.get(address, address)).suffix
        app.add_route(address, _responder(content, ending), ["GET", "HEAD"], include_in_schema=False)
    if DEVICE not in files:
        app.add_route(DEVICE, _nothing, ["GET", "HEAD"], include_in_schema=False)


def _responder(content: bytes | Path, ending: str) -> Callable[[Request], Awaitable[Response]]:
    """Return the function that answers with a file or with bytes."""
    headers = HEADERS | {"Content-Type": TYPES.get(ending, "application/octet-stream")}
    tag = f'"{hashlib.sha256(content).hexdigest()}"' if isinstance(content, bytes) else ""
    static = StaticFiles()

    async def respond(request: Request) -> Response:
        if isinstance(content, Path):
            response = static.file_response(content, content.stat(), request.scope)
        elif request.headers.get("if-none-match") == tag:
            response = Response(status_code=304)
        else:
            response = Response(content, headers={"ETag": tag})
        response.headers.update(headers)
        return response

    return respond


async def _nothing(_: Request) -> Response:
    return Response(status_code=204)  # browsers log 404 as an error
