"""Recognition inside a real Chromium: the same answers as the server, without a request to anyone else."""

import base64
import io
import itertools
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from fastapi.testclient import TestClient
from PIL import Image
from starlette.responses import HTMLResponse

from mien.errors import CheckpointError, MissingExtraError
from mien.output.table import columns
from mien.predict.recognizer import Recognizer
from mien.server import device
from mien.server.app import create_app
from mien.server.settings import Settings

playwright = pytest.importorskip("playwright.sync_api")

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

needs_runtime = pytest.mark.skipif(
    not (device.PAGE / "device/ort/VERSION").is_file(), reason="onnxruntime-web is not here; run make web"
)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

HEADERS = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'",
}

RECOGNISE = """async ([data, video]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]));
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  const image = context.getImageData(0, 0, bitmap.width, bitmap.height);
  return device.recognise(image, "picture 1", { video });
}"""


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def opaque(value: int) -> int:
    return 255 * (value > 40)


def group(photo: Image.Image) -> Image.Image:
    """Return one face four times: small, tilted, dark, and cut by the edge."""
    head = photo.crop((120, 0, 320, 250))
    sheet = Image.new("RGB", (640, 400), (120, 130, 140))
    sheet.paste(head.resize((80, 100)), (20, 20))
    sheet.paste(head.rotate(25, fillcolor=(120, 130, 140)), (150, 80))
    sheet.paste(head.point(lambda value: value // 4), (330, 20))
    sheet.paste(head, (520, 150))
    return sheet


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a server with an empty page next to its routes."""
    app = create_app(Settings())
    app.add_route("/empty.html", lambda _: HTMLResponse("<!doctype html><title>mien</title>", headers=HEADERS))
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=running.run)
    thread.start()
    while not running.started:
        time.sleep(0.02)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def tab(server: str) -> Iterator[Any]:
    """A tab of Chromium in which `window.device` is loaded; `requests` has the address of everything it asked for."""
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--enable-unsafe-webgpu"])
        tab = chromium.new_page()
        tab.requests = []
        tab.context.on("request", lambda request: tab.requests.append(request.url))
        tab.goto(f"{server}/empty.html")
        tab.about = tab.evaluate(
            """async () => {
              const { load } = await import("/device/device.js");
              const shares = [];
              window.device = await load("device/", (share) => shares.push(share));
              return { ...device, shares, threads: crossOriginIsolated && navigator.hardwareConcurrency > 1 };
            }""".replace("...device", "classes: device.classes, unsureBelow: device.unsureBelow, provider: device.provider")
        )
        yield tab
        chromium.close()


def ask(tab: Any, picture: bytes, video: bool = False) -> dict[str, Any]:
    return tab.evaluate(RECOGNISE, [base64.b64encode(picture).decode(), video])


def assert_same_faces(here: list[dict[str, Any]], there: list[dict[str, Any]], classes: list[str]) -> None:
    for mine, its in zip(here, there, strict=True):
        assert list(mine) == columns(classes)
        for key, value in its.items():
            if isinstance(value, float):
                assert mine[key] == pytest.approx(value, abs=1e-3 if key in classes else 0.02), key
            else:
                assert mine[key] == value, key


@needs_runtime
@needs_chromium
def test_it_loads_with_threads_and_says_how_far_it_is(tab: Any) -> None:
    about = tab.about
    assert about["unsureBelow"] == 0.5
    assert about["classes"] == ["angry", "disgust", "fear", "happy", "sad", "surprise", "neutral"]
    assert about["threads"] == ("threads" in about["provider"])
    assert about["shares"] == sorted(about["shares"])
    assert about["shares"][-1] == 1


@needs_runtime
@needs_chromium
@pytest.mark.parametrize("name", ["photo", "group", "upside down", "blurred close-up", "transparent", "nothing", "tiny"])
def test_answers_are_those_of_the_server(tab: Any, server: str, name: str) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB")
    picture = {
        "photo": photo,
        "group": group(photo),
        "upside down": photo.rotate(180).resize((256, 256)),
        "blurred close-up": photo.crop((170, 60, 270, 190)).resize((20, 26)).resize((300, 390)),
        "transparent": Image.merge("RGBA", (*photo.split(), Image.linear_gradient("L").resize(photo.size).point(opaque))),
        "nothing": Image.linear_gradient("L").convert("RGB"),
        "tiny": photo.resize((5, 5)),
    }[name]
    data = png(picture)
    here = ask(tab, data)
    there = tab.request.post(f"{server}/v1/pictures", data=data, headers={"Content-Type": "image/png"}).json()["pictures"][0]
    assert len(here["faces"]) == len(there["faces"]) == {"group": 4, "nothing": 0, "tiny": 0}.get(name, 1)
    assert {key: value for key, value in here.items() if key != "faces"} == {k: v for k, v in there.items() if k != "faces"}
    assert_same_faces(here["faces"], there["faces"], tab.about["classes"])


@needs_runtime
@needs_chromium
@pytest.mark.slow
def test_webgpu_gives_the_answers_of_webassembly(tab: Any, server: str) -> None:
    page = tab.context.browser.new_page()
    page.goto(f"{server}/empty.html")
    adapter = page.evaluate("async () => (await navigator.gpu?.requestAdapter())?.info.architecture")
    if adapter is None:
        pytest.skip("this Chromium has no WebGPU adapter, not even with --enable-unsafe-webgpu")
    if adapter == "swiftshader" and "MIEN_SWIFTSHADER" not in os.environ:
        pytest.skip("Chromium would compute WebGPU on the processor, for 40 s; set MIEN_SWIFTSHADER=1 to run this")
    load = """async () => {
      window.device = await (await import("/device/device.js")).load("device/", () => {}, { provider: "webgpu" });
      return device.provider;
    }"""
    assert page.evaluate(load) == "WebGPU"
    head = Image.open(ASTRONAUT).convert("RGB").crop((120, 0, 320, 250)).resize((100, 125))
    for picture in (head, head.rotate(-8).point(lambda value: value // 2)):
        here, there = (ask(each, png(picture))["faces"] for each in (page, tab))
        assert len(there) == 1
        assert_same_faces(here, there, tab.about["classes"])
    page.close()


@needs_runtime
@needs_chromium
def test_a_face_is_followed_from_frame_to_frame(tab: Any) -> None:
    photo = Image.open(ASTRONAUT).convert("RGB").resize((320, 320))
    moved = [photo.transform((320, 320), Image.Transform.AFFINE, (1, 0, -6 * i, 0, 1, 0)) for i in range(3)]
    lefts = [ask(tab, png(frame), video=True)["faces"][0]["left"] for frame in moved]
    assert [b - a for a, b in itertools.pairwise(lefts)] == pytest.approx([6, 6], abs=1.5)
    assert ask(tab, png(Image.new("RGB", (320, 320))), video=True)["faces"] == []  # it is gone


@needs_runtime
@needs_chromium
def test_nobody_else_is_asked(tab: Any, server: str) -> None:
    assert any(url.endswith(".wasm") for url in tab.requests)  # what the worker asks for is seen too
    assert [url for url in tab.requests if not url.startswith((server, "blob:"))] == []


@needs_runtime
def test_the_server_says_what_its_files_are() -> None:
    with TestClient(create_app(Settings())) as client:
        head = client.head("/device/device.json")
        assert head.status_code == 200
        manifest = client.get("/device/device.json").json()
        assert manifest["model"] == "dlib_resnet-fer2013-small"
        for name in manifest["files"]:
            answer = client.head(f"/device/{name}")
            kind = {"js": "text/javascript", "mjs": "text/javascript", "wasm": "application/wasm", "json": "application/json"}
            assert answer.headers["content-type"].startswith(kind.get(name.rpartition(".")[2], "application/octet-stream")), (
                name
            )
            assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
            again = client.get(f"/device/{name}", headers={"If-None-Match": answer.headers["etag"]})
            assert again.status_code == 304, name
        assert len(client.get("/device/mtcnn_onet.bin").content) == manifest["files"]["mtcnn_onet.bin"]


@needs_runtime
@pytest.mark.parametrize("settings", [{"keys": ("secret",)}, {"model": "ensemble"}, {"detector": "mtcnn"}])
def test_a_server_that_cannot_lend_its_model_offers_nothing(settings: dict[str, Any]) -> None:
    with TestClient(create_app(Settings(**settings))) as client:
        answer = client.get("/device/device.json", headers={"X-API-Key": "secret"})
        assert answer.status_code in (204, 404)
        assert not answer.content or "detail" in json.loads(answer.content)


def test_what_the_browser_cannot_run_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "device/ort").mkdir(parents=True)
    monkeypatch.setattr(device, "PAGE", tmp_path)
    with pytest.raises(MissingExtraError, match="make web"):
        device.device_files(Recognizer())
    (tmp_path / "device/ort/VERSION").write_text("1.0\n")
    with pytest.raises(CheckpointError, match="one network and the detector centerface"):
        device.device_files(Recognizer("ensemble"))
