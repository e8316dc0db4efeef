"""Recognition in the browser next to the server: whether the answers are the same, frames per second, time to load.

    python -m benchmarks.browser --photos DIR --fer2013 fer2013.csv --ckplus CK+48

It starts `mien serve`'s application and Chromium, which loads the page's `device/` from it. Photos are compared as PNG, so that
both sides see the same pixels, and as JPEG, which Chromium and Pillow decode differently. Faces of FER2013's PublicTest and of
CK+ are enlarged three times and put on grey sheets of twelve. The server's answers come from `POST /v1/pictures`.

Times are of one picture or frame, 640 x 480, with one face: `picture` searches it, `video` follows its face from frame to frame
(the server's figure is that of `Recognizer.frames`, which its cameras use). Processor time hardly depends on what else runs; on
one thread it is about what an idle machine takes.

`--webgpu` compares only, with the networks on WebGPU. Without a graphics processor Chromium computes that with SwiftShader.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import os
import shutil
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from starlette.responses import HTMLResponse

from benchmarks.record import argument_parser, write_run
from benchmarks.timing import interleaved, milliseconds, ratio
from mien.datasets import load_corpus
from mien.image import ENDINGS, read_image
from mien.predict.recognizer import Recognizer
from mien.server.app import create_app
from mien.server.settings import Settings
from mien.structures import Frame

PAGE = "<!doctype html><title>mien</title>"
HEADERS = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}

LOAD = """async (options) => {
  const start = performance.now();
  const { load } = await import("/device/device.js");
  window.device?.close();
  window.device = await load("device/", () => {}, options);
  return { provider: device.provider, ms: performance.now() - start };
}"""

READ = """async (data) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const bitmap = await createImageBitmap(new Blob([bytes]));
  const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
  context.drawImage(bitmap, 0, 0);
  window.image = context.getImageData(0, 0, bitmap.width, bitmap.height);
}"""

ADAPTER = """async () => {
  const { vendor, architecture } = (await navigator.gpu.requestAdapter()).info;
  return `${vendor} ${architecture}`;
}"""

DETECT_EVERY = 5
"""Frames of a video from one search to the next; a call reads as many."""

SIDE, ENLARGED, COLUMNS, ROWS, GAP = 48, 3, 4, 3, 60
"""Side of a corpus's face, px; how much it is enlarged; the faces of a sheet, and px of grey between them."""


class Browser:
    """A tab of Chromium in which `window.device` recognises."""

    def __init__(self, page: Page) -> None:
        self.page = page

    def load(self, **options: Any) -> dict[str, Any]:
        """Load `device/`; return what it runs on and how long that took."""
        return self.page.evaluate(LOAD, options)

    def show(self, data: bytes) -> None:
        """Decode a picture, the bytes of a file."""
        self.page.evaluate(READ, base64.b64encode(data).decode())

    def recognise(self, video: bool = False) -> dict[str, Any]:
        """Return the answer for the picture that was shown last."""
        return self.page.evaluate(f"() => device.recognise(image, 'picture 1', {{ video: {json.dumps(video)} }})")


class Server:
    """The server, asked over HTTP."""

    def __init__(self, address: str) -> None:
        self.address = address

    def recognise(self, data: bytes) -> dict[str, Any]:
        """Return the answer for a picture, the bytes of a file."""
        request = urllib.request.Request(f"{self.address}/v1/pictures", data, {"Content-Type": "image/png"})
        return json.load(urllib.request.urlopen(request))["pictures"][0]


@contextmanager
def started(model: str | None) -> Iterator[Server]:
    """Start the server in a thread, with an empty page next to its routes."""
    app = create_app(Settings(model=model))
    app.add_route("/empty.html", lambda _: HTMLResponse(PAGE, headers=HEADERS))
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield Server(f"http://127.0.0.1:{port}")
    finally:
        server.should_exit = True
        thread.join()


def png(image: np.ndarray) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def sheets(faces: Sequence[np.ndarray]) -> Iterator[bytes]:
    """Yield sheets of faces, as PNG."""
    side = SIDE * ENLARGED
    for start in range(0, len(faces), COLUMNS * ROWS):
        sheet = np.full((ROWS * (side + GAP) + GAP, COLUMNS * (side + GAP) + GAP), 128, np.uint8)
        for i, face in enumerate(faces[start : start + COLUMNS * ROWS]):
            top, left = (GAP + k * (side + GAP) for k in divmod(i, COLUMNS))
            large = Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC)
            sheet[top : top + side, left : left + side] = np.asarray(large)
        yield png(sheet)


