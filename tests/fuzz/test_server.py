"""Damaged requests to the server: each is answered, or refused with a status from 400 to 499 and one sentence."""

from __future__ import annotations

import base64
import io
import json
import sys
import time
from functools import cache
from typing import Any

import numpy as np
import pytest
from mutate import damaged, damaged_value, serve, try_cases
from PIL import Image

from mien.errors import InputError


@cache
def client() -> Any:
    from fastapi.testclient import TestClient

    from mien.server.app import create_app
    from mien.server.settings import Settings

    return TestClient(create_app(Settings(threads=2, max_pixels=1_000_000, max_jobs=4))).__enter__()


@cache
def pictures() -> list[bytes]:
    """A small picture in several formats."""
    y, x = np.mgrid[:40, :40]
    image = Image.fromarray(np.stack([x * 6, y * 6, (x + y) * 3], axis=2).astype(np.uint8))
    files = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP"):
        stream = io.BytesIO()
        image.save(stream, kind)
        files.append(stream.getvalue())
    return files


@cache
def forms() -> list[bytes]:
    part = '--b\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    return [part.encode() + picture + b"\r\n--b--\r\n" for picture in pictures()]


def answered(response: Any) -> None:
    """Raise an `InputError` for a request that was refused as it should be."""
    if response.status_code in (200, 202):
        return
    assert 400 <= response.status_code < 500, response.text
    detail = response.json()["detail"]
    assert list(response.json()) == ["detail"]
    raise InputError(detail)


def send_picture(number: int) -> None:
    route = ("/v1/pictures", "/v1/faces")[number // len(pictures()) % 2]
    answered(client().post(route, content=damaged(pictures(), number)))


def send_form(number: int) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answered(client().post("/v1/faces", content=damaged(forms(), number), headers=headers))


def send_json(number: int) -> None:
    body: Any = {"pictures": [{"name": "a", "data": base64.b64encode(file).decode()} for file in pictures()[:2]]}
    content = json.dumps(damaged_value(body, number)).encode() if number % 2 else damaged([json.dumps(body).encode()], number)
    answered(client().post("/v1/faces", content=content, headers={"Content-Type": "application/json"}))


def send_video(number: int) -> None:
    """Send a damaged video and wait for its job."""
    from test_videos import seeds

    response = client().post("/v1/videos", content=damaged(seeds(), number))
    assert response.status_code == 202, response.text
    path = f"/v1/videos/{response.json()['id']}"
    while (job := client().get(path).json())["state"] in ("queued", "running"):
        time.sleep(0.01)
    for kind in ("json", "jsonl", "csv"):
        assert client().get(f"{path}/table?format={kind}").status_code == 200
    assert client().delete(path).status_code == 204
    if job["state"] == "failed":
        raise InputError(job["error"])


KINDS = {"pictures": send_picture, "forms": send_form, "json": send_json, "videos": send_video}
SHORT = {"pictures": 60, "forms": 40, "json": 60, "videos": 11}


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not say how much memory a process held")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_requests_are_answered_or_refused(kind: str) -> None:
    outcome = try_cases(__file__, kind, SHORT[kind])
    assert outcome.refused > 0
    assert outcome.read > 0


if __name__ == "__main__":
    client()
    if sys.argv[1] == "videos":
        from test_videos import seeds

        seeds()
    serve(KINDS)
