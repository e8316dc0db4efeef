"""`Service`: what the routes of a server share, and how it answers pictures.

A request for pictures goes this way: `admitted` counts it, `read_pictures` reads its body, and a thread answers it. A request
for ready faces shares the thread, and the batches of the network, with the others that are there (`Batcher`).
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from fastapi import HTTPException, Request
from fastapi.responses import JSONResponse

from mien.errors import InputError
from mien.image import read_image
from mien.output.table import reading_rows
from mien.predict.backend import open_backend
from mien.predict.recognizer import Recognizer
from mien.provenance import available_cores
from mien.server.batching import Batcher
from mien.server.jobs import Jobs
from mien.server.metrics import Metrics
from mien.server.settings import Settings
from mien.server.uploads import Bytes, Upload, read_pictures
from mien.video.sources import Source


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
        self.backend = open_backend(settings.model, providers=settings.providers)
        options: dict[str, Any] = {"max_faces": settings.max_faces, "unsure_below": settings.unsure_below}
        self.recognizer = Recognizer(self.backend, detector=settings.detector, min_face=settings.min_face, **options)
        self.crop_recognizer = Recognizer(self.backend, detector=None, unsure_below=settings.unsure_below)
        self.threads = ThreadPoolExecutor(min(settings.threads, available_cores()), "mien-requests")
        self.batcher = Batcher(self._recognize_faces, self.threads)
        self.bytes = Bytes(settings.max_waiting_bytes)
        self.waiting = self.cameras = 0
        self._folder = settings.jobs_folder or tempfile.mkdtemp(prefix="mien-server-")
        self.jobs = Jobs(self.recognizer, settings, Path(self._folder))

    def close(self) -> None:
        """Finish what was accepted."""
        self.threads.shutdown()
        self.jobs.close()
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
            if kind == "face":
                found = await self.batcher.answer(uploads)
            else:
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(self.threads, self._recognize, self.recognizer, uploads)
        if all(picture["error"] for picture in found):
            raise HTTPException(422, found[0]["error"])
        self.metrics.faces.inc(sum(len(picture["faces"]) for picture in found))
        return JSONResponse({"pictures": found})

    def _recognize(self, recognizer: Recognizer, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        """Return the entry of the answer for each upload."""
        found = list[dict[str, Any]]()
        for upload, reading in zip(uploads, recognizer.stream(self._sources(uploads)), strict=True):
            entry: dict[str, Any] = {"source": upload.name, "width": None, "height": None, "faces": [], "error": None}
            if reading.frame is None:
                entry["error"] = str(reading.error)
            else:
                entry["height"], entry["width"] = reading.frame.image.shape[:2]
                entry["faces"] = list(reading_rows(reading, recognizer.classes))
            found.append(entry)
        return found

    def _recognize_faces(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        self.metrics.batches.observe(len(uploads))
        return self._recognize(self.crop_recognizer, uploads)

    def _sources(self, uploads: Sequence[Upload]) -> Iterator[Source]:
        for upload in uploads:
            try:
                image = read_image(upload.data, upload.name, max_pixels=self.settings.max_pixels)
                yield Source(upload.name, "picture", image)
            except InputError as error:
                yield Source(upload.name, "error", error=error)