def compare(pictures: Sequence[tuple[bytes, bytes]], browser: Browser, server: Server) -> dict[str, Any]:
    """Return how far the answers are apart. Each picture is given to the browser and to the server, as the bytes of a file."""
    classes = json.load(urllib.request.urlopen(f"{server.address}/v1/model"))["classes"]
    differences: dict[str, list[float]] = {"probability": [], "box_px": [], "score": []}
    found = {"pictures": len(pictures), "faces": 0, "other_number_of_faces": 0, "other_label": 0, "other_unsure": 0}
    for for_browser, for_server in pictures:
        browser.show(for_browser)
        here, there = browser.recognise()["faces"], server.recognise(for_server)["faces"]
        found["other_number_of_faces"] += len(here) != len(there)
        for face in there:
            same = min(
                here, key=lambda other: abs(other["left"] - face["left"]) + abs(other["top"] - face["top"]), default=None
            )
            if same is None:
                continue
            found["faces"] += 1
            found["other_label"] += same["label"] != face["label"]
            found["other_unsure"] += same["unsure"] != face["unsure"]
            differences["probability"].append(max(abs(same[name] - face[name]) for name in classes))
            differences["box_px"].append(max(abs(same[side] - face[side]) for side in ("left", "top", "right", "bottom")))
            differences["score"].append(abs(same["score"] - face["score"]))
    largest = {f"largest_{name}_difference": round(max(values), 6) for name, values in differences.items() if values}
    over = sum(value > 1e-3 for value in differences["probability"])
    return found | largest | {"faces_over_0.001": over}


def compare_webgpu(
    pictures: dict[str, list[tuple[bytes, bytes]]], browser: Browser, server: Server, arguments: argparse.Namespace
) -> None:
    """Write how far the answers on WebGPU are from the server's."""
    browser.page.goto(f"{server.address}/empty.html")
    browser.load(provider="webgpu")
    adapter = browser.page.evaluate(ADAPTER)
    parity, rows = {}, []
    for name, each in pictures.items():
        parity[name] = found = compare(each, browser, server)
        what = f"{name}: largest difference of a probability, {found['faces']} faces"
        rows.append((what, str(found["largest_probability_difference"]), "at most 0.001"))
        print(rows[-1], flush=True)  # with SwiftShader a picture takes minutes
    write_run("browser_webgpu", {"adapter": adapter, "parity": parity}, rows, arguments)


def processor_seconds(call: Callable[[], object], rounds: int) -> float:
    """Return the processor time that a call takes, with that of Chromium: the mean of several."""
    before = _used()
    for _ in range(rounds):
        call()
    return (_used() - before) / rounds


