import csv
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from mien.cli.camera import record
from mien.errors import OutputError
from mien.output.run import RunWriter, Targets
from mien.predict.recognizer import Recognizer
from mien.structures import Frame, Reading
from mien.video.sources import Source

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"
SIZE, FACE_AT = (320, 240), (70, 66, 157, 179)
"""Of the film, px, and where its face is."""

WAIT = 100.0
"""Seconds after which something that should happen is given up."""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A face for three seconds: the camera."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with Image.open(ASTRONAUT) as photo:
        portrait = photo.convert("RGB").crop((130, 10, 320, 230))
    picture = Image.new("RGB", SIZE, (200, 60, 60))
    picture.paste(portrait, (20, 10))
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = *SIZE, "yuv420p"
        for i in range(30):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = i, Fraction(1, 10)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


@pytest.fixture
def camera(command: Callable[..., tuple[int, str, str]], tiny_onnx: Path) -> Callable[..., tuple[int, str, str]]:
    """Run `mien camera` on the small network."""
    return lambda *arguments: command("camera", *arguments, "--model", tiny_onnx)


@pytest.fixture
def headless(monkeypatch: pytest.MonkeyPatch) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux has machines without a display")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)


needs_pygame = pytest.mark.skipif(find_spec("pygame") is None, reason="the window needs pygame-ce")


def times(path: Path) -> list[float]:
    with av.open(str(path)) as video:
        return [frame.time for frame in video.decode(video=0)]


def until(happened: Callable[[], object], what: str) -> None:
    """Wait for something that another process does."""
    end = time.monotonic() + WAIT
    while not happened():
        assert time.monotonic() < end, f"{what} did not happen within {WAIT} s"
        time.sleep(0.05)


@needs_pygame
def test_without_a_display_it_offers_a_file(camera, headless, film: Path) -> None:  # type: ignore[no-untyped-def]
    status, out, err = camera(film)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert "no display" in err
    assert "--out clip.mp4" in err


def test_without_a_display_it_writes_the_file_it_is_given(camera, headless, film: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    status, _, err = camera(film, "--out", tmp_path / "a.csv", "--mirror")
    assert status == 0, err
    assert "no window" in err
    assert f"wrote {tmp_path / 'a.csv'}" in err
    assert [path.name for path in tmp_path.glob("*.csv*")] == ["a.csv"]
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["time"]) for row in rows] == pytest.approx([i / 10 for i in range(30)])
    assert float(rows[0]["left"]) == pytest.approx(FACE_AT[0], abs=15)  # unmirrored


def test_ctrl_c_ends_it_well_and_the_video_holds_what_was_done(headless, film: Path, tiny_onnx: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "a.mkv"
    command = [sys.executable, "-m", "mien", "camera", film, "--out", path, "--model", tiny_onnx, "--detect-every", "1"]
    child = subprocess.Popen([str(word) for word in command], stderr=subprocess.PIPE, text=True)
    until(lambda: list(tmp_path.glob(".a-*.mkv")) or child.poll() is not None, "writing")
    child.send_signal(signal.SIGINT)
    time.sleep(0.02)
    child.send_signal(signal.SIGINT)  # by an impatient hand, while the file is being finished
    _, err = child.communicate(timeout=WAIT)
    assert child.returncode in (0, 130), err  # 130 if all was done by then
    assert "Traceback" not in err
    assert f"wrote {path}" in err
    assert list(tmp_path.glob("*.mkv")) == [path]
    found = times(path)
    assert found == pytest.approx([i / 10 for i in range(len(found))], abs=2e-3)


@pytest.mark.parametrize("ending", ["csv", "mp4"])
def test_no_camera_is_an_error_and_leaves_no_file(camera, headless, tmp_path: Path, ending: str) -> None:  # type: ignore[no-untyped-def]
    status, _, err = camera("camera:99", "--out", tmp_path / f"a.{ending}")
    assert status == 2
    assert "camera:99: no such camera" in err
    assert list(tmp_path.glob("*a.*")) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["film", "--out", "a.docx"], "is not the name of a table or a video"),
        ([str(ASTRONAUT)], "is not a camera or a video"),
        (["missing.mp4"], "missing.mp4"),
        (["film", "--out", "a.csv", "--smooth", "none-such"], "none-such"),
    ],
)
def test_what_cannot_be_done(camera, headless, film: Path, tmp_path: Path, arguments: list[str], words: str) -> None:  # type: ignore[no-untyped-def]
    status, _, err = camera(*[str(film) if word == "film" else word for word in arguments])
    assert status == 2
    assert words in err


