"""The routes. `create_app` makes the application; `application` makes it in each process that uvicorn starts.

A request for pictures goes this way: `admitted` counts it, `read_pictures` reads its body, a thread decodes the pictures and
finds their faces, and the network classifies the faces of all requests that are there together (`BatchingBackend`).
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles

from mien.errors import CheckpointError, InputError, MienError, MissingExtraError
from mien.image import read_image
from mien.output.table import columns, json_line, rows, write_table
from mien.predict.backend import Backend, open_backend
from mien.predict.ensemble import EnsembleBackend
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer, VideoOptions
from mien.server.batching import BatchingBackend
from mien.server.camera import serve_camera
from mien.server.device import device_files
from mien.server.jobs import VIDEO, Jobs
from mien.server.metrics import Metrics
from mien.server.schemas import Job, Model, Problem, answer_type, face_type
from mien.server.settings import Settings
from mien.server.uploads import Bytes, Upload, chunks, in_time, read_pictures

SETTINGS = "MIEN_SERVER"
"""The environment variable that tells the worker processes their settings, as JSON."""

VERSION = version("mien")

OPEN_ROUTES = ("/health", "/ready")
"""Routes that need no API key, for whoever watches the server."""

DEVICE_TYPES = {
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
"""Media types by ending. Those that the system knows may be wrong, and browsers refuse a script with a wrong one."""

DEVICE_HEADERS = {
    "Cache-Control": "no-cache",  # ask whether a file has changed: after an update, old and new files do not fit together
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'",  # of the worker
    "Cross-Origin-Embedder-Policy": "require-corp",  # lets WebAssembly use threads
    "Cross-Origin-Resource-Policy": "same-origin",
}

PICTURES = {
    "requestBody": {
        "required": True,
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
            "application/json": {
                "schema": {"$ref": "#/components/schemas/Pictures"},
                "example": {"pictures": [{"name": "dot", "data": "/9j/4AAQSkZJRg..."}]},
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


def _batching(backend: OnnxBackend | EnsembleBackend, on_batch: Callable[[int], None]) -> Backend:
    """Return a backend whose callers share batches. The ensemble's do not: its members prepare crops in different ways."""
    return BatchingBackend(backend, on_batch) if isinstance(backend, OnnxBackend) else backend


class Service:
    """What the routes share.

    Args:
        settings: The settings.

    Raises:
        MienError: The model or the detector cannot be loaded.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.backend = _batching(open_backend(settings.model), self._count_batch)
        options: dict[str, Any] = {"max_faces": settings.max_faces, "unsure_below": settings.unsure_below}
        self.recognizer = Recognizer(self.backend, detector=settings.detector, min_face=settings.min_face, **options)
        self.crop_recognizer = Recognizer(self.backend, detector=None, unsure_below=settings.unsure_below)
        self.threads = ThreadPoolExecutor(settings.threads, "mien-requests")
        self.bytes = Bytes(settings.max_waiting_bytes)
        self.waiting = self.cameras = 0
        self._folder = settings.jobs_folder or tempfile.mkdtemp(prefix="mien-server-")
        self.jobs = Jobs(self.recognizer, settings, Path(self._folder))

    def close(self) -> None:
        """Finish what was accepted."""
        self.threads.shutdown()
        self.jobs.close()
        if isinstance(self.backend, BatchingBackend):
            self.backend.close()
        if self.settings.jobs_folder is None:
            shutil.rmtree(self._folder, ignore_errors=True)

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count a request, or refuse it if too many wait."""
        if self.waiting >= self.settings.max_waiting + self.settings.threads:
            raise HTTPException(429, "too many requests are waiting; try again", {"Retry-After": "1"})
        self.waiting += 1
        self.metrics.waiting.inc()
        try:
            yield
        finally:
            self.waiting -= 1
            self.metrics.waiting.dec()

    async def answer(self, request: Request, kind: Literal["picture", "face"]) -> JSONResponse:
        """Return the answer to a request with pictures, or with faces that are cropped already."""
        with self.admitted(), self.bytes.account() as take:
            uploads = await read_pictures(request, self.settings, take, kind)
            recognizer = self.recognizer if kind == "picture" else self.crop_recognizer
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self.threads, self._recognize, recognizer, uploads)
        if all(picture["error"] for picture in found):
            raise HTTPException(422, found[0]["error"])
        self.metrics.faces.inc(sum(len(picture["faces"]) for picture in found))
        return JSONResponse({"pictures": found})

    def _recognize(self, recognizer: Recognizer, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        found = list[dict[str, Any]]()
        for upload in uploads:
            try:
                image = read_image(upload.data, upload.name, max_pixels=self.settings.max_pixels)
            except MienError as error:
                found.append({"source": upload.name, "width": None, "height": None, "faces": [], "error": str(error)})
                continue
            faces = list(rows(recognizer.predict(image)))
            for face in faces:
                face["source"] = upload.name
            height, width = image.shape[:2]
            found.append({"source": upload.name, "width": width, "height": height, "faces": faces, "error": None})
        return found

    def _count_batch(self, faces: int) -> None:
        self.metrics.batches.observe(faces)


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
    )
    app.state.service = service
    _add_errors(app)
    _add_middleware(app, service)
    _add_device(app, service)

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

    @app.get("/v1/videos/{job_id}/table", tags=["videos"], response_model=face_list, responses={404: {"model": Problem}})
    async def table(job_id: str, format: Annotated[Literal["json", "jsonl", "csv"], Query()] = "json") -> Response:
        """Return the table of a video so far: one row per face and frame."""
        return await asyncio.to_thread(_table, service, find(job_id).id, format)

    @app.delete("/v1/videos/{job_id}", tags=["videos"], status_code=204, responses={404: {"model": Problem}})
    async def cancel(job_id: str) -> None:
        """Stop reading a video, or forget one that was read."""
        service.jobs.cancel(find(job_id).id)

    @app.websocket("/v1/camera")
    async def camera(socket: WebSocket) -> None:
        await serve_camera(socket, service, lambda key: _is_known(key, settings))

    return app