def _used() -> float:
    """Return the processor time that this process and its descendants have used, in seconds."""
    ticks, parents = {}, {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it ended meanwhile
            fields = path.read_text().rpartition(")")[2].split()
            pid = int(path.parent.name)
            parents[pid], ticks[pid] = int(fields[1]), int(fields[11]) + int(fields[12])
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return sum(ticks[pid] for pid in ours) / os.sysconf("SC_CLK_TCK")


def frame(photo: bytes) -> np.ndarray:
    """Return a camera's frame, 640 x 480, with the face of a photo."""
    picture = Image.fromarray(read_image(photo)).resize((480, 480))
    made = np.full((480, 640, 3), 90, np.uint8)
    made[:, 80:560] = np.asarray(picture)
    return made


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--photos", type=Path, required=True, metavar="DIR", help="a folder of photos with faces")
    parser.add_argument("--fer2013", type=Path, required=True, metavar="FILE", help="FER2013's table")
    parser.add_argument("--ckplus", type=Path, required=True, metavar="DIR", help="the folder CK+48")
    parser.add_argument("--model", help="a bundled model or an .onnx file")
    parser.add_argument("--chromium", default=shutil.which("chromium"), metavar="FILE", help="the browser")
    parser.add_argument("--faces", type=int, default=120, metavar="N", help="faces of each corpus (120)")
    parser.add_argument("--webgpu", action="store_true", help="only compare the answers on WebGPU with the server's")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng, rounds = np.random.default_rng(arguments.seed), 2 if arguments.quick else 5
    number = 12 if arguments.quick else arguments.faces
    pictures: dict[str, list[tuple[bytes, bytes]]] = {}
    for name, path, split in (("fer2013", arguments.fer2013, "public_test"), ("ckplus", arguments.ckplus, None)):
        corpus = load_corpus(name, path)
        rows = corpus.where(split) if split else np.arange(len(corpus.target))
        faces = corpus.images[np.sort(rng.permutation(rows)[:number])]
        pictures[name] = [(sheet, sheet) for sheet in sheets(faces)]
    files = sorted(path for path in arguments.photos.iterdir() if path.suffix.lower() in ENDINGS)[
        : 4 if arguments.quick else None
    ]
    photos = [png(read_image(path)) for path in files]
    pictures["photos"] = [(photo, photo) for photo in photos]
    jpegs = [path.read_bytes() for path in files if path.suffix.lower() in (".jpg", ".jpeg")]
    pictures["photos_as_jpeg"] = [(jpeg, jpeg) for jpeg in jpegs]

    with started(arguments.model) as server, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=arguments.chromium, args=["--no-sandbox", "--enable-unsafe-webgpu"]
        )
        if arguments.webgpu:
            compare_webgpu(pictures, Browser(chromium.new_page()), server, arguments)
            return
        browsers = {}
        loads: dict[str, list[float]] = {}
        for threads in (1, 2):
            browser = browsers[f"wasm_{threads}"] = Browser(chromium.new_page())
            browser.page.goto(f"{server.address}/empty.html")
            for _ in range(3):
                loads.setdefault(f"wasm_{threads}", []).append(browser.load(threads=threads, provider="wasm")["ms"])
        parity = {name: compare(each, browsers["wasm_1"], server) for name, each in pictures.items()}

        camera = frame((Path(__file__).parents[1] / "docs/assets/astronaut.jpg").read_bytes())
        data, stream = png(camera), io.BytesIO()
        Image.fromarray(camera).save(stream, "JPEG", quality=85)
        frames = Recognizer(arguments.model).frames(Frame(camera, i, i / 30) for i in itertools.count())
        for browser in browsers.values():
            browser.show(data)
        calls: dict[str, Callable[[], object]] = {"picture, server": lambda: server.recognise(stream.getvalue())}
        calls["video, server"] = lambda: [next(frames) for _ in range(DETECT_EVERY)]
        for name, browser in browsers.items():
            calls[f"picture, {name}"] = browser.recognise
            calls[f"video, {name}"] = lambda browser=browser: [browser.recognise(video=True) for _ in range(DETECT_EVERY)]
        per_call = {name: DETECT_EVERY if name.startswith("video") else 1 for name in calls}
        seconds = {name: each / per_call[name] for name, each in interleaved(calls, rounds).items()}
        processor = {name: processor_seconds(call, rounds) / per_call[name] for name, call in calls.items()}
        version = chromium.version
        chromium.close()

    same_pixels = [parity[name] for name in ("fer2013", "ckplus", "photos")]
    faces = sum(each["faces"] for each in same_pixels)
    largest = max(each["largest_probability_difference"] for each in same_pixels)
    figures = {
        "chromium": version,
        "parity": parity,
        "load_ms": {name: {"first": round(each[0]), "median": round(float(np.median(each)))} for name, each in loads.items()},
        "ms": {name: milliseconds(each) for name, each in seconds.items()},
        "processor_ms": {name: round(1000 * each, 1) for name, each in processor.items()},
        "times_as_long_as_server": {
            name: ratio(each, seconds[f"{name.partition(',')[0]}, server"]) for name, each in seconds.items() if "wasm" in name
        },
    }
    summary = [
        (f"largest difference of a probability, {faces} faces", f"{largest:.6f}", "at most 0.001"),
        *((f"{name}: per second", f"{1 / np.median(each):.1f}", "") for name, each in seconds.items()),
        *((f"{name}: processor time", f"{each:.1f} ms", "") for name, each in figures["processor_ms"].items()),
        *((f"time to load, {name}", f"{each['median']} ms", "") for name, each in figures["load_ms"].items()),
    ]
    write_run("browser", figures, summary, arguments)


if __name__ == "__main__":
    main()
