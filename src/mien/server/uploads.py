"""The body of a request: pictures as raw bytes, in a form or in JSON. What is too large or slow is refused as it arrives."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from fastapi import HTTPException, Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from mien.server.schemas import Pictures
from mien.server.settings import Settings


@dataclass(frozen=True, slots=True)
class Upload:
    """A picture that a request brought: its name and the bytes of its file."""

    name: str
    data: bytes


class Bytes:
    """Counts the bytes that all requests hold together.

    Args:
        total: The most they may hold.
    """

    def __init__(self, total: int) -> None:
        self.total, self.held = total, 0

    @contextmanager
    def account(self) -> Iterator[Callable[[int], None]]:
        """Yield a function that takes more bytes for a request, and give all of them back at the end of the block."""
        mine = 0

        def take(size: int) -> None:
            nonlocal mine
            if self.held + size > self.total:
                raise HTTPException(429, "the server holds as many pictures as it can; try again", {"Retry-After": "1"})
            self.held, mine = self.held + size, mine + size

        try:
            yield take
        finally:
            self.held -= mine


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """End a request whose body does not arrive in time, or whose client has gone."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise HTTPException(408, f"the request took longer than {seconds:g} s to arrive; send less, or faster") from None
    except ClientDisconnect:
        raise HTTPException(499, "the client closed the connection") from None


async def chunks(request: Request, limit: int, take: Callable[[int], None] | None = None) -> AsyncIterator[bytes]:
    """Yield the body in parts, and refuse it as soon as it is known to be too large."""
    message = f"the request has more than {limit / 10**6:g} MB; send a smaller file"
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared) > limit:
        raise HTTPException(413, message)
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise HTTPException(413, message)
        if take is not None:
            take(len(chunk))
        yield chunk


async def read_pictures(request: Request, settings: Settings, take: Callable[[int], None], kind: str) -> list[Upload]:
    """Return the pictures in a request's body.

    Args:
        request: Its body is the bytes of one file, a form (`multipart/form-data`) of files, or JSON (see `Pictures`).
        settings: The limits.
        take: Called with the number of bytes that arrive.
        kind: What to call a picture without a name: `picture` or `face`.

    Raises:
        HTTPException: The body is too large, too slow, empty or not what its type says.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    several = content_type in ("multipart/form-data", "application/json")
    limit = min(settings.max_bytes * (settings.max_pictures if several else 1), settings.max_waiting_bytes)
    body = chunks(request, limit * 4 // 3 + 10_000 if content_type == "application/json" else limit + 10_000, take)
    async with in_time(settings.upload_seconds):
        if content_type == "multipart/form-data":
            found = await _form(request, settings, body)
        else:
            data = b"".join([chunk async for chunk in body])
            found = _json(data, kind) if content_type == "application/json" else [Upload(f"{kind} 1", data)]
    if not found or not any(upload.data for upload in found):
        raise HTTPException(422, "the request has no picture; send the bytes of a picture's file")
    if len(found) > settings.max_pictures:
        raise HTTPException(413, f"the request has {len(found)} pictures; send at most {settings.max_pictures} at a time")
    for upload in found:
        if len(upload.data) > settings.max_bytes:
            raise HTTPException(413, f"{upload.name}: has more than {settings.max_bytes / 10**6:g} MB; send a smaller file")
    return [upload if upload.name else Upload(f"{kind} {i}", upload.data) for i, upload in enumerate(found, start=1)]


async def _form(request: Request, settings: Settings, body: AsyncIterator[bytes]) -> list[Upload]:
    parser = MultiPartParser(request.headers, body, max_files=settings.max_pictures + 1, max_fields=10)  # type: ignore[arg-type]
    parser.spool_max_size = settings.max_waiting_bytes + 1  # nothing is written to the disk
    try:
        form = await parser.parse()
    except (MultiPartException, ValueError) as error:  # older versions of Starlette pass on the parser's own error
        reason = getattr(error, "message", error)
        raise HTTPException(400, f"the form cannot be read ({reason}); send each picture as a file of the form") from None
    try:
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        return [Upload((file.filename or "")[:255], await file.read()) for file in files]
    finally:
        await form.close()


def _json(data: bytes, kind: str) -> list[Upload]:
    try:
        request = Pictures.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        raise HTTPException(
            422, f'{where}: {first["msg"].lower()}; send JSON such as {{"pictures": [{{"data": "<base64>"}}]}}'
        ) from None
    found = []
    for number, picture in enumerate(request.pictures, start=1):
        name = picture.name or f"{kind} {number}"
        try:
            found.append(Upload(name, base64.b64decode(picture.data.partition("base64,")[2] or picture.data, validate=True)))
        except ValueError:  # also binascii.Error
            raise HTTPException(422, f"{name}: its data are not base64; encode the bytes of the picture's file") from None
    return found