_VIDEO = {
    "requestBody": {
        "required": True,
        "content": {"video/*": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def application() -> FastAPI:
    """Return the application of a worker process, with the settings in the environment."""
    return create_app(Settings.model_validate_json(os.environ.get(SETTINGS, "{}")))


def check(settings: Settings) -> None:
    """Check that the model and the detector can be loaded, before processes start with them.

    Raises:
        MienError: One of them cannot.
    """
    recognizer = Recognizer(
        settings.model, detector=settings.detector, min_face=settings.min_face, unsure_below=settings.unsure_below
    )
    columns(recognizer.classes)


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


def _add_device(app: FastAPI, service: Service) -> None:
    """Serve the files with which the page recognises on the visitor's device.

    There are none if onnxruntime-web is missing, or if the model and the detector cannot run there. A server with API keys
    serves none: the model is among them, and scripts that a browser loads carry no key.
    """
    backend = service.backend.backend if isinstance(service.backend, BatchingBackend) else service.backend
    try:
        files = {} if service.settings.keys else device_files(service.recognizer, backend)
    except (CheckpointError, MissingExtraError):
        return

    static = StaticFiles()

    def serve(name: str, content: bytes | Path) -> Callable[[Request], Awaitable[Response]]:
        headers = DEVICE_HEADERS | {"Content-Type": DEVICE_TYPES.get(Path(name).suffix, "application/octet-stream")}
        tag = f'"{hashlib.sha256(content).hexdigest()}"' if isinstance(content, bytes) else ""

        async def file(request: Request) -> Response:
            if isinstance(content, Path):
                response = static.file_response(content, content.stat(), request.scope)
            elif request.headers.get("if-none-match") == tag:
                response = Response(status_code=304)
            else:
                response = Response(content, headers={"ETag": tag})
            response.headers.update(headers)
            return response

        return file

    for name, content in files.items():
        app.add_route(f"/device/{name}", serve(name, content), methods=["GET", "HEAD"], include_in_schema=False)


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


def _add_middleware(app: FastAPI, service: Service) -> None:
    settings = service.settings

    @app.middleware("http")
    async def measure(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        """Check the API key, and count the request."""
        start = time.perf_counter()
        if (
            settings.keys
            and request.url.path not in OPEN_ROUTES
            and request.method != "OPTIONS"
            and not _is_known(_key_of(request.headers), settings)
        ):
            response: Response = JSONResponse(
                {"detail": "this server needs an API key; send it in the header X-API-Key"}, 401, {"WWW-Authenticate": "Bearer"}
            )
        else:
            response = await call_next(request)
        route = getattr(request.scope.get("route"), "path", "other")
        service.metrics.requests.labels(route, str(response.status_code)).inc()
        service.metrics.seconds.labels(route).observe(time.perf_counter() - start)
        return response

    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["*"],
            allow_headers=["X-API-Key", "Content-Type"],
        )


def _key_of(headers: Any) -> str:
    """Return the API key that a request carries; empty if none."""
    return headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ")


def _is_known(key: str, settings: Settings) -> bool:
    """Return whether a key is one of the server's, in a time that does not depend on how much of it is right."""
    given = key.encode("utf-8", "surrogateescape")
    return not settings.keys or bool(sum([hmac.compare_digest(given, known.encode()) for known in settings.keys]))
