import base64
import io
from typing import Any

import pytest
from fastapi.testclient import TestClient
from PIL import Image

import mien
from mien.output.table import columns, rows
from mien.server.app import create_app
from mien.server.settings import Settings


def _png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height), 128).save(file, "PNG")
    return file.getvalue()


def test_a_picture_gets_the_rows_of_the_table(client: TestClient, photo: bytes) -> None:
    response = client.post("/v1/pictures", content=photo, headers={"Content-Type": "image/jpeg"})
    assert response.status_code == 200
    (picture,) = response.json()["pictures"]
    assert (picture["width"], picture["height"], picture["error"]) == (512, 512, None)
    recognizer = mien.Recognizer()
    (expected,) = rows(recognizer.predict(photo))
    (face,) = picture["faces"]
    assert list(face) == columns(recognizer.classes)
    assert face == expected | {"source": "picture 1"}


def test_forms_and_json_and_raw_bytes_get_the_same_answer(client: TestClient, photo: bytes) -> None:
    raw = client.post("/v1/pictures", content=photo).json()["pictures"][0]
    form = client.post("/v1/pictures", files=[("files", ("a.jpg", photo)), ("files", ("b.jpg", photo))]).json()["pictures"]
    encoded = base64.b64encode(photo).decode()
    body = {"pictures": [{"name": "c", "data": encoded}, {"data": f"data:image/jpeg;base64,{encoded}"}]}
    answered = client.post("/v1/pictures", json=body).json()["pictures"]
    assert [picture["source"] for picture in (*form, *answered)] == ["a.jpg", "b.jpg", "c", "picture 2"]
    for picture in (*form, *answered):
        assert picture["faces"] == [face | {"source": picture["source"]} for face in raw["faces"]]


def test_a_bad_picture_among_good_ones_is_named_and_the_others_are_answered(client: TestClient, photo: bytes) -> None:
    response = client.post("/v1/pictures", files=[("files", ("good.jpg", photo)), ("files", ("cut.jpg", photo[:5000]))])
    good, cut = response.json()["pictures"]
    assert response.status_code == 200
    assert len(good["faces"]) == 1
    assert cut["faces"] == []
    assert cut["error"].startswith("cut.jpg: is corrupt or truncated")


def test_ready_faces_are_not_searched(client: TestClient) -> None:
    grey = _png(48, 48)
    assert client.post("/v1/pictures", content=grey).json()["pictures"][0]["faces"] == []
    (face,) = client.post("/v1/faces", content=grey).json()["pictures"][0]["faces"]
    assert face["unsure"] is True
    assert face["left"] is None


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"content": b""}, 422, "the request has no picture"),
        ({"content": b"text"}, 422, "picture 1: is not a picture mien reads"),
        ({"content": _png(2000, 1000)}, 422, "has 2000x1000 pixels, more than the 1 megapixels"),
        ({"content": b"x" * 2_100_000}, 413, "more than 2"),
        ({"files": [("files", (f"{i}.png", _png(9, 9))) for i in range(4)]}, 413, "4 pictures; send at most 3"),
        ({"files": [("files", ("a.png", b"x" * 2_100_000))]}, 413, "a.png: has more than 2 MB"),
        ({"json": {"pictures": []}}, 422, "pictures: list should have at least 1 item"),
        ({"json": {"pictures": [{"data": "?"}]}}, 422, "picture 1: its data are not base64"),
        ({"json": {"pictures": [{"data": "\xe9"}]}}, 422, "picture 1: its data are not base64"),
        ({"json": {"picture": 1}}, 422, "pictures: field required"),
        ({"content": b"{", "headers": {"Content-Type": "application/json"}}, 422, "the body: invalid json"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "the form cannot be read"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=b"}}, 400, "the form cannot be read"),
    ],
)  # fmt: skip
def test_a_bad_request_gets_one_sentence(client: TestClient, request_: dict[str, Any], status: int, words: str) -> None:
    response = client.post("/v1/pictures", **request_)
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert words in response.json()["detail"]


def test_a_busy_server_says_when_to_try_again(client: TestClient, photo: bytes) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    service.waiting = service.settings.max_waiting + service.settings.threads
    try:
        response = client.post("/v1/pictures", content=photo)
        assert client.get("/ready").status_code == 503
    finally:
        service.waiting = 0
    assert (response.status_code, response.headers["Retry-After"]) == (429, "1")
    service.bytes.held = service.bytes.total
    assert client.post("/v1/pictures", content=photo).status_code == 429
    service.bytes.held = 0
    assert client.post("/v1/pictures", content=photo).status_code == 200
    assert client.get("/ready").status_code == 200
    assert (service.waiting, service.bytes.held) == (0, 0)


def test_the_model_and_the_figures(client: TestClient, photo: bytes) -> None:
    model = client.get("/v1/model").json()
    assert model["classes"] == list(mien.Recognizer().classes)
    assert client.get("/health").json() == {"status": "ok"}
    client.post("/v1/pictures", content=photo)
    figures = client.get("/metrics").text
    assert 'mien_requests_total{route="/v1/pictures",status="200"}' in figures
    assert "mien_batch_faces_bucket" in figures
    assert client.get("/nowhere").status_code == 404


def test_the_description_names_every_column(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    assert list(described["components"]["schemas"]["Face"]["properties"]) == columns(mien.Recognizer().classes)
    assert {"/v1/pictures", "/v1/faces", "/v1/videos", "/v1/model"} <= set(described["paths"])


def test_keys_and_origins(photo: bytes) -> None:
    settings = Settings(keys=("one", "two-2"), origins=("https://example.org",))
    with TestClient(create_app(settings)) as client:
        assert client.post("/v1/faces", content=photo).status_code == 401
        assert client.get("/health").status_code == 200
        for headers in ({"X-API-Key": "one"}, {"Authorization": "Bearer one"}, {"X-API-Key": "two-2"}):
            assert client.post("/v1/faces", content=photo, headers=headers).status_code == 200
        assert client.post("/v1/faces", content=photo, headers={"X-API-Key": "On"}).status_code == 401
        asked = {"Origin": "https://example.org", "Access-Control-Request-Method": "POST"}
        assert client.options("/v1/faces", headers=asked).headers["Access-Control-Allow-Origin"] == "https://example.org"
        assert client.options("/v1/faces", headers=asked | {"Origin": "https://other.org"}).status_code == 400
        with client.websocket_connect("/v1/camera") as socket:
            socket.send_text('{"key": "one"}')
            socket.send_bytes(photo)
            assert len(socket.receive_json()["faces"]) == 1
        with client.websocket_connect("/v1/camera") as socket:
            socket.send_text('{"key": "two"}')
            assert socket.receive()["code"] == 1008


def test_other_pages_may_not_call_unless_asked(client: TestClient) -> None:
    response = client.get("/v1/model", headers={"Origin": "https://example.org"})
    assert "Access-Control-Allow-Origin" not in response.headers
