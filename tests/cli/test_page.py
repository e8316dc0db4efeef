"""`mien page`: static files that work in a browser without mien's server."""

import http.server
import json
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from mien import cli
from mien.errors import CheckpointError, OutputError
from mien.server import device

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(
    not (device.PAGE / "device/ort/VERSION").is_file(), reason="onnxruntime-web is not here; run make web"
)

INDEX = '<!doctype html><html lang="en"><head><title>mien</title></head><body><img src="photo.jpg" alt=""></body></html>'

RECOGNISE = """async () => {
  const { load } = await import("./device/device.js");
  const device = await load("device/");
  const image = document.querySelector("img");
  await image.decode();
  const context = new OffscreenCanvas(image.width, image.height).getContext("2d");
  context.drawImage(image, 0, 0);
  const { faces } = await device.recognise(context.getImageData(0, 0, image.width, image.height), "photo.jpg");
  const elsewhere = await fetch("http://localhost:9/").then(() => "sent", () => "refused");
  return { provider: device.provider, faces, elsewhere };
}"""


def page(*arguments: str | Path) -> str:
    done = CliRunner().invoke(cli.app, ["page", *map(str, arguments)], catch_exceptions=False)
    return done.output


@pytest.fixture(autouse=True)
def own_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that only shows a photo, next to the real `device/`."""
    folder = tmp_path / "page"
    folder.mkdir()
    (folder / "index.html").write_text(INDEX)
    (folder / "device").symlink_to(device.PAGE / "device")
    shutil.copy(ASTRONAUT, folder / "photo.jpg")
    monkeypatch.setattr(device, "PAGE", folder)


def test_the_folder_has_all_it_needs(tmp_path: Path) -> None:
    out = tmp_path / "site"
    said = page(out, "--title", "Faces & <more>", "--unsure-below", "0.7")
    manifest = json.loads((out / "device/device.json").read_text())
    assert {path.relative_to(out / "device").as_posix() for path in (out / "device").rglob("*") if path.is_file()} == {
        *manifest["files"],
        "device.json",
    }
    assert {name: (out / "device" / name).stat().st_size for name in manifest["files"]} == manifest["files"]
    assert json.loads((out / "device/model.json").read_text())["unsure_below"] == 0.7
    index = (out / "index.html").read_text()
    assert "<title>Faces &amp; &lt;more&gt;</title>" in index
    assert '<meta name="mien-mode" content="static">' in index
    front = yaml.safe_load(re.fullmatch(r"---\n(.*?)---\n.*", (out / "README.md").read_text(), re.DOTALL)[1])
    assert front["sdk"] == "static"
    assert front["title"] == "Faces & <more>"
    assert front["custom_headers"]["cross-origin-embedder-policy"] == "require-corp"
    assert json.loads((out / "languages.json").read_text())["texts"]["de"]["happy"] == "Freude"
    assert f"{len(manifest['files']) + 5} files" in said  # device.json, languages.json, index.html, README.md, photo.jpg


def test_only_a_page_of_mien_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "site"
    page(out)
    (out / "old.js").touch()
    page(out, "--model", "dlib_resnet-fer2013-small-int8")
    assert not (out / "old.js").exists()
    assert json.loads((out / "device/device.json").read_text())["model"] == "dlib_resnet-fer2013-small-int8"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page", "site"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").touch()
    with pytest.raises(OutputError, match=r"mine: is not empty and has no page that mien wrote; name a new folder"):
        page(tmp_path / "mine")
    with pytest.raises(OutputError, match=r"is a file; name a folder"):
        page(tmp_path / "mine/thesis.txt")
    with pytest.raises(CheckpointError, match="one network"):
        page(tmp_path / "new", "--model", "ensemble")
    assert not (tmp_path / "new").exists()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A plain web host: it sends none of the headers that mien's server sends."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_it_works_from_any_web_host_and_asks_nobody_else(tmp_path: Path, host: str) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    page(tmp_path / "some/where")
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = chromium.new_page()
        asked: list[str] = []
        tab.context.on("request", lambda request: asked.append(request.url))
        tab.goto(f"{host}/some/where/")
        found = tab.evaluate(RECOGNISE)
        chromium.close()
    assert found["provider"] == "WebAssembly"  # on one thread: the host sends no headers for more
    assert [face["label"] for face in found["faces"]] == ["happy"]
    assert found["elsewhere"] == "refused"  # by the page's own Content-Security-Policy
    assert [url for url in asked if not url.startswith(f"{host}/some/where/")] == []
