"""The routes. `create_app` makes the application; `application` makes it in each process that uvicorn starts.

What the routes share, and the way of a request for pictures, is in `mien.server.service`.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.routing import Match
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from mien.errors import InputError, MienError
from mien.languages import ENGLISH, load_language
from mien.output.table import columns, json_line, write_table
from mien.predict.recognizer import Recognizer, VideoOptions
from mien.server.camera import serve_camera
from mien.server.gate import Gate, is_known
from mien.server.jobs import VIDEO
from mien.server.schemas import Job, Model, Problem, answer_type, face_type
from mien.server.service import Service
from mien.server.settings import Settings
from mien.server.uploads import chunks, in_time
from mien.server.web_page import add_page

SETTINGS = "MIEN_SERVER"
"""The environment variable that tells the worker processes their settings, as JSON."""

VERSION = version("mien")

DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
"""The smallest PNG, for examples."""

PICTURES = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}},
                    "required": ["files"],
                }
            },
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Pictures"},
                "example": {"pictures": [{"name": "dot", "data": DOT}]},
            },
        },
    }
}
"""What the documentation says of the body of a request with pictures."""

ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in (
        (400, "The body is not what its type says"),
        (401, "No API key, or a wrong one"),
        (408, "The request took too long to arrive"),
        (413, "Too large, or too many pictures"),
        (422, "No picture could be read, or an option is wrong"),
        (429, "The server is busy; try again after `Retry-After` seconds"),
    )
}


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the application.

    Raises:
        MienError: The model or the detector cannot be loaded.
    """
    service = Service(settings or Settings())
    settings, face = service.settings, face_type(service.recognizer.classes)
    answer = answer_type(face)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="mien",
        version=VERSION,
        description="Facial expressions in pictures, videos and cameras. A label says how a face looks, not what one feels.",
        lifespan=lifespan,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        responses={422: {"model": Problem, "description": "A value of the address is wrong"}},
    )
    app.state.service = service
    _add_errors(app)
    _add_middleware(app, service)
    add_page(app, service.recognizer, with_device=not settings.keys, language=settings.language)

    @app.get("/health", tags=["server"])
    async def health() -> dict[str, str]:
        """Say that the process is alive."""
        return {"status": "ok"}

    @app.get("/ready", tags=["server"], responses={503: {"model": Problem}})
    async def ready() -> dict[str, str]:
        """Say whether another request would be taken."""
        if service.waiting >= settings.max_waiting:
            raise HTTPException(503, "too many requests are waiting")
        return {"status": "ready"}

    @app.get("/metrics", tags=["server"], response_class=Response)
    async def metrics() -> Response:
        """Return the server's figures for Prometheus."""
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/model", tags=["recognition"])
    async def model() -> Model:
        """Describe the model that answers."""
        info = service.backend.info
        return Model(
            name=info.arch,
            classes=list(info.classes),
            mien_version=VERSION,
            unsure_below=settings.unsure_below,
            results=info.results,
        )

    @app.post("/v1/pictures", tags=["recognition"], response_model=answer, responses=ERRORS, openapi_extra=PICTURES)
    async def pictures(request: Request) -> JSONResponse:
        """Find the faces in pictures and recognise their expressions."""
        return await service.answer(request, "picture")

    @app.post("/v1/faces", tags=["recognition"], response_model=answer, responses=ERRORS, openapi_extra=PICTURES)
    async def faces(request: Request) -> JSONResponse:
        """Recognise the expressions of faces that are cropped already: each picture is one face."""
        return await service.answer(request, "face")

    @app.post("/v1/videos", tags=["videos"], status_code=202, responses=ERRORS, openapi_extra=_VIDEO)
    async def videos(request: Request, options: Annotated[VideoOptions, Depends(_video_options)]) -> Job:
        """Take a video, the raw bytes of its file, and return its job. It is read as soon as the videos before it are done."""
        if not service.jobs.has_room():
            raise HTTPException(429, "too many videos are waiting; try again later", {"Retry-After": "10"})
        if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise HTTPException(
                422, "a video cannot be sent as a form; send the bytes of its file, as curl --data-binary @FILE does"
            )
        folder = service.jobs.new_folder()
        try:
            await _save(request, folder / VIDEO, settings)
            return service.jobs.submit(folder, options)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def find(job_id: str) -> Job:
        job = service.jobs.get(job_id)
        if job is None:
            raise HTTPException(404, "there is no such video; its answer may have been removed, so send it again")
        return job

    @app.get("/v1/videos/{job_id}", tags=["videos"], responses={404: {"model": Problem}})
    async def video(job_id: str) -> Job:
        """Say how far a video is; when it is done, with a summary of each person."""
        return find(job_id)

    face_list = list[face]  # type: ignore[valid-type]

    @app.get("/v1/videos/{job_id}/table", tags=["videos"], response_model=face_list, responses=_TABLE)
    async def table(job_id: str, format: Annotated[Literal["json", "jsonl", "csv"], Query()] = "json") -> Response:
        """Return the table of a video so far: one row per face and frame."""
        return await asyncio.to_thread(_table, service, find(job_id).id, format)

    @app.delete(
        "/v1/videos/{job_id}", tags=["videos"], status_code=204, response_model=None, responses={404: {"model": Problem}}
    )
    async def cancel(job_id: str) -> None:
        """Stop reading a video, or forget one that was read."""
        service.jobs.cancel(find(job_id).id)

    @app.websocket("/v1/camera")
    async def camera(socket: WebSocket) -> None:
        await serve_camera(socket, service, lambda key: is_known(key, settings))

    return app


