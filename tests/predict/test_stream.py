from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mien.errors import InputError, UnknownNameError
from mien.predict.recognizer import Recognizer, VideoOptions
from mien.predict.smoothing import create_smoother
from mien.structures import Reading
from mien.video.reader import VideoReader

ROOT = Path(__file__).parents[2]
ASTRONAUT = ROOT / "docs/assets/astronaut.jpg"


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second of the astronaut's head moving to the right, 12 frames."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


def write_clip(path: Path, dim: float = 0.0) -> Path:
    """Write the clip; every second frame loses a share of its light."""
    picture = np.asarray(Image.open(ASTRONAUT).convert("RGB").resize((256, 256)))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=12)
        stream.width, stream.height, stream.pix_fmt = 160, 128, "yuv420p"
        for number in range(12):
            light = 1 - dim * (number % 2)
            view = np.ascontiguousarray((picture[:128, 30 - number : 190 - number] * light).astype(np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(view, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture
def recognizer(tiny_onnx: Path) -> Recognizer:
    return Recognizer(tiny_onnx, batch_size=5)


def probs(readings: list[Reading]) -> np.ndarray:
    return np.array([prediction.probs for reading in readings for prediction in reading.predictions])


def test_a_video_is_read_frame_by_frame(recognizer: Recognizer, clip: Path) -> None:
    opened: list[VideoReader] = []
    readings = list(recognizer.stream([clip], on_video=opened.append))
    assert [video.size for video in opened] == [(160, 128)]
    frames = [reading.frame for reading in readings]
    assert [frame and frame.index for frame in frames] == list(range(12))
    assert [frame and frame.time for frame in frames] == pytest.approx([i / 12 for i in range(12)])
    found = [prediction for reading in readings for prediction in reading.predictions]
    assert [(p.source, p.frame, p.track) for p in found] == [(str(clip), i, 1) for i in range(12)]
    centres = [(p.face.box_xyxy[0] + p.face.box_xyxy[2]) / 2 for p in found if p.face]
    assert centres[-1] - centres[0] == pytest.approx(11, abs=2)


def test_what_is_sent_live_waits_for_no_batch(recognizer: Recognizer, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    probabilities = recognizer.probabilities
    monkeypatch.setattr(recognizer, "probabilities", lambda crops: asked.append(len(crops)) or probabilities(crops))
    list(recognizer.stream([clip]))
    assert asked == [5, 5, 2]
    asked.clear()
    list(recognizer.stream([clip], on_video=lambda video: setattr(video, "live", True)))
    assert asked == [1] * 12 + [0]  # at last the error: it stopped


def test_live_and_batched_agree(recognizer: Recognizer, clip: Path) -> None:
    batched, live = list(recognizer.stream([clip])), list(recognizer.stream([clip], live=True))
    np.testing.assert_allclose(probs(batched), probs(live), atol=1e-5)


def test_a_videos_list_holds_all_its_frames(recognizer: Recognizer, clip: Path) -> None:
    assert len(recognizer.predict(clip)) == 12
    assert len(recognizer.predict(clip, VideoOptions(fps=4))) == 4


def test_a_centred_filter_that_needs_too_much_memory_is_refused(recognizer: Recognizer, clip: Path) -> None:
    options = VideoOptions(smooth="centred", smooth_seconds=3600)  # 160 x 128 x 3 bytes x 12 fps: 2.5 GB
    refused, picture = recognizer.stream([clip, ASTRONAUT], options)
    assert "2,531 MB of frames in memory; use at most" in str(refused.error)
    assert picture.error is None
    assert len(list(recognizer.stream([clip], VideoOptions(smooth="centred", smooth_seconds=700)))) == 12


def test_smoothing_is_the_smoothers_and_can_be_switched_off(recognizer: Recognizer, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "flickering.mp4", dim=0.6)  # so that the frames' answers differ
    raw = list(recognizer.stream([clip], VideoOptions(smooth="none")))
    for name in ("exponential", "centred"):
        smoother = create_smoother(name, 0.4, recognizer.unsure_below)
        expected = [done for reading in raw for done in smoother.push(reading)] + list(smoother.flush())
        smoothed = list(recognizer.stream([clip], VideoOptions(smooth=name, smooth_seconds=0.4)))
        np.testing.assert_allclose(probs(smoothed), probs(expected), atol=1e-5)
        assert not np.allclose(probs(smoothed), probs(raw), atol=1e-3)


def test_pictures_and_videos_keep_their_order_and_numbers(recognizer: Recognizer, clip: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:200])
    readings = list(recognizer.stream([ASTRONAUT, tmp_path / "cut.mp4", clip], VideoOptions(smooth="centred")))
    assert [reading.number for reading in readings] == [0, 1, *[2] * 12]
    assert [type(reading.error) for reading in readings[:3]] == [type(None), InputError, type(None)]


def test_without_a_detector_a_frame_is_one_crop_of_one_person(tiny_onnx: Path, clip: Path) -> None:
    found = Recognizer(tiny_onnx, detector=None).predict(clip)
    assert [(p.face, p.track) for p in found] == [(None, 1)] * 12


def test_an_array_that_is_filled_again_is_not_seen_again(tiny_onnx: Path) -> None:
    values = (0, 120, 250)
    buffer = np.empty((48, 48, 3), np.uint8)

    def filled() -> Iterator[np.ndarray]:
        for value in values:
            buffer[:] = value
            yield buffer

    recognizer = Recognizer(tiny_onnx, detector=None)
    readings = list(recognizer.stream(filled()))
    assert [int(reading.frame.image[0, 0, 0]) for reading in readings] == list(values)
    alone = [recognizer.predict_faces([np.full((48, 48, 3), value, np.uint8)])[0] for value in values]
    for reading, expected in zip(readings, alone, strict=True):
        np.testing.assert_allclose(reading.predictions[0].probs, expected.probs, atol=1e-5)


def test_a_folder_is_streamed(recognizer: Recognizer, clip: Path) -> None:
    assert len(list(recognizer.stream([clip.parent]))) == 12


@pytest.mark.parametrize("options", [{"detect_every": 0}, {"fps": -1}, {"start": 2, "end": 1}, {"smooth_seconds": -1}])
def test_wrong_options_are_told_before_anything_is_read(options: dict[str, float]) -> None:
    with pytest.raises(InputError):
        VideoOptions(**options)  # type: ignore[arg-type]


def test_an_unknown_filter() -> None:
    with pytest.raises(UnknownNameError, match="exponential"):
        VideoOptions(smooth="exponentiel")


def test_a_video_is_closed_with_the_stream(recognizer: Recognizer, clip: Path) -> None:
    opened: list[VideoReader] = []
    readings = recognizer.stream([clip, clip], on_video=opened.append)
    next(readings)
    readings.close()  # type: ignore[attr-defined]
    (video,) = opened
    assert list(video) == []
