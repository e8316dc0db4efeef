"""What every HTTP request passes first: its API key is checked, and it is counted."""

from __future__ import annotations

import hmac
import time
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mien.server.metrics import Metrics
from mien.server.settings import Settings
from mien.server.web_page import DEVICE, LANGUAGES, PAGE_FILES

OPEN_ROUTES = {"/health", "/ready", DEVICE, LANGUAGES, *PAGE_FILES}
"""Routes that need no API key: those for whoever watches the server, and the page, which asks for the key."""


class Gate:
    """Checks the API key of every HTTP request, and counts it."""

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app, self.settings, self.metrics = app, settings, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it if it lacks a known key."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start, status, is_counted = time.perf_counter(), 500, False

        def count() -> None:
            nonlocal is_counted
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
            is_counted = True

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                count()  # before the client has its answer, so that it finds itself in /metrics
            await send(message)

        settings = self.settings
        is_open = not settings.keys or scope["path"] in OPEN_ROUTES or scope["method"] == "OPTIONS"
        app = self.app if is_open or is_known(_key_of(Headers(scope=scope)), settings) else _needs_key
        try:
            await app(scope, receive, counted)
        finally:
            if not is_counted:
                count()


_needs_key = JSONResponse(
    {"detail": "this server needs an API key; send it in the header X-API-Key"}, 401, {"WWW-Authenticate": "Bearer"}
)


def _key_of(headers: Any) -> str:
    """Return the API key that a request carries; empty if none."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


def is_known(key: str, settings: Settings) -> bool:
    """Return whether a key is one of the server's, in a time that does not depend on how much of it is right."""
    given = key.encode("utf-8", "surrogateescape")
    return not settings.keys or bool(sum([hmac.compare_digest(given, known.encode()) for known in settings.keys]))
