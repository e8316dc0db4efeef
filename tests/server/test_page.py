"""The page in a real Chromium, with a real server: what a user sees, and what leaves the browser."""

import base64
import csv
import io
import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
import uvicorn
from fastapi.testclient import TestClient
from httpx2 import Client
from PIL import Image, ImageFilter

from mien.errors import InputError
from mien.output.table import write_table
from mien.server.app import check, create_app
from mien.server.settings import Settings
from mien.server.web_page import PAGE_FILES

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="needs axe-playwright-python")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium; on Debian or Ubuntu: apt install chromium")

SIZES = [(1440, 900), (1024, 768), (768, 1024), (390, 844), (360, 640), (640, 400)]
"""Widths and heights in px; the last is 1280 x 800 at 200 % zoom."""

FAKE_DEVICE = """
const file = "FILE";
export async function load(base, onProgress) {
  onProgress(0.5);
  return { classes: CLASSES, unsureBelow: 0.5, provider: "the test", close() {},
    recognise: async (image, source) => ({ ...file, source, width: image.width, height: image.height,
      faces: image.data[0] < 0 ? [] : file.faces.map((face) => ({ ...face, source })) }) };
}
"""


class Running:
    """A server in a thread of its own, so that a test can make it busy."""

    def __init__(self, settings: Settings) -> None:
        self.app = create_app(settings)
        self.service = self.app.state.service
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=0, log_level="warning", timeout_graceful_shutdown=2))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            assert self.thread.is_alive()
            time.sleep(0.01)
        self.address = f"http://127.0.0.1:{self.server.servers[0].sockets[0].getsockname()[1]}"

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    running = Running(Settings(threads=2, max_pixels=2_000_000))
    yield running
    running.stop()


