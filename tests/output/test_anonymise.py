"""Covering faces, on a real photo that moves, is lost and returns."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from mien.errors import InputError, UnknownNameError
from mien.faces import create_detector
from mien.faces.detect import Detector
from mien.faces.track import iou
from mien.output.anonymise import check_style, cover, create_face_finder, find_boxes
from mien.output.paint import Box
from mien.structures import Face, Frame
from mien.video.reader import open_video

Command = Callable[..., tuple[int, str, str]]

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"
WIDTH, HEIGHT, FPS, FRAMES = 320, 240, 10, 24
LOST = range(9, 15)
"""Frames in which the face is too dark and blurred for the detector."""


@pytest.fixture(scope="module")
def clean() -> list[NDArray[np.uint8]]:
    """The photo's face moving to the right and back, easy to find in every frame."""
    with Image.open(ASTRONAUT) as image:
        photo = np.asarray(image.convert("RGB").resize((480, 480)))
    lefts = [round(60 * abs(np.sin(i / 5))) for i in range(FRAMES)]
    return [photo[:HEIGHT, 60 + left : 60 + left + WIDTH].copy() for left in lefts]


@pytest.fixture(scope="module")
def frames(clean: list[NDArray[np.uint8]]) -> list[Frame]:
    """The same with the face lost in between."""
    damaged = [np.asarray(Image.fromarray(image).reduce(40).resize((WIDTH, HEIGHT))) // 4 for image in clean]
    return [Frame(damaged[i] if i in LOST else clean[i], i, i / FPS) for i in range(FRAMES)]


@pytest.fixture(scope="module")
def clip(frames: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The frames as a video with a tone."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "12"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        sound = container.add_stream("aac", rate=8000, layout="mono")
        for i, frame in enumerate(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image, "rgb24")))
            tone = 0.3 * np.sin(np.arange(i * 800, i * 800 + 800, dtype=np.float32)[None] / 3)
            part = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
            part.sample_rate, part.pts = 8000, i * 800
            container.mux(sound.encode(part))
        container.mux(stream.encode())
        container.mux(sound.encode())
    return path


@pytest.fixture(scope="module")
def finder() -> Detector:
    return create_face_finder()


@pytest.fixture
def anonymise(command: Command) -> Command:
    """Run `mien anonymise`."""
    return partial(command, "anonymise")


def images(path: Path) -> list[NDArray[np.uint8]]:
    with open_video(path) as video:
        return [frame.image for frame in video]


def covered(boxes: list[Box], face: Face) -> float:
    """Return how much of a face's box is covered, 0 to 1."""
    mask = cover(np.full((HEIGHT, WIDTH, 3), 255, np.uint8), boxes)[..., 0] < 255
    left, top, right, bottom = (max(0, round(edge)) for edge in face.box_xyxy.tolist())
    return float(mask[top:bottom, left:right].mean())


def test_the_face_is_covered_while_it_is_lost(clean: list[NDArray[np.uint8]], frames: list[Frame], finder: Detector) -> None:
    plain = create_detector()
    there = [max(plain.detect(image), key=lambda face: face.area) for image in clean]
    lost = [i for i in LOST if not (iou([there[i]], finder.detect_frame(frames[i].image)) > 0.1).any()]  # type: ignore[attr-defined]
    assert len(lost) >= 4, "the clip must lose the face"
    boxes = find_boxes(frames, finder)
    assert [round(covered(boxes[i], there[i]), 2) for i in range(FRAMES)] == [1.0] * FRAMES


def test_the_place_of_a_face_stays_covered_for_a_second(frames: list[Frame], finder: Detector) -> None:
    empty = np.full_like(frames[0].image, 90)
    clip = [Frame(frames[0].image if 15 <= i < 20 else empty, i, i / FPS) for i in range(40)]
    boxes = find_boxes(clip, finder)
    assert [i for i in boxes if boxes[i]] == list(range(5, 30))