_VIDEO = {
    "requestBody": {
        "required": True,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}

_TABLE: dict[int | str, dict[str, Any]] = {
    200: {"content": {kind: {"schema": {"type": "string"}} for kind in ("text/csv", "application/jsonl")}},
    404: {"model": Problem},
}
"""What the documentation says of a table besides its JSON."""


@cache
def process_settings() -> Settings:
    """Return the settings of this worker process, which are in the environment."""
    return Settings.model_validate_json(os.environ.get(SETTINGS, "{}"))


def application() -> FastAPI:
    """Return the application of a worker process."""
    return create_app(process_settings())


class HTTPProtocol(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
    """uvicorn's connection, closed if its client neither sends a request nor takes the answer for `idle_seconds`.

    uvicorn itself waits for the head of a request forever. The body has its own limit, `upload_seconds`.
    """

    def connection_made(self, transport: Any) -> None:
        """Start to watch the client."""
        super().connection_made(transport)
        self._watch(None)

    def _watch(self, before: Any) -> None:
        if self.transport.is_closing() or self.transport.get_protocol() is not self:  # a WebSocket has another
            return
        answered, unsent = self.cycle is None or self.cycle.response_complete, self.transport.get_write_buffer_size()
        now = (self.cycle, answered, unsent)
        if now == before and (answered or unsent):
            self.transport.abort()
            return
        self.loop.call_later(process_settings().idle_seconds, self._watch, now)


def check(settings: Settings) -> None:
    """Check that the model, the detector and the language can be loaded, before processes start with them.

    Raises:
        MienError: One of them cannot.
    """
    recognizer = Recognizer(
        settings.model,
        detector=settings.detector,
        min_face=settings.min_face,
        unsure_below=settings.unsure_below,
        providers=settings.providers,
    )
    columns(recognizer.classes)
    load_language(settings.language or ENGLISH)


def _video_options(
    fps: Annotated[float | None, Query(gt=0, description="frames per second to look at; by default all")] = None,
    start: Annotated[float | None, Query(ge=0, description="first second to read")] = None,
    end: Annotated[float | None, Query(gt=0, description="second to stop at")] = None,
    detect_every: Annotated[int, Query(ge=1, description="find faces in every n-th frame, follow them in between")] = 5,
    smooth: Annotated[Literal["none", "exponential", "centred"], Query()] = "exponential",
    smooth_seconds: Annotated[float, Query(gt=0, le=10)] = 0.3,
) -> VideoOptions:
    return VideoOptions(fps, start, end, detect_every, smooth, smooth_seconds)


async def _save(request: Request, path: Path, settings: Settings) -> None:
    """Write the body of a request to a file."""
    size = 0
    async with in_time(settings.upload_seconds):
        with path.open("wb") as file:
            async for chunk in chunks(request, settings.max_video_bytes):
                size += len(chunk)
                await asyncio.to_thread(file.write, chunk)
    if not size:
        raise HTTPException(422, "the request has no video; send the bytes of a video's file")


def _table(service: Service, job_id: str, format: str) -> Response:
    found = service.jobs.rows(job_id)
    if format == "json":
        parts = (("[" if i == 0 else ",") + json_line(row) for i, row in enumerate(found))
        return StreamingResponse(_ended(parts, "]", "[]"), media_type="application/json")
    if format == "jsonl":
        return StreamingResponse((json_line(row) + "\n" for row in found), media_type="application/jsonl")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        write_table(path, found, service.recognizer.classes)
        return Response(path.read_bytes(), media_type="text/csv; charset=utf-8")


def _ended(parts: Iterator[str], end: str, empty: str) -> Iterator[str]:
    """Yield the parts and then the end; `empty` if there are no parts."""
    any_part = False
    for part in parts:
        any_part = True
        yield part
    yield end if any_part else empty


def _add_errors(app: FastAPI) -> None:
    """Answer every error that a request can cause with one sentence."""

    @app.exception_handler(MienError)
    async def mien_error(_: Request, error: MienError) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422 if isinstance(error, InputError) else 500)

    @app.exception_handler(RequestValidationError)
    async def validation_error(_: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:]) or "the request"
        return JSONResponse({"detail": f"{where}: {first['msg'][:1].lower()}{first['msg'][1:]}"}, 422)

    @app.exception_handler(404)
    async def not_found(_: Request, error: HTTPException) -> JSONResponse:
        known = error.detail != "Not Found"  # Starlette's own
        return JSONResponse(
            {"detail": error.detail if known else "there is nothing here; /openapi.json lists what there is"}, 404
        )

    @app.exception_handler(405)
    async def wrong_method(request: Request, _: HTTPException) -> JSONResponse:
        routes = [route for route in app.routes if route.matches(request.scope)[0] != Match.NONE]
        methods = sorted({method for route in routes for method in getattr(route, "methods", ())})
        return JSONResponse({"detail": f"send {' or '.join(methods)} to this address"}, 405, {"Allow": ", ".join(methods)})

    @app.exception_handler(Exception)
    async def failure(_: Request, __: Exception) -> JSONResponse:
        return JSONResponse({"detail": "the server failed; its log says why"}, 500)


def _add_middleware(app: FastAPI, service: Service) -> None:
    settings = service.settings

    app.add_middleware(Gate, settings=settings, metrics=service.metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["*"],
            allow_headers=["X-API-Key", "Content-Type"],
        )