@pytest.fixture(scope="module")
def pictures(photo: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and videos; the second face of `two.png` is blurred, so unsure."""
    folder = tmp_path_factory.mktemp("pictures")
    (folder / "one.jpg").write_bytes(photo)
    (folder / "cut.jpg").write_bytes(photo[:5000])
    Image.new("RGB", (90, 60), "#5a82a0").save(folder / "none.png")
    one = Image.open(io.BytesIO(photo)).convert("RGB")
    two = Image.new("RGB", (1024, 512))
    two.paste(one, (0, 0))
    two.paste(one.filter(ImageFilter.GaussianBlur(4)), (512, 0))
    two.save(folder / "two.png")
    head = one.crop((130, 20, 322, 212)).resize((128, 128))
    clear = Image.new("RGB", (256, 128))
    clear.paste(head, (0, 0))
    clear.paste(head.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (128, 0))
    _video(folder / "clip.mp4", [np.roll(np.array(clear), i, 1) for i in range(20)], "libx264", "yuv420p")
    _video(folder / "long.mp4", [np.array(clear)] * 1500, "libx264", "yuv420p")
    _video(folder / "camera.mjpeg", [np.array(one)] * 3, "mjpeg", "yuvj420p")
    return folder


def _video(path: Path, frames: list[Any], codec: str, pixels: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def browser(pictures: Path) -> Iterator[Any]:
    options = ["--no-sandbox", "--disable-background-networking", "--disable-gpu"]
    camera = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    camera.append(f"--use-file-for-fake-video-capture={pictures / 'camera.mjpeg'}")
    with playwright.sync_playwright() as run:
        chromium = run.chromium.launch(executable_path=CHROMIUM, args=options + camera)
        yield chromium
        chromium.close()


class Visit:
    """A page in the browser, with what it asked for and complained about."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.requests, self.errors = list[str](), list[str]()
        page.set_default_timeout(20_000)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("console", lambda message: message.type in ("error", "warning") and self.errors.append(message.text))
        page.on("pageerror", lambda error: self.errors.append(str(error)))

    @contextmanager
    def checked(self, refused: int | None = None) -> Iterator[None]:
        """At the end, no request has left the page's origin, and no error or refused content is in the console.

        The browser itself writes a line about a response with the status `refused`, which the test expects.
        """
        self.requests.clear()
        self.errors.clear()
        yield
        assert [error for error in self.errors if f"a status of {refused} " not in error] == []
        own = urlsplit(self.page.url).netloc
        assert [url for url in self.requests if urlsplit(url).netloc != own and not url.startswith(f"blob:http://{own}/")] == []

    def open(self, address: str | None = None) -> Any:
        self.page.goto(address or self.address)
        self.page.locator("#where").filter(has_text="Pictures").wait_for()
        return self.page

    def add(self, *paths: Path) -> None:
        self.page.locator("#files").set_input_files(paths)

    def card(self, name: str) -> Any:
        return self.page.get_by_role("article", name=name, exact=True)

    def done(self, name: str) -> Any:
        """Wait until a file is recognised; return its card."""
        card = self.card(name)
        card.locator("progress").wait_for(state="hidden")
        return card

    def download(self, button: str) -> str:
        with self.page.expect_download() as download:
            self.page.get_by_role("button", name=button).click()
        return Path(download.value.path()).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tab(browser: Any, server: Running) -> Visit:
    page = browser.new_page(viewport={"width": 1024, "height": 768}, reduced_motion="reduce")
    return Visit(page, server.address)


@pytest.fixture
def visit(tab: Visit, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """The page; a test that expects a refusal says so with `@pytest.mark.parametrize("visit", [STATUS], indirect=True)`."""
    with tab.checked(getattr(request, "param", None)):
        yield tab
    tab.page.unroute_all()
    tab.page.goto("about:blank")  # ends cameras and videos


def _api(server: Running, path: Path) -> list[dict[str, Any]]:
    with path.open("rb") as file, Client(base_url=server.address) as client:
        return client.post("/v1/pictures", files=[("files", (path.name, file))]).json()["pictures"][0]["faces"]


def _percent(share: float, unsure: bool) -> str:
    return f"{int(share * 100) if unsure else int(share * 100 + 0.5)}\xa0%"


@needs_chromium
def test_pictures_are_shown_as_the_api_answers(visit: Visit, server: Running, pictures: Path, tmp_path: Path) -> None:
    visit.open()
    visit.add(pictures / "two.png", pictures / "none.png")
    expected = _api(server, pictures / "two.png")
    assert [face["unsure"] for face in expected] in ([False, True], [True, False])
    card = visit.done("two.png")
    picture = card.locator("img").bounding_box()
    assert card.locator(".box").count() == card.locator(".face").count() == 2
    for i, face in enumerate(expected):
        box, entry = card.locator(".box").nth(i), card.locator(".face").nth(i)
        assert box.inner_text() == str(face["face"])
        shown = box.bounding_box()
        scale = picture["width"] / 1024
        assert shown["x"] - picture["x"] == pytest.approx(face["left"] * scale, abs=1)
        assert shown["width"] == pytest.approx((face["right"] - face["left"]) * scale, abs=1)
        assert entry.locator(".label").text_content() == face["label"]
        assert entry.locator("summary").text_content().endswith(_percent(face["confidence"], face["unsure"]))
        names = sorted(server.service.recognizer.classes, key=lambda name: -face[name])
        bars = [f"{name}\n{_percent(face[name], face['unsure'])}" for name in names]
        assert [line.strip() for line in entry.locator(".bars li").all_inner_texts()] == bars
        assert ("unsure" in box.get_attribute("class")) == ("unsure" in entry.get_attribute("class")) == face["unsure"]
    unsure = card.locator(".face.unsure")
    assert unsure.locator("summary").text_content().startswith("Face 2Unsure, perhaps ")
    assert re.search(
        r"no expression reaches 50\s%\. It could be .* \(together 9\d\s%\)\.$", unsure.locator(".why").inner_text()
    )
    assert card.locator(".box.unsure").evaluate("box => getComputedStyle(box).borderStyle") == "dashed"
    assert "No face was found" in visit.done("none.png").inner_text()

    table = tmp_path / "table.csv"
    write_table(table, expected, server.service.recognizer.classes)
    assert visit.download("Table as CSV") == table.read_text(encoding="utf-8")
    assert json.loads(visit.download("Table as JSON")) == expected
    assert visit.page.locator("#status").inner_text() != ""
    card.get_by_role("button", name="Remove two.png").click()
    assert visit.page.get_by_role("button", name="Table as CSV").is_disabled()


@needs_chromium
@pytest.mark.parametrize("visit", [422], indirect=True)
def test_an_error_is_shown_next_to_its_picture(visit: Visit, pictures: Path) -> None:
    visit.open()
    visit.add(pictures / "cut.jpg", pictures / "one.jpg")
    problem = visit.done("cut.jpg").locator(".problem")
    assert problem.inner_text().startswith("cut.jpg: is corrupt or truncated")
    assert visit.done("one.jpg").locator(".label").text_content() == "happy"
    assert visit.card("one.jpg").locator(".problem").is_hidden()


@needs_chromium
def test_pictures_can_be_dropped_and_pasted(visit: Visit, photo: bytes) -> None:
    page = visit.open()
    send = """([kind, bytes]) => {
      const data = new DataTransfer();
      const content = Uint8Array.from(atob(bytes), (each) => each.charCodeAt());
      const file = new File([content], `${kind}.jpg`, { type: "image/jpeg" });
      data.items.add(file);
      const [type, name] = kind === "paste" ? [ClipboardEvent, "clipboardData"] : [DragEvent, "dataTransfer"];
      document.dispatchEvent(new type(kind, { [name]: data }));
    }"""
    for kind in ("paste", "drop"):
        page.evaluate(send, [kind, base64.b64encode(photo).decode()])
        assert visit.done(f"{kind}.jpg").locator(".label").text_content() == "happy"


@needs_chromium
def test_a_video_has_a_timeline_for_each_person(visit: Visit, server: Running, pictures: Path) -> None:
    page = visit.open()
    page.locator("#fps").select_option("5")
    visit.add(pictures / "clip.mp4")
    card = visit.done("clip.mp4")
    assert card.locator(".note").inner_text() == "2 people · 10 frames read"
    people = card.locator(".person")
    assert people.get_by_role("heading").all_inner_texts() == ["Person 1", "Person 2"]
    assert people.first.locator("p").inner_text().startswith("Most often happy. 10 frames from 0:00.0 to 0:01.8, unsure in 0")
    assert "happy\n100\xa0%" in people.first.inner_text()
    happy = server.service.recognizer.classes.index("happy")
    opacity = """(canvas) => {
      const { data } = canvas.getContext("2d").getImageData(canvas.width / 2, 0, 1, canvas.height);
      return Array.from({ length: 7 }, (_, lane) => data[4 * Math.round((16 * lane + 8) * devicePixelRatio) + 3]);
    }"""
    lanes = people.first.locator("canvas").evaluate(opacity)
    assert lanes[happy] > 200
    assert all(lane < 100 for i, lane in enumerate(lanes) if i != happy)

    page.evaluate("document.querySelector('video').currentTime = 1.05")
    card.locator(".box").nth(1).wait_for()
    width = people.first.locator("canvas").bounding_box()["width"]
    people.first.locator("canvas").click(position={"x": width * 0.5, "y": 20})
    assert page.evaluate("document.querySelector('video').currentTime") == pytest.approx(1.0, abs=0.05)

    found = list(csv.DictReader(io.StringIO(visit.download("Table as CSV"))))
    with Client(base_url=server.address) as client:
        job = client.post("/v1/videos?fps=5", content=(pictures / "clip.mp4").read_bytes()).json()
        while client.get(f"/v1/videos/{job['id']}").json()["state"] in ("queued", "running"):
            time.sleep(0.05)
        expected = list(csv.DictReader(io.StringIO(client.get(f"/v1/videos/{job['id']}/table?format=csv").text)))
        client.delete(f"/v1/videos/{job['id']}")
    assert found == [row | {"source": "clip.mp4"} for row in expected]
    assert len(found) == 20
    folder = server.service.jobs.folder
    end = time.monotonic() + 10
    while list(folder.iterdir()) and time.monotonic() < end:  # the page forgets its video too
        time.sleep(0.05)
    assert list(folder.iterdir()) == []


@needs_chromium
def test_a_video_can_be_cancelled(visit: Visit, pictures: Path) -> None:
    page = visit.open()
    page.locator("#fps").select_option("")
    visit.add(pictures / "long.mp4")
    card = visit.card("long.mp4")
    card.locator(".note").filter(has_text="per second").wait_for()
    assert card.locator("progress").is_visible()
    card.get_by_role("button", name="Cancel long.mp4").click()
    note = visit.done("long.mp4").locator(".note").inner_text()
    assert note.startswith("Cancelled · 2 people · ")
    assert 0 < int(note.split(" · ")[2].split()[0]) < 1500
    assert card.locator(".person").count() == 2


@needs_chromium
def test_the_camera_is_followed_until_it_is_stopped(visit: Visit) -> None:
    page = visit.open()
    page.get_by_role("button", name="Use the camera").click()
    card = visit.card("Camera")
    card.locator(".note").filter(has_text=re.compile(r"^1 face · \d+\.\d frames per second$")).wait_for()
    assert card.locator(".box").count() == 1
    assert card.locator(".label").text_content() == "happy"
    card.locator(".person").wait_for()
    card.get_by_role("button", name="Stop Camera").click()
    card.locator(".note").filter(has_text="Stopped · 1 person").wait_for()
    assert card.locator("canvas").count() == 2  # the last frame, and the timeline
    rows = json.loads(visit.download("Table as JSON"))
    assert [row["frame"] for row in rows] == sorted({row["frame"] for row in rows})
    assert {row["source"] for row in rows} == {"camera"}
    assert any(url.startswith("ws://") for url in visit.requests)
    assert page.get_by_role("button", name="Use the camera").is_enabled()


@needs_chromium
def test_everything_works_by_keyboard(visit: Visit, pictures: Path) -> None:
    page = visit.open()
    page.on("filechooser", lambda _: None)  # Chromium is told in time that no real dialog shall open

    def tab_to(name: str) -> None:
        for _ in range(30):
            page.keyboard.press("Tab")
            tag, text, outline = page.evaluate(
                "(({ tagName, innerText }) => [tagName, innerText, getComputedStyle(document.activeElement).outlineStyle])"
                "(document.activeElement)"
            )
            if tag != "BODY" and text and name in text:
                assert outline == "solid"
                return
        pytest.fail(f"{name} cannot be reached")

    tab_to("Skip to the content")
    tab_to("What a label means")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="What a label means, and what it cannot mean")
    assert "not a feeling" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert dialog.is_hidden()
    tab_to("Choose files")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(pictures / "one.jpg")
    bars = visit.done("one.jpg").locator(".bars")
    tab_to("Table as CSV")
    with page.expect_download():
        page.keyboard.press("Enter")
    assert bars.is_visible()
    tab_to("Happy")
    assert visit.card("one.jpg").locator(".box.active").count() == 1
    page.keyboard.press("Enter")
    assert bars.is_hidden()
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")  # removes it
    assert visit.card("one.jpg").count() == 0
    assert page.evaluate("document.activeElement.innerText") == "Choose files"


@needs_chromium
@pytest.mark.parametrize("visit", [422], indirect=True)
def test_nothing_keeps_people_out(visit: Visit, pictures: Path) -> None:
    page = visit.open()
    visit.add(pictures / "clip.mp4", pictures / "two.png", pictures / "cut.jpg")
    for name in ("clip.mp4", "two.png", "cut.jpg"):
        visit.done(name)
    for width, height in SIZES:
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.set_viewport_size({"width": 1024, "height": 768})
    for scheme, rules in (("light", {}), ("dark", {"runOnly": ["color-contrast"]})):  # nothing else depends on the scheme
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("getComputedStyle(document.querySelector('button')).transition") == "none"
        found = axe.Axe().run(page, options=rules).response
        assert len(found["passes"]) >= (1 if rules else 20)
        page.get_by_role("button", name="What a label means").click()
        found["violations"] += axe.Axe().run(page, context="dialog", options=rules).response["violations"]
        assert [(each["id"], each["impact"], each["nodes"][0]["html"]) for each in found["violations"]] == []
        page.keyboard.press("Escape")
    page.emulate_media(color_scheme="light")


@needs_chromium
@pytest.mark.parametrize("visit", [429], indirect=True)
def test_a_busy_server_is_asked_again(visit: Visit, server: Running, pictures: Path) -> None:
    visit.open()
    server.service.waiting = server.service.settings.max_waiting + server.service.settings.threads
    try:
        visit.add(pictures / "one.jpg")
        visit.card("one.jpg").locator(".note").filter(has_text="The server is busy. Next try in 1 s.").wait_for()
    finally:
        server.service.waiting = 0
    assert visit.done("one.jpg").locator(".label").text_content() == "happy"


@needs_chromium
@pytest.mark.parametrize("visit", [401], indirect=True)
def test_a_key_is_asked_for_where_the_server_needs_one(visit: Visit, pictures: Path) -> None:
    running = Running(Settings(keys=("right",), threads=1))
    try:
        page = visit.open(running.address)
        page.get_by_label("API key").fill("wrong")
        page.get_by_role("button", name="Use this key").click()
        page.locator("#key-why").filter(has_text="does not know this key").wait_for()
        page.get_by_label("API key").fill("right")
        page.get_by_role("button", name="Use this key").click()
        page.locator("#about").filter(has_text="model").wait_for()
        assert page.locator("#key-form").is_hidden()
        visit.add(pictures / "one.jpg")
        assert visit.done("one.jpg").locator(".label").text_content() == "happy"
        page.get_by_role("button", name="Use the camera").click()
        assert visit.card("Camera").locator(".label").text_content() == "happy"
    finally:
        running.stop()


@needs_chromium
@pytest.mark.parametrize("static", [False, True])
def test_on_this_device_nothing_is_sent(static: bool, visit: Visit, server: Running, pictures: Path) -> None:
    page = visit.page
    answer = {"error": None, "faces": _api(server, pictures / "one.jpg")}
    script = FAKE_DEVICE.replace('"FILE"', json.dumps(answer)).replace("CLASSES", json.dumps(server.service.recognizer.classes))
    page.route("**/device/device.json", lambda route: route.fulfill(json={}))
    page.route("**/device/device.js", lambda route: route.fulfill(body=script, content_type="text/javascript"))
    if static:
        index = (Path(__file__).parents[2] / "src/mien/server/page/index.html").read_text(encoding="utf-8")
        index = index.replace("</title>", '</title><meta name="mien-mode" content="static">')
        page.route(f"{server.address}/", lambda route: route.fulfill(body=index, content_type="text/html"))
    visit.open()
    switch = page.get_by_role("switch", name="Recognise on this device")
    if static:
        assert switch.is_hidden()
        assert page.get_by_role("link", name="Description of the API").is_hidden()
    else:
        page.locator("#about").filter(has_text="model").wait_for()
        switch.check()
    page.locator("#where").filter(has_text="Pictures do not leave this device. Recognised by the test.").wait_for()
    visit.requests.clear()
    visit.add(pictures / "one.jpg", pictures / "clip.mp4")
    assert visit.done("one.jpg").locator(".box").count() == 1
    card = visit.done("clip.mp4")
    assert card.locator(".note").inner_text() == "1 person · 20 frames read"
    page.get_by_role("button", name="Use the camera").click()
    visit.card("Camera").locator(".person").wait_for()
    assert [url for url in visit.requests if not url.startswith("blob:")] == []


@needs_chromium
def test_the_page_follows_the_browser_and_the_picker(browser: Any, server: Running, pictures: Path) -> None:
    context = browser.new_context(locale="de-AT")
    page = context.new_page()
    visit = Visit(page, server.address)
    with visit.checked():
        page.goto(server.address)
        page.get_by_role("button", name="Dateien wählen").wait_for()
        assert page.locator("html").get_attribute("lang") == "de"
        visit.add(pictures / "one.jpg")
        card = visit.done("one.jpg")
        assert card.locator(".label").text_content() == "Freude"
        assert card.locator(".note").text_content().startswith("1 Gesicht · ")
        table = visit.download("Tabelle als CSV")
        assert {"label", "happy"} <= {*table.splitlines()[0].split(",")}
        assert ",happy," in table.splitlines()[1]
        asked = []
        page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
        page.get_by_label("Sprache").select_option("zh")
        page.get_by_role("button", name="选择文件").wait_for()
        assert asked == ["Eine andere Sprache entfernt die Ergebnisse von dieser Seite. Wechseln?"]
        page.reload()
        page.get_by_role("heading", name="图片、视频和摄像头中的面部表情").wait_for()
    context.close()


def test_the_page_starts_in_the_language_of_the_server(tmp_path: Path) -> None:
    own = tmp_path / "pt.csv"
    own.write_text("en,pt\nEnglish,Português\nhappy,alegria\n", encoding="utf-8")
    with TestClient(create_app(Settings(keys=("key",), language=str(own)))) as client:
        found = client.get("/languages.json").json()
    assert (found["default"], found["names"]["pt"], found["texts"]["pt"]["happy"]) == ("pt", "Português", "alegria")
    with pytest.raises(InputError, match="unknown language 'xx'"):
        check(Settings(language="xx"))


def test_the_page_is_sent_with_its_headers_to_everyone() -> None:
    with TestClient(create_app(Settings(keys=("key",)))) as client:
        assert {"/", "/index.html", "/page.js", "/style.css"} <= set(PAGE_FILES)
        for address in PAGE_FILES:
            response = client.get(address)
            assert response.status_code == client.head(address).status_code == 200
            assert response.headers["Content-Security-Policy"].startswith("default-src 'self'; script-src 'self'")
            assert response.headers["X-Content-Type-Options"] == "nosniff"
            assert response.headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert response.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
            etag = response.headers["ETag"]
            assert client.get(address, headers={"If-None-Match": etag}).status_code == 304
        assert client.get("/page.js").headers["Content-Type"].startswith("text/javascript")
        assert client.get("/").headers["Content-Type"].startswith("text/html")
        assert client.head("/device/device.json").status_code in (200, 204)
        for address in ("/v1/model", "/page.py", "/../app.py", "/%2e%2e/app.py", "/openapi.json"):
            assert client.get(address).status_code == 401
        assert client.post("/page.js", headers={"X-API-Key": "key"}).status_code == 405


def test_the_page_names_no_other_address() -> None:
    page = Path(__file__).parents[2] / "src/mien/server/page"
    for path in page.glob("*.*"):
        addresses = re.findall(r"""(?:https?:)?//[\w.-]+\.\w+[^\s"']*""", path.read_text(encoding="utf-8"))
        assert [each for each in addresses if not each.startswith("http://www.w3.org/")] == [], path.name