@needs_pygame
def test_on_a_screen_that_is_not_there(camera, monkeypatch: pytest.MonkeyPatch, film: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    began = time.monotonic()
    status, _, err = camera(film, "--out", tmp_path / "a.mp4", "--mirror")
    assert status == 0, err
    assert time.monotonic() - began >= 2.9  # in its own time
    assert err == f"wrote {tmp_path / 'a.mp4'}\n"
    assert times(tmp_path / "a.mp4") == pytest.approx([i / 10 for i in range(30)], abs=1e-3)


class Screen:
    """A virtual screen that can be looked at."""

    def __init__(self, folder: Path) -> None:
        command = ["Xvfb", "-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp", "-fbdir", str(folder)]
        self.server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.server.stdout is not None
        self.display = f":{self.server.stdout.readline().strip()}"
        self.file = folder / "Xvfb_screen0"

    def picture(self) -> np.ndarray:
        """Return what is to be seen, RGB uint8: the screen's file is a picture in the format of xwd."""
        content = self.file.read_bytes()
        header = struct.unpack(">25I", content[:100])
        size, width, height, line, colours = header[0], header[4], header[5], header[12], header[19]
        pixels = np.frombuffer(content, np.uint8, line * height, size + 12 * colours).reshape(height, line)
        return pixels[:, : 4 * width].reshape(height, width, 4)[..., 2::-1].copy()

    def press(self, key: str) -> None:
        subprocess.run(["xdotool", "key", key], env={**os.environ, "DISPLAY": self.display}, check=True, timeout=WAIT)

    def close(self) -> None:
        self.server.terminate()
        self.server.communicate(timeout=WAIT)


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    if shutil.which("Xvfb") is None:
        pytest.skip("Xvfb, a virtual screen, is not installed: apt-get install xvfb")
    (tmp_path / "screen").mkdir()
    screen = Screen(tmp_path / "screen")
    yield screen
    screen.close()


def red_side(picture: np.ndarray) -> str:
    """Which side of the window shows the film's red wall; nowhere if there is none."""
    red = (np.abs(picture.astype(int) - (200, 60, 60)).max(axis=2) < 25).mean(axis=0)
    half = len(red) // 2
    return "nowhere" if red.sum() < 50 else "left" if red[:half].sum() > red[half:].sum() else "right"


@needs_pygame
@pytest.mark.slow
def test_on_a_virtual_screen(screen: Screen, film: Path, tiny_onnx: Path, tmp_path: Path) -> None:
    if shutil.which("xdotool") is None:
        pytest.skip("xdotool, which presses keys, is not installed: apt-get install xdotool")
    command = [sys.executable, "-W", "error", "-m", "mien", "camera", film, "--out", tmp_path / "a.csv"]
    command += ["--model", tiny_onnx, "--snapshots", tmp_path / "snaps", "--unsure-below", "0"]
    environment = {key: value for key, value in os.environ.items() if key not in ("WAYLAND_DISPLAY", "SDL_VIDEODRIVER")}
    child = subprocess.Popen(
        [str(word) for word in command], env={**environment, "DISPLAY": screen.display}, stderr=subprocess.PIPE, text=True
    )
    try:
        until(lambda: red_side(screen.picture()) == "right" or child.poll() is not None, "the window")
        screen.press("space")  # so that the film does not end too soon
        screen.press("s")
        until(lambda: list((tmp_path / "snaps").glob("mien-*.png")) or child.poll() is not None, "a snapshot")
        keep(screen, "plain")
        screen.press("m")
        until(lambda: red_side(screen.picture()) == "left" or child.poll() is not None, "the mirror")
        keep(screen, "mirrored")
        screen.press("q")
        _, err = child.communicate(timeout=WAIT)
    finally:
        child.kill()
    assert child.returncode == 0, err
    assert err == f"wrote {tmp_path / 'a.csv'}\n"
    (snapshot,) = (tmp_path / "snaps").iterdir()
    with Image.open(snapshot) as saved:
        assert saved.size == (640, 480)  # small pictures are enlarged, so that the text is readable
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert 0 < len(rows) < 30
    assert {row["track"] for row in rows} == {"1"}


def keep(screen: Screen, name: str) -> None:
    """Keep what is to be seen, for a person to look at, in the folder MIEN_SCREENSHOTS names."""
    if folder := os.environ.get("MIEN_SCREENSHOTS"):
        Image.fromarray(screen.picture()).save(Path(folder) / f"camera-{name}.png")


def test_a_recording_ends_when_its_file_cannot_be_written(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OutputError("clip.mp4: the disk is full; free some space")

    monkeypatch.setattr("mien.output.run.AnnotationWriter.add", full)
    frame = Frame(np.zeros((48, 64, 3), np.uint8), 0, 0.0)
    readings = iter([Reading("camera:0", frame), Reading("camera:0", frame)])
    classes, source = Recognizer(tiny_onnx, detector=None).classes, Source("camera:0", "live", "camera:0")
    run = RunWriter(Targets(annotate=tmp_path / "clip.mp4"), classes, {}, [source], resumable=False)
    with pytest.raises(OutputError, match="the disk is full"):
        list(record(readings, run))
    assert len(list(readings)) == 1


def test_the_table_says_what_it_hangs_on_and_leaves_no_journal(camera, headless, film: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Also of a stream that breaks off: a camera cannot be gone on with."""
    whole, half = tmp_path / "whole.parquet", tmp_path / "half.csv"
    assert camera(film, "--out", whole, "--smooth-seconds", "0.5")[0] == 0
    about = {key.decode(): value.decode() for key, value in pq.read_schema(whole).metadata.items()}
    assert (about["smooth"], about["smooth_seconds"], about["detector"]) == ("exponential", "0.5", "centerface")
    broken = tmp_path / "half.mkv"
    with av.open(str(film)) as source, av.open(str(broken), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                out.mux(packet)
    broken.write_bytes(broken.read_bytes()[:-600])
    assert camera(broken, "--out", half)[0] == 2
    assert half.exists()
    assert not list(tmp_path.glob(".*"))
