"""What the tests of `mien predict` share: the command, in this process, and sources made once."""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def mien(command: Command, tiny_onnx: Path) -> Command:
    """Run `mien predict` on the small network."""
    return lambda *arguments: command("predict", *arguments, "--model", tiny_onnx)


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a photo of one face, 12 frames of video and 150 frames of video."""
    folder = tmp_path_factory.mktemp("originals")
    with Image.open(ASTRONAUT) as image:
        image.convert("RGB").crop((96, 16, 352, 272)).save(folder / "photo.png")
    write_video(folder / "a.mp4", 12)
    write_video(folder / "b.mkv", 150)
    return folder


@pytest.fixture
def photo(tmp_path: Path, originals: Path) -> Path:
    return Path(shutil.copy(originals / "photo.png", tmp_path))


@pytest.fixture
def blank(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((80, 90, 3), np.uint8)).save(tmp_path / "blank.png")
    return tmp_path / "blank.png"


@pytest.fixture
def folder(tmp_path: Path, originals: Path) -> Path:
    """A folder whose subfolder `in` contains the two videos."""
    (tmp_path / "in").mkdir()
    for name in ("a.mp4", "b.mkv"):
        shutil.copy(originals / name, tmp_path / "in")
    return tmp_path


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bytes], None]]:
    """Make standard input a pipe that contains some bytes."""
    ends = []

    def fill(content: bytes) -> None:
        reading, writing = os.pipe()
        assert len(content) < 65_536  # what fits into a pipe that nobody reads yet
        os.write(writing, content)
        os.close(writing)
        ends.append(os.fdopen(reading, "rb"))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=ends[-1]))

    yield fill
    for end in ends:
        end.close()


def write_video(path: Path, frames: int) -> Path:
    """Write a video of random pictures that change slowly, 64 x 48 px, 20 frames per second."""
    image = np.random.default_rng(len(path.name)).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(image, number, axis=1), "rgb24")))
        container.mux(stream.encode())
    return path