def test_no_detector_finds_the_face_in_the_output(
    anonymise: Callable[..., tuple[int, str, str]], clip: Path, tmp_path: Path
) -> None:
    out, table = tmp_path / "out.mp4", tmp_path / "out.csv"
    status, printed, err = anonymise(clip, "--out", out, "--table", table)
    assert (status, err) == (0, "")
    assert f"faces covered in {FRAMES} of {FRAMES} frames" in printed
    before, after = images(clip), images(out)
    assert len(after) == len(before) == FRAMES
    for name in ("centerface", "mtcnn"):
        detector = create_detector(name)
        found = 0
        for one, other in zip(before[::2], after[::2], strict=True):
            known, left = detector.detect(one), detector.detect(other)
            found += len(known)
            assert not (iou(known, left) > 0.1).any()
        assert found >= 5
    rows = pd.read_csv(table)
    assert rows["frame"].tolist() == list(range(FRAMES))
    assert rows["label"].iloc[0] == "happy"
    with av.open(str(out)) as container:
        assert container.streams.audio[0].duration * container.streams.audio[0].time_base == pytest.approx(2.4, abs=0.2)


def test_sound_can_be_left_out_and_several_sources_go_into_a_folder(
    anonymise: Callable[..., tuple[int, str, str]], clip: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    status, printed, err = anonymise(clip, ASTRONAUT, tmp_path / "broken.mp4", "--out", tmp_path / "all", "--no-sound")
    assert status == 3
    assert "broken.mp4" in err
    assert "astronaut.jpg: covered 1 face" in printed
    assert sorted(path.name for path in (tmp_path / "all").glob("[!.]*")) == ["astronaut.jpg", "clip.mp4"]
    with av.open(str(tmp_path / "all/clip.mp4")) as container:
        assert not container.streams.audio


def test_a_picture_loses_its_metadata(anonymise: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F] = "a camera that knows its owner"
    with Image.open(ASTRONAUT) as image:
        image.save(tmp_path / "in.jpg", exif=exif)
    status, _, err = anonymise(tmp_path / "in.jpg", "--out", tmp_path / "out.jpg")
    assert (status, err) == (0, "")
    assert b"owner" not in (tmp_path / "out.jpg").read_bytes()
    with Image.open(tmp_path / "out.jpg") as image:
        assert not create_detector().detect(np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("style", ["mask", "pixelate", "blur"])
def test_styles(style: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)
    out = cover(image, [Box(-10, 10.4, 40.2, 50)], style)
    outside = np.ones((60, 80), bool)
    outside[10:50, :41] = False
    assert (out[outside] == image[outside]).all()
    values = len(np.unique(out[10:50, :41].reshape(-1, 3), axis=0))
    assert values == {"mask": 1, "pixelate": 36}.get(style, values)
    assert out[10:50, :41].std() < image[10:50, :41].std() / 3
    assert (cover(image, [Box(90, 0, 99, 9)], style) == image).all()


def test_wrong_arguments(anonymise: Callable[..., tuple[int, str, str]], clip: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="mask, pixelate, blur"):
        check_style("emoji")
    with pytest.raises(InputError, match="min_face"):
        create_face_finder(2)
    before = clip.read_bytes()
    for arguments, message in (
        ([clip, "--out", clip], "is read by this run"),
        ([clip, ASTRONAUT, "--out", tmp_path / "x.mp4"], "one file for several sources"),
        ([tmp_path / "none.mp4", "--out", tmp_path / "x.mp4"], "no such file"),
        (["rtsp://127.0.0.1:1/x", "--out", tmp_path / "x.mp4"], "save it as one first"),
        ([clip, "--out", tmp_path / "x.png"], "choose such an ending"),
        ([ASTRONAUT, "--out", tmp_path / "x.mp4"], "choose such an ending"),
    ):
        status, _, err = anonymise(*arguments)
        assert status == 2, arguments
        assert message in err
    assert clip.read_bytes() == before
    assert not list(tmp_path.iterdir())
