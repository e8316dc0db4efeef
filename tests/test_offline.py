"""mien opens no socket, looks up no name, and writes only what it is told to: `no_sockets.py` proves it.

`MIEN_OFFLINE_SECONDS=75` repeats recognition for so long: ONNX Runtime's telemetry first looks up its host after 20 to 75 s.
"""

import os
import signal
import subprocess
import sys
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import pillow_heif
import pytest
from PIL import Image

ASTRONAUT = Path(__file__).parents[1] / "docs/assets/astronaut.jpg"
SECONDS = float(os.environ.get("MIEN_OFFLINE_SECONDS", "0"))

GUARD = Path(__file__).with_name("no_sockets.py")
INTERNET = "2,10"  # AF_INET and AF_INET6

MIEN = """
import os, sys, time
import mien
from mien.cli import main, set_environment

set_environment()

def run(*arguments):
    sys.argv = ["mien", *arguments]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (arguments, stop.code)
"""

RECOGNITION = f"""
end = time.monotonic() + {SECONDS}
while True:
    run("predict", "photo.jpg", "film.mp4", "--out", "faces.csv", "--annotate", "drawn", "--quiet")
    run("camera", "film.mp4", "--out", "camera.csv")
    assert mien.Recognizer().predict("photo.jpg")[0].label == "happy"
    if time.monotonic() > end:
        break
"""

EXTRAS = """
SMALL = ["--set", "model.name=dlib_resnet", "--set", "model.arguments={in_channels: 1, depth: 4}"]
QUICK = ["--set", "train.batch_size=16", "--set", "train.compile=false", "--epochs", "1", "--devices", "1"]
run("train", "sa_csp_ca/fer2013", "--data", "fer2013.csv", "--out", "run", *QUICK, *SMALL)
run("evaluate", "run", "--data", "fer2013.csv")
run("export", "run", "small.onnx", "--int8", "--data", "fer2013.csv")
run("figure", "curves", "run", "--out", "curves.png")
for detector in ("centerface", "haar"):
    run("predict", "film.mp4", "--out", "faces.parquet", "--timeline", "drawn.png", "--detector", detector, "--quiet")
run("predict", "photo.heic", "--quiet")
os.environ["SDL_VIDEODRIVER"] = "dummy"
run("camera", "film.mp4")
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    with Image.open(ASTRONAUT) as photo:
        picture = photo.convert("RGB").crop((130, 10, 320, 230))
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = *picture.size, "yuv420p"
        for i in range(10):
            frame = av.VideoFrame.from_image(picture)
            frame.pts, frame.time_base = i, Fraction(1, 10)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def run(folder: Path, families: str, code: str) -> subprocess.CompletedProcess[str]:
    """Run a script under the guard in an empty home with an empty folder for temporary files."""
    unset = (
        "ORT_DISABLE_TELEMETRY",
        "MPLCONFIGDIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "DISPLAY",
        "WAYLAND_DISPLAY",
        "SDL_VIDEODRIVER",
    )
    inherited = {name: value for name, value in os.environ.items() if name not in unset and not name.startswith("XDG_")}
    for name in ("home", "tmp", "work"):
        (folder / name).mkdir(exist_ok=True)
    own = {"HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp"), "MIEN_CACHE": str(folder / "cache")}
    command = [sys.executable, GUARD, families, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=folder / "work", env=inherited | own, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this system does not allow a seccomp filter, or its system calls are not known here")
    return done


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('example.invalid', 80)",
        "import threading, socket; thread = threading.Thread(target=socket.socket); thread.start(); thread.join()",
    ],
)
@pytest.mark.parametrize("families", ["any", INTERNET])
def test_the_guard_ends_what_opens_a_socket(tmp_path: Path, code: str, families: str) -> None:
    done = run(tmp_path, families, f"print('guarded', flush=True); {code}")
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, "guarded\n")


def test_recognition_opens_no_socket_and_writes_what_it_is_told(tmp_path: Path, film: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/film.mp4").hardlink_to(film)
    (tmp_path / "work/photo.jpg").write_bytes(ASTRONAUT.read_bytes())
    done = run(tmp_path, "any", MIEN + RECOGNITION)
    assert done.returncode == 0, done.stderr
    asked = {"faces.csv", "camera.csv", "drawn/photo.jpg", "drawn/film.mp4", "drawn/.drawn-by-mien"}
    assert files(tmp_path) == {f"work/{name}" for name in ("film.mp4", "photo.jpg", *asked)}


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
@pytest.mark.slow
def test_training_and_every_extra_open_no_socket_and_write_what_they_are_told(
    tmp_path: Path, film: Path, shared_fer2013_csv: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/film.mp4").hardlink_to(film)
    (tmp_path / "work/fer2013.csv").write_bytes(shared_fer2013_csv.read_bytes())
    with Image.open(ASTRONAUT) as photo:
        pillow_heif.from_pillow(photo).save(tmp_path / "work/photo.heic")
    done = run(tmp_path, INTERNET, MIEN + EXTRAS)  # the name of the user is asked of a local socket
    assert done.returncode == 0, done.stderr
    written = files(tmp_path)
    assert {path.split("/")[1].partition("-")[0] for path in written if path.startswith("cache/")} == {"fer2013", "matplotlib"}
    outside = {path for path in written if not path.startswith(("cache/", "work/run/"))}
    asked = ("small.onnx", "small.json", "small-int8.onnx", "small-int8.json", "curves.png", "faces.parquet", "drawn.png")
    assert outside == {f"work/{name}" for name in ("film.mp4", "fer2013.csv", "photo.heic", *asked)}
