"""mien opens no socket, looks up no name, and writes only what it is told to.

A seccomp filter proves it for Python and for native code alike: the kernel ends the process, whatever thread makes the call.
`MIEN_OFFLINE_SECONDS=75` repeats recognition for so long: ONNX Runtime's telemetry first looks up its host after 20 to 75 s.
"""

import os
import platform
import signal
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import pytest
from PIL import Image

ASTRONAUT = Path(__file__).parents[1] / "docs/assets/astronaut.jpg"
SECONDS = float(os.environ.get("MIEN_OFFLINE_SECONDS", "0"))

GUARD = """
import ctypes, platform, struct, sys, time

def forbid_sockets(families):
    '''Let the kernel end this process when it opens a socket of a family, or of any; see seccomp(2) and linux/filter.h.'''
    arch, socket = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}[platform.machine()]
    load, equal, end, allow, kill = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000
    program = [
        (load, 0, 0, 4), (equal, 1, 0, arch), (end, 0, 0, allow),
        (load, 0, 0, 0), (equal, 1, 0, socket), (end, 0, 0, allow),
        (load, 0, 0, 16),
    ]
    for family in families:
        program += [(equal, 0, 1, family), (end, 0, 0, kill)]
    program.append((end, 0, 0, allow if families else kill))
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    filter = struct.pack("@HP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    no_new_privileges, seccomp = 38, 22
    if libc.prctl(no_new_privileges, 1, 0, 0, 0) or libc.prctl(seccomp, 2, filter, 0, 0):
        sys.exit(77)

AF_INET, AF_INET6 = 2, 10

def mien(*arguments):
    sys.argv = ["mien", *arguments]
    try:
        run_mien()
    except SystemExit as stop:
        assert not stop.code, (arguments, stop.code)
"""

RECOGNITION = f"""
forbid_sockets([])
import os
import mien as package
from mien.cli import main as run_mien, set_environment

set_environment()
end = time.monotonic() + {SECONDS}
while True:
    mien("predict", "photo.jpg", "film.mp4", "--out", "faces.csv", "--annotate", "drawn", "--quiet")
    mien("camera", "film.mp4", "--out", "camera.csv")
    assert package.Recognizer().predict("photo.jpg")[0].label == "happy"
    if time.monotonic() > end:
        break
"""

EXTRAS = """
forbid_sockets([AF_INET, AF_INET6])  # asking the system for the user's name opens a local one
import os
os.environ["OMP_NUM_THREADS"] = "1"
from mien.cli import main as run_mien, set_environment

set_environment()
SMALL = ["--set", "model.name=dlib_resnet", "--set", "model.arguments={in_channels: 1, depth: 4}"]
QUICK = ["--set", "train.batch_size=16", "--set", "train.compile=false", "--epochs", "1", "--devices", "1"]
mien("train", "sa_csp_ca/fer2013", "--data", "fer2013.csv", "--out", "run", *QUICK, *SMALL)
mien("evaluate", "run", "--data", "fer2013.csv")
mien("export", "run", "small.onnx", "--int8", "--data", "fer2013.csv")
mien("figure", "curves", "run", "--out", "curves.png")
for detector in ("centerface", "haar"):
    mien("predict", "film.mp4", "--out", "faces.parquet", "--timeline", "drawn.png", "--detector", detector, "--quiet")
os.environ["SDL_VIDEODRIVER"] = "dummy"
mien("camera", "film.mp4")
"""

needs_seccomp = pytest.mark.skipif(
    not sys.platform.startswith("linux") or platform.machine() not in ("x86_64", "aarch64"),
    reason="only Linux has seccomp, and only these processors' numbers of system calls are known here",
)


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


def run(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
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
    command = [sys.executable, "-c", GUARD + code]
    done = subprocess.run(command, cwd=folder / "work", env=inherited | own | environment, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("this system does not let a process set a seccomp filter")
    return done


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@needs_seccomp
@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('example.invalid', 80)",
        "import threading, socket; thread = threading.Thread(target=socket.socket); thread.start(); thread.join()",
    ],
)
@pytest.mark.parametrize("families", ["", "AF_INET, AF_INET6"])
def test_the_guard_ends_what_opens_a_socket(tmp_path: Path, code: str, families: str) -> None:
    done = run(tmp_path, f"forbid_sockets([{families}]); print('guarded', flush=True); {code}")
    assert (done.returncode, done.stdout) == (-signal.SIGSYS, "guarded\n")


@needs_seccomp
def test_recognition_opens_no_socket_and_writes_what_it_is_told(tmp_path: Path, film: Path) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/film.mp4").hardlink_to(film)
    (tmp_path / "work/photo.jpg").write_bytes(ASTRONAUT.read_bytes())
    done = run(tmp_path, RECOGNITION)
    assert done.returncode == 0, done.stderr
    asked = {"faces.csv", "camera.csv", "drawn/photo.jpg", "drawn/film.mp4", "drawn/.drawn-by-mien"}
    assert files(tmp_path) == {f"work/{name}" for name in ("film.mp4", "photo.jpg", *asked)}


@needs_seccomp
@pytest.mark.slow
def test_training_and_every_extra_open_no_socket_and_write_what_they_are_told(
    tmp_path: Path, film: Path, shared_fer2013_csv: Path
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work/film.mp4").hardlink_to(film)
    (tmp_path / "work/fer2013.csv").write_bytes(shared_fer2013_csv.read_bytes())
    done = run(tmp_path, EXTRAS)
    assert done.returncode == 0, done.stderr
    written = files(tmp_path)
    assert {path.split("/")[1].partition("-")[0] for path in written if path.startswith("cache/")} == {"fer2013", "matplotlib"}
    outside = {path for path in written if not path.startswith(("cache/", "work/run/"))}
    asked = ("small.onnx", "small.json", "small-int8.onnx", "small-int8.json", "curves.png", "faces.parquet", "drawn.png")
    assert outside == {f"work/{name}" for name in ("film.mp4", "fer2013.csv", *asked)}
