"""A camera over a WebSocket: the client sends each frame as the bytes of a picture, and gets its faces back as JSON.

The faces are followed and smoothed from frame to frame, as in a video. Frames that arrive while one is being read are skipped,
except for the newest, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

from fastapi import WebSocket, WebSocketDisconnect

from mien.errors import MienError
from mien.image import read_image
from mien.output.table import reading_rows
from mien.server.service import Service
from mien.structures import Frame, Reading

POLICY, TOO_LARGE, BUSY = 1008, 1009, 1013
"""Codes of closed WebSocket connections: RFC 6455 and its registry."""


async def serve_camera(socket: WebSocket, service: Service, is_known: Callable[[str], bool]) -> None:
    """Answer the frames of one camera until its client leaves or is silent for too long.

    Args:
        socket: The connection. A client without the header X-API-Key sends `{"key": "..."}` first, if keys are needed.
        service: The service.
        is_known: Whether an API key is one of the server's.
    """
    await socket.accept()
    if service.cameras >= service.settings.max_cameras:
        await socket.close(BUSY, "too many cameras; try again later")
        return
    service.cameras += 1
    service.metrics.cameras.inc()
    try:
        with contextlib.suppress(WebSocketDisconnect):
            if await _has_key(socket, service, is_known):
                await _Camera(socket, service).run()
    finally:
        service.cameras -= 1
        service.metrics.cameras.dec()


async def _has_key(socket: WebSocket, service: Service, is_known: Callable[[str], bool]) -> bool:
    if is_known(socket.headers.get("x-api-key", "")):
        return True
    with contextlib.suppress(TimeoutError, ValueError, KeyError, TypeError, AttributeError):
        async with asyncio.timeout(service.settings.camera_seconds):
            if is_known(str(json.loads(await socket.receive_text())["key"])):
                return True
    await socket.close(POLICY, "this server needs an API key")
    return False


class _Camera:
    """One connection. A thread of its own reads the frames, because the tracker and the smoothing remember the last ones."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self.socket, self.service = socket, service
        self.frames: SimpleQueue[Frame | None] = SimpleQueue()
        self.readings = self._follow()
        self.start = time.monotonic()

    async def run(self) -> None:
        newest: asyncio.Queue[tuple[int, float, bytes]] = asyncio.Queue(1)
        receiving = asyncio.create_task(self._receive(newest))
        answered = -1
        try:
            while True:
                waiting = asyncio.create_task(newest.get())
                silence = self.service.settings.camera_seconds  # counted from the last answer: a client may wait for it
                await asyncio.wait({waiting, receiving}, timeout=silence, return_when=asyncio.FIRST_COMPLETED)
                if not waiting.done():
                    waiting.cancel()
                    if not receiving.done():
                        await self.socket.close(POLICY, "no frame arrived for too long")
                    return
                number, arrived, data = waiting.result()
                answer = await asyncio.get_running_loop().run_in_executor(
                    self.service.threads, self._read, number, arrived, data
                )
                if receiving.done():  # the client left, or was refused, in the meantime: nothing may be sent any more
                    return
                await self.socket.send_json(answer | {"skipped": number - answered - 1})
                answered = number
        finally:
            receiving.cancel()
            with contextlib.suppress(asyncio.CancelledError, WebSocketDisconnect):
                await receiving

    async def _receive(self, newest: asyncio.Queue[tuple[int, float, bytes]]) -> None:
        """Keep the newest frame, until the client leaves or sends what is not allowed."""
        number = 0
        while True:
            message = await self.socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            data = message.get("bytes")
            if data is None:
                await self.socket.close(POLICY, "send each frame as the bytes of a picture, such as a JPEG")
                return
            if len(data) > self.service.settings.max_bytes:
                await self.socket.close(TOO_LARGE, "a frame is too large")
                return
            if newest.full():
                newest.get_nowait()
            newest.put_nowait((number, time.monotonic() - self.start, data))
            number += 1

    def _follow(self) -> Iterator[Reading]:
        return self.service.recognizer.frames(iter(self.frames.get, None), name="camera")

    def _read(self, number: int, arrived: float, data: bytes) -> dict[str, Any]:
        about: dict[str, Any] = {
            "frame": number,
            "time": round(arrived, 3),
            "width": None,
            "height": None,
            "faces": [],
            "error": None,
        }
        try:
            image = read_image(data, f"frame {number}", max_pixels=self.service.settings.max_pixels)
            self.frames.put(Frame(image, number, arrived))
            reading = next(self.readings)
        except MienError as error:
            self.readings = self._follow()
            return about | {"error": str(error)}
        faces = list(reading_rows(reading, self.service.recognizer.classes))
        self.service.metrics.faces.inc(len(faces))
        return about | {"width": image.shape[1], "height": image.shape[0], "faces": faces}
