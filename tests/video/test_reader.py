from __future__ import annotations

import io
import itertools
import os
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import mien.video.container
from mien.errors import InputError
from mien.structures import Frame
from mien.video.container import locate
from mien.video.reader import VideoReader, open_video

WIDTH, HEIGHT, COUNT, RATE = 64, 48, 48, 24
SAME = {"x264-params": "cpu-independent=1"}
"""Gives the same video on every processor, so that what a test finds does not depend on it."""
X264 = {"g": "10", "preset": "ultrafast", "bf": "2", "b_strategy": "0"} | SAME

CLIPS: dict[str, dict[str, Any]] = {
    "b_frames.mp4": {"codec": "libx264", "options": X264},
    "fragments.mp4": {"codec": "libx264", "options": X264, "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "b_frames.mkv": {"codec": "libx264", "options": X264},
    "b_frames.avi": {"codec": "libx264", "options": X264},
    "b_frames.ts": {"codec": "libx264", "options": X264},
    "b_frames.flv": {"codec": "libx264", "options": X264},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mpeg4_b.avi": {"codec": "mpeg4", "options": {"bf": "2"}},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "vp8.webm": {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8", "threads": "1"}},
    "vp9.webm": {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}},
}


def numbered(number: int) -> NDArray[np.uint8]:
    """A frame that shows its number as eight bars, white for the bits that are set."""
    bits = [255 * (number >> bit & 1) for bit in range(8)]
    return np.broadcast_to(np.repeat(bits, WIDTH // 8).astype(np.uint8)[None, :, None], (HEIGHT, WIDTH, 3)).copy()


def number_in(image: NDArray[np.uint8]) -> int:
    """The number that a frame shows."""
    bars = image[4:-4].reshape(image.shape[0] - 8, 8, -1, 3).mean(axis=(0, 2, 3)) > 128
    return int((bars * 2 ** np.arange(8)).sum())


def write(
    path: Path | io.BytesIO,
    images: Sequence[NDArray[np.uint8]] | None = None,
    *,
    codec: str = "mpeg4",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    kind: str | None = None,
    times: Sequence[int] | None = None,
    aspect: str | None = None,
    turn: tuple[int, bool, bool] | None = None,
) -> None:
    """Write a video; `times` are milliseconds."""
    images = [numbered(i) for i in range(COUNT)] if images is None else images
    with av.open(path, "w", format=kind, options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        if aspect:
            stream.codec_context.sample_aspect_ratio = Fraction(aspect)
        if turn:
            stream.set_display_rotation(*turn)
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for i, image in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[i], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the same numbered frames in many formats."""
    folder = tmp_path_factory.mktemp("clips")
    for name, how in CLIPS.items():
        write(folder / name, **how)
    return folder


def read(source: Any, **options: Any) -> list[Frame]:
    with open_video(source, **options) as video:
        return list(video)


def failing(source: Any, **options: Any) -> tuple[list[Frame], str]:
    """The frames that come before the error, and the error."""
    frames: list[Frame] = []
    with open_video(source, **options) as video, pytest.raises(InputError) as caught:
        frames.extend(video)  # keeps what came before the error
    text = str(caught.value)
    assert "\n" not in text
    return frames, text


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        open_video(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_with_its_number_and_time(clips: Path, name: str) -> None:
    with open_video(clips / name) as video:
        frames = list(video)
    assert video.size == (WIDTH, HEIGHT)
    assert video.fps == pytest.approx(RATE)
    assert video.damaged == 0
    assert not video.live
    assert [frame.index for frame in frames] == list(range(COUNT))
    assert [number_in(frame.image) for frame in frames] == list(range(COUNT))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(COUNT) / RATE, atol=0.0011)
    assert frames[0].time == 0
    assert all(frame.image.dtype == np.uint8 and frame.image.flags.c_contiguous for frame in frames)


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.mkv", "b_frames.avi", "vp9.webm"])
def test_what_a_reader_says_before_it_reads(clips: Path, name: str) -> None:
    with open_video(clips / name) as video:
        assert video.duration == pytest.approx(2, abs=0.01)
        assert video.frames == COUNT
        assert video.name == str(clips / name)


@pytest.mark.parametrize("name", CLIPS)
@pytest.mark.parametrize(("start", "end"), [(0.35, 0.7), (1.6, None)])
def test_a_part_keeps_its_numbers(clips: Path, name: str, start: float, end: float | None) -> None:
    expected = [i for i in range(COUNT) if start - 0.001 <= i / RATE < (end or 9) - 0.001]
    frames = read(clips / name, start=start, end=end)
    assert [number_in(frame.image) for frame in frames] == expected
    assert [frame.index for frame in frames] == expected
    np.testing.assert_allclose([frame.time for frame in frames], np.array(expected) / RATE, atol=0.0011)


def test_a_part_is_not_decoded_from_the_start(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    original = VideoReader._open
    monkeypatch.setattr(VideoReader, "_open", lambda self: opened.append(1) or original(self))
    read(clips / "b_frames.mp4", start=1.5)
    assert len(opened) == 1  # decoding it all would open it again


def test_parts_join_to_the_whole(clips: Path) -> None:
    edges = [0.0, 0.31, 0.9, 1.0334, 2.0]
    parts = [frame.index for a, b in itertools.pairwise(edges) for frame in read(clips / "b_frames.mkv", start=a, end=b)]
    assert parts == list(range(COUNT))


@pytest.mark.parametrize("name", ["varying.mkv", "varying.mp4"])
def test_a_varying_rate_keeps_each_frames_own_time(tmp_path: Path, name: str) -> None:
    gaps = np.random.default_rng(0).integers(5, 400, COUNT - 1)
    times = [0, *np.cumsum(gaps).tolist()]
    write(tmp_path / name, codec="libx264", options=X264, times=times)
    frames = read(tmp_path / name)
    assert [number_in(frame.image) for frame in frames] == list(range(COUNT))
    np.testing.assert_allclose([frame.time for frame in frames], np.array(times) / 1000, atol=0.0006)
    for start in (0.5, 3.3):
        part = read(tmp_path / name, start=start)
        assert [frame.index for frame in part] == [i for i in range(COUNT) if times[i] / 1000 >= start]
        assert [number_in(frame.image) for frame in part] == [frame.index for frame in part]


@pytest.mark.parametrize("fps", [1, 7, 23, 50])
@pytest.mark.parametrize("start", [None, 0.5])
def test_sampling_takes_the_first_frame_at_or_after_each_step(clips: Path, fps: float, start: float | None) -> None:
    steps = np.arange(0, 2, 1 / fps)
    shown = np.ceil(steps[steps >= (start or 0)] * RATE - 1e-6).astype(int)
    expected = sorted({int(i) for i in shown if i < COUNT})
    if start and expected[0] > start * RATE:
        expected = [round(start * RATE), *expected]  # a part begins with its first frame
    frames = read(clips / "b_frames.mp4", fps=fps, start=start)
    assert [frame.index for frame in frames] == expected
    assert [number_in(frame.image) for frame in frames] == expected


def test_frames_that_are_not_wanted_are_not_converted(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = []
    original = VideoReader._image
    monkeypatch.setattr(VideoReader, "_image", lambda self, frame: converted.append(1) or original(self, frame))
    assert len(read(clips / "b_frames.mp4", fps=5, start=1)) == len(converted) == 5


@pytest.mark.parametrize("mirrored", [(False, False), (True, False)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_rotated_and_mirrored_as_the_file_says(tmp_path: Path, degrees: int, mirrored: tuple[bool, bool]) -> None:
    stored = np.zeros((48, 64, 3), np.uint8)
    stored[:24, :32] = (255, 0, 0)
    stored[:24, 32:] = (0, 255, 0)
    stored[24:, 32:] = (0, 0, 255)
    path = tmp_path / "turned.mp4"
    write(path, [stored] * 3, turn=(degrees, *mirrored))
    turned = np.rot90(stored, degrees // 90)
    expected = turned[:, ::-1] if mirrored[0] else turned
    with open_video(path) as video:
        frame = next(video)
        assert video.size == expected.shape[1::-1]
    assert frame.image.shape == expected.shape
    for y in (0.25, 0.75):
        for x in (0.25, 0.75):
            at = int(y * expected.shape[0]), int(x * expected.shape[1])
            np.testing.assert_allclose(frame.image[at].astype(int), expected[at], atol=25)


@pytest.mark.parametrize(("aspect", "size"), [("2/1", (128, 48)), ("1/2", (64, 96)), ("1/1", (64, 48)), ("9/1", (64, 48))])
def test_pixels_are_made_square(tmp_path: Path, aspect: str, size: tuple[int, int]) -> None:
    write(tmp_path / "wide.mp4", [numbered(i) for i in range(3)], codec="libx264", aspect=aspect)
    with open_video(tmp_path / "wide.mp4") as video:
        assert video.size == size
        assert [number_in(frame.image) for frame in video] == [0, 1, 2]


def test_frames_of_another_size_are_scaled(tmp_path: Path) -> None:
    small, large = io.BytesIO(), io.BytesIO()
    write(small, [numbered(i) for i in range(3)], codec="mpeg2video", kind="mpegts")
    double = [np.asarray(Image.fromarray(numbered(i)).resize((WIDTH * 2, HEIGHT * 2))) for i in (3, 4, 5)]
    write(large, double, codec="mpeg2video", kind="mpegts")
    frames = read(small.getvalue() + large.getvalue())
    assert {frame.image.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    assert number_in(frames[-1].image) == 5


def test_joined_recordings_continue(clips: Path) -> None:
    twice = (clips / "b_frames.ts").read_bytes() * 2
    frames = read(twice)
    assert [frame.index for frame in frames] == list(range(2 * COUNT))
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(2 * COUNT) / RATE, atol=0.001)
    part = read(twice, start=2.6)
    assert [frame.index for frame in part] == list(range(63, 2 * COUNT))


def packets(path: Path) -> list[tuple[int, int]]:
    """Place and length of each packet, in bytes."""
    with av.open(path) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize("start", [None, 1.0])
def test_a_corrupt_frame_leaves_a_gap_and_moves_no_other(tmp_path: Path, start: float | None) -> None:
    path = tmp_path / "damaged.mp4"
    write(path, codec="libx264", options={"g": "1", "preset": "ultrafast"})
    data = bytearray(path.read_bytes())
    for number in (16, 17, 32):
        place, length = packets(path)[number]
        data[place : place + length] = b"\xff" * length
    path.write_bytes(data)
    frames, text = failing(path, start=start)
    expected = [i for i in range(24 if start else 0, COUNT) if i not in (16, 17, 32)]
    assert [frame.index for frame in frames] == expected
    assert [number_in(frame.image) for frame in frames] == expected
    assert f"{path} is corrupt: {1 if start else 3} frames are missing or have errors. 0 of the frames " in text
    assert len(read(path, start=0.8, end=1.2)) == 9  # no corrupt frame is among these
    assert "is corrupt: 2 frames are missing" in failing(path, end=1.0)[1]


def landscape(number: int) -> NDArray[np.uint8]:
    """Noise that wanders to the left, (96, 128), so that every frame differs everywhere."""
    noise = np.kron(np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8), np.ones((8, 8, 1), np.uint8))
    return np.roll(noise, -number, axis=1)


DETAILED = {"g": "12", "preset": "veryfast", "bf": "3", "b_strategy": "0"} | SAME


@pytest.fixture(scope="module")
def wandering() -> bytes:
    stream = io.BytesIO()
    write(stream, [landscape(i) for i in range(COUNT)], codec="libx264", options=DETAILED, kind="mp4")
    return stream.getvalue()


@pytest.mark.parametrize("number", [13, 17, 30])
def test_damage_is_marked_until_the_next_key_frame(wandering: bytes, tmp_path: Path, number: int) -> None:
    """Also on B-frames, which are shown before the frame that they copy from. No other frame is marked."""
    (tmp_path / "whole.mp4").write_bytes(wandering)
    place, length = packets(tmp_path / "whole.mp4")[number]
    data = bytearray(wandering)
    for k in range(place + length // 3, place + 2 * length // 3):
        data[k] ^= 0x5A
    frames, text = failing(bytes(data))
    whole = {frame.index: frame.image.astype(int) for frame in read(wandering)}
    differing = {frame.index for frame in frames if np.abs(frame.image - whole[frame.index]).max() > 40}
    marked = {frame.index for frame in frames if frame.damaged}
    assert len(frames) >= COUNT - 1
    assert differing
    assert differing <= marked <= set(range(number // 12 * 12, number // 12 * 12 + 12))
    assert f"frames are missing or have errors. {len(marked)} of the frames read are damaged" in text
    assert len(read(bytes(data), end=number // 12 * 12 / RATE)) == number // 12 * 12
    assert "0 frames are missing or have errors" in failing(bytes(data), start=(number // 12 * 12 + 11) / RATE)[1]


@pytest.mark.parametrize("at_start", [False, True])
def test_zeroed_samples_of_an_mp4_are_noticed(wandering: bytes, at_start: bool) -> None:
    """The decoder gives no frame and no error for them; later it gives one that was due before.

    Without the first key frame, the file looks like one that was cut there.
    """
    begin = wandering.index(b"mdat") + 500 if at_start else len(wandering) // 2
    frames, text = failing(wandering[:begin] + bytes(2000) + wandering[begin + 2000 :])
    numbers = [frame.index for frame in frames]
    assert numbers == sorted(set(numbers))
    assert len(frames) < COUNT
    np.testing.assert_allclose([frame.time for frame in frames], np.array(numbers) / RATE, atol=0.001)
    assert "is corrupt" in text


LOSSY = {
    "lost.mkv": ("libx264", DETAILED),
    # cpu-used is negative, for a fixed speed: a positive one depends on how busy the machine is, and so would the file.
    "lost.webm": ("libvpx", {"deadline": "realtime", "cpu-used": "-8", "g": "12", "b": "1M"}),
    "lost.avi": ("mpeg4", {"b": "2M"}),
    "lost.ts": ("libx264", DETAILED),
}


@pytest.mark.parametrize("sampled", [None, 8])
@pytest.mark.parametrize("name", LOSSY)
def test_packets_lost_in_the_container_leave_a_gap_and_move_no_other(tmp_path: Path, name: str, sampled: int | None) -> None:
    """ffmpeg skips what it cannot make sense of, without a word."""
    count = 120
    codec, options = LOSSY[name]
    images = [np.vstack([numbered(i % 256), landscape(i)[:, :WIDTH]]) for i in range(count)]
    write(tmp_path / name, images, codec=codec, options=options)
    data = (tmp_path / name).read_bytes()
    middle = len(data) // 2
    damaged = data[:middle] + bytes(3000) + data[middle + 3000 :]
    frames, text = failing(damaged, fps=sampled)
    sound = [frame for frame in frames if not frame.damaged]
    assert "is corrupt: " in text
    assert [number_in(frame.image[:HEIGHT]) for frame in sound] == [frame.index for frame in sound]
    np.testing.assert_allclose([frame.time for frame in sound], np.array([frame.index for frame in sound]) / RATE, atol=0.0011)
    assert sound[-1].index > 100
    part = read(damaged, start=4.5)
    assert [number_in(frame.image[:HEIGHT]) for frame in part] == [frame.index for frame in part] == list(range(108, count))


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("lost.webm", *LOSSY["lost.webm"]),
        ("vp9.webm", "libvpx-vp9", LOSSY["lost.webm"][1]),
        ("mjpeg.avi", "mjpeg", {}),
        ("open.mkv", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=8:pools=1"}),
    ],
)
def test_the_frame_before_lost_bytes_is_marked(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    """The end of its packet is lost too, and decoders conceal that. Other frames keep their numbers."""
    path = tmp_path / name
    write(path, [landscape(i) for i in range(60)], codec=codec, options=options)
    data, whole = path.read_bytes(), {frame.index: frame.image.astype(int) for frame in read(path)}
    for place, length in packets(path)[40:52:4]:
        begin = place + length // 2
        for end in (begin + 3000, len(data)):
            frames, _ = failing(data[:begin] + bytes(end - begin) + data[end:])
            differing = [frame for frame in frames if np.abs(frame.image - whole[frame.index]).max() > 40]
            assert all(frame.damaged for frame in differing)
            assert sum(frame.damaged for frame in frames) < 14


@pytest.mark.parametrize("name", ["lost.ts", "lost.flv"])
def test_numbers_are_right_after_any_loss(tmp_path: Path, name: str) -> None:
    """Frames from both sides of a loss alternate where frames are reordered, and some come late."""
    images = [np.vstack([numbered(i), landscape(i)[:, :WIDTH]]) for i in range(96)]
    write(tmp_path / name, images, codec="libx264", options={**DETAILED, "threads": "1"})
    data = (tmp_path / name).read_bytes()
    last = []
    for place, length in packets(tmp_path / name)[40:56]:
        for begin in (place, place + 6, place + 12, place + length // 2):  # in FLV: the header, its time stamp, the frame's
            frames, _ = failing(data[:begin] + bytes(4000) + data[begin + 4000 :])
            sound = [frame for frame in frames if not frame.damaged]
            assert [number_in(frame.image[:HEIGHT]) for frame in sound] == [frame.index for frame in sound]
            np.testing.assert_allclose([frame.time for frame in sound], [frame.index / RATE for frame in sound], atol=0.0011)
            last.append(sound[-1].index)
    assert last.count(95) > 24  # in an FLV file, a loss may hide the rest


def test_damaged_bytes_of_an_flv_that_look_like_another_stream_are_noticed(tmp_path: Path) -> None:
    """ffmpeg takes what is read as another type or codec for a second video or sound, and may give it the rest of the file."""
    write(tmp_path / "lost.flv", codec="libx264", options=DETAILED)
    data = (tmp_path / "lost.flv").read_bytes()
    for place, _ in packets(tmp_path / "lost.flv")[34:46]:
        for begin, damage in ((place + 11, b"\x12"), (place, b"\x08\x0f\xff\xff")):  # another codec; a megabyte of sound
            frames, _ = failing(data[:begin] + damage + data[begin + len(damage) :])
            sound = [frame for frame in frames if not frame.damaged]
            assert [number_in(frame.image) for frame in sound] == [frame.index for frame in sound]


def test_gaps_of_a_whole_file_are_no_loss(tmp_path: Path) -> None:
    """As those of a recorded screen, which has a frame only when something changes."""
    times = np.cumsum([0, *np.random.default_rng(0).choice([40, 40, 40, 80, 400], COUNT - 1)]).tolist()
    for name in ("screen.mkv", "screen.webm", "screen.ts"):
        codec = "libvpx" if name.endswith("webm") else "libx264"
        write(tmp_path / name, codec=codec, options={} if codec == "libvpx" else X264, times=times)
        with open_video(tmp_path / name) as video:
            assert [frame.index for frame in video if not frame.damaged] == list(range(COUNT))
        assert video.damaged == video.marked == 0


@pytest.mark.parametrize(("name", "codec"), [("late.mkv", "libx264"), ("late.webm", "libvpx"), ("late.mp4", "libx264")])
def test_a_video_that_starts_late_is_whole(tmp_path: Path, name: str, codec: str) -> None:
    write(tmp_path / name, codec=codec, options=X264 if codec == "libx264" else {}, times=[5000 + 40 * i for i in range(COUNT)])
    frames = read(tmp_path / name)
    assert [frame.index for frame in frames if not frame.damaged] == list(range(COUNT))
    assert frames[-1].time == pytest.approx(0.04 * (COUNT - 1))
    with open_video(tmp_path / name) as video:
        assert video.duration == pytest.approx(0.04 * COUNT, abs=0.1)
    data = (tmp_path / name).read_bytes()
    if not name.endswith("mp4"):
        assert failing(data[: int(0.8 * len(data))])[1]


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("open.mp4", "libx264", {"g": "8", "x264-params": "open-gop=1"}),
        ("open.ts", "libx264", {"g": "8", "x264-params": "open-gop=1"}),
        ("open.mkv", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:open-gop=1:keyint=8"}),
        ("pyramid.mp4", "libx264", {"bf": "16", "x264-params": "b-pyramid=normal:ref=8:b-adapt=0"}),
        ("fields.mp4", "libx264", {"x264-params": "interlaced=1"}),
        (
            "cavlc.ts",
            "libx264",
            {"coder": "0", "b": "400k", "maxrate": "400k", "bufsize": "200k", "x264-params": "nal-hrd=cbr"},
        ),
        ("hidden.webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
    ],
)
def test_no_alarm_on_whole_files_and_on_cuts_of_them(tmp_path: Path, name: str, codec: str, options: dict[str, str]) -> None:
    path, cut = tmp_path / name, tmp_path / f"cut_{name}"
    write(path, [landscape(i) for i in range(COUNT)], codec=codec, options=options)
    with open_video(path) as video:
        assert [frame.index for frame in video if not frame.damaged] == list(range(COUNT))
    assert video.damaged == video.marked == 0
    with av.open(path) as source, av.open(cut, "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        later = [i for i, packet in enumerate(packets) if packet.is_keyframe and i]
        for packet in packets[(later or [0])[0] :]:
            packet.stream = stream
            target.mux(packet)
    read(cut)  # raises an error if it is taken for corrupt


@pytest.mark.parametrize("share", [0.73, 0.8])
@pytest.mark.parametrize("name", ["fast.mp4", "b_frames.mkv", "mpeg4.avi", "b_frames.flv", "vp8.webm"])
def test_truncated(clips: Path, tmp_path: Path, name: str, share: float) -> None:
    if name == "fast.mp4":
        write(clips / name, codec="libx264", options=X264, muxer={"movflags": "faststart"})
    data = (clips / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(len(data) * share)])
    frames, text = failing(path)
    numbers = [frame.index for frame in frames]
    assert 5 < len(frames) < COUNT
    assert numbers == sorted(set(numbers))
    shown = [number_in(frame.image) for frame in frames]
    assert numbers[:-4] == shown[:-4] == list(range(len(frames) - 4))  # the last ones may stand behind one that is lost
    assert str(path) in text
    assert f"ends at {frames[-1].time + 1 / RATE:.2f} s" in text


@pytest.mark.parametrize("name", ["x.mpg", "x.h264", "x.ts", "x.wmv", "x.y4m"])
def test_truncated_where_the_header_declares_no_duration(tmp_path: Path, name: str) -> None:
    """A corrupt last frame is reported. That of a TS or Y4M file is not: their frames are read."""
    noise = np.random.default_rng(0).integers(0, 100, (16, HEIGHT, WIDTH, 3), np.uint8)
    codecs = {"x.mpg": "mpeg2video", "x.wmv": "wmv2", "x.y4m": "wrapped_avframe"}
    path = tmp_path / name
    write(path, list(noise), codec=codecs.get(name, "libx264"), options={} if name in codecs else X264)
    data = path.read_bytes()
    assert len(read(path)) == len(read(data)) == 16
    cut = data[: int(len(data) * 0.7) // 2 * 2 + 1]
    path.write_bytes(cut)
    for source in (path, cut):
        if name in ("x.ts", "x.y4m"):
            frames = read(source)
        else:
            frames, text = failing(source)
            assert "is truncated or corrupt: it ends at" in text
        assert 5 < len(frames) < 16


def test_a_part_before_the_cut_is_complete(clips: Path, tmp_path: Path) -> None:
    data = (clips / "b_frames.mkv").read_bytes()
    (tmp_path / "cut.mkv").write_bytes(data[: len(data) // 2])
    assert [frame.index for frame in read(tmp_path / "cut.mkv", start=0.2, end=0.4)] == list(range(5, 10))


def test_the_index_of_an_mp4_is_missing(clips: Path, tmp_path: Path) -> None:
    data = (clips / "b_frames.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    text = refused(tmp_path / "cut.mp4")
    assert "cut.mp4" in text
    assert "its start or end is missing" in text


def test_a_long_last_frame_is_not_truncated(tmp_path: Path) -> None:
    for name in ("slides.mkv", "slides.mp4"):
        write(tmp_path / name, [numbered(i) for i in range(3)], times=[0, 4000, 9000])
        assert len(read(tmp_path / name)) == 3


def test_a_part_between_two_frames(clips: Path) -> None:
    frames, text = failing(clips / "b_frames.mkv", start=0.105, end=0.11)
    assert not frames
    assert "has no frame from 0.105 s to 0.11 s" in text


def test_a_start_after_the_end(clips: Path) -> None:
    frames, text = failing(clips / "b_frames.mp4", start=7)
    assert frames == []
    assert "no frame from 7 s on" in text
    assert "2.00 s" in text


@pytest.mark.parametrize(
    "options",
    [{"fps": 0}, {"fps": float("inf")}, {"fps": float("nan")}, {"start": -1}, {"start": 2, "end": 1}, {"end": 0}],
)
def test_numbers_out_of_range(clips: Path, options: dict[str, float]) -> None:
    assert "got" in refused(clips / "b_frames.mp4", **options)


def sound(path: Path) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_what_is_not_a_video(tmp_path: Path, clips: Path) -> None:
    sound(tmp_path / "song.m4a")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "notes.txt").write_text("these are notes\n" * 50)
    (tmp_path / "notes.mp4").write_text("these are notes\n" * 50)
    (tmp_path / "codec.mp4").write_bytes((clips / "b_frames.mp4").read_bytes().replace(b"avc1", b"zzzz"))
    expected = {
        "song.m4a": "(no video stream)",
        "empty.mp4": "empty (0 bytes)",
        "notes.txt": "is text",
        "notes.mp4": "is not a video mien can read",
        "codec.mp4": "(unknown codec)",
        "missing.mp4": "no such file",
        ".": "is a folder",
        "a\0b.mp4": "cannot be read",
    }
    for name, words in expected.items():
        text = refused(f"{tmp_path}/{name}")
        assert words in text
        assert name.replace("\0", "\\x00") in text


def test_the_cover_of_a_song_is_not_a_video(tmp_path: Path) -> None:
    cover = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(cover, "JPEG")
    picture = b"\0image/jpeg\0\3\0" + cover.getvalue()
    body = b"APIC" + struct.pack(">I", len(picture)) + b"\0\0" + picture
    size = bytes(len(body) >> shift & 127 for shift in (21, 14, 7, 0))
    with av.open(tmp_path / "plain.mp3", "w") as container:
        stream = container.add_stream("mp3", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    path = tmp_path / "song.mp3"
    path.write_bytes(b"ID3\3\0\0" + size + body + (tmp_path / "plain.mp3").read_bytes())
    with av.open(path) as container:
        assert len(container.streams.video) == 1
    assert "no video stream" in refused(path)


def test_no_permission(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # a mode would not stop root
    assert "no permission" in refused(clips / "b_frames.mp4")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in the file system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.mp4")
    assert "not a regular file" in refused(tmp_path / "pipe.mp4")


def test_an_index_that_claims_millions_of_frames_takes_no_memory(clips: Path) -> None:
    data = bytearray((clips / "fragments.mp4").read_bytes())
    place = data.index(b"trun") + 8
    data[place : place + 4] = (2**26).to_bytes(4, "big")
    if not list(Path(av.__file__).parents[1].glob("av.libs/*avutil*")):
        pytest.skip("ffmpeg is not this wheel's own")
    assert "Cannot allocate memory" in refused(data)  # without the limit ffmpeg allocates 900 MB


@pytest.mark.parametrize("side", [7000, 20_000])  # refused by mien, and by ffmpeg itself
@pytest.mark.parametrize("where", ["header", "frames", "both"])
def test_huge_frames_are_refused_before_decoding(tmp_path: Path, side: int, where: str) -> None:
    write(tmp_path / "huge.avi", [numbered(i) for i in range(3)], codec="mjpeg")
    data = (tmp_path / "huge.avi").read_bytes()
    assert data.count(struct.pack("<II", WIDTH, HEIGHT)) == 2
    assert data.count(struct.pack(">BHH", 8, HEIGHT, WIDTH)) == 3
    if where != "frames":
        data = data.replace(struct.pack("<II", WIDTH, HEIGHT), struct.pack("<II", side, side))
    if where != "header":  # the header lies
        data = data.replace(struct.pack(">BHH", 8, HEIGHT, WIDTH), struct.pack(">BHH", 8, side, side))
    (tmp_path / "huge.avi").write_bytes(data)
    if where == "header":
        assert len(read(tmp_path / "huge.avi")) == 3
    else:
        text = refused(tmp_path / "huge.avi")
        assert "36 megapixels" in text
        assert "huge.avi" in text


def test_the_limit_itself_is_allowed(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.video.container, "MAX_PIXELS", WIDTH * HEIGHT)
    assert len(read(clips / "mpeg4.avi")) == COUNT
    monkeypatch.setattr(mien.video.container, "MAX_PIXELS", WIDTH * HEIGHT - 1)
    assert "64x48" in refused(clips / "mpeg4.avi")


class Pipe(io.RawIOBase):
    """Bytes that come once, as from a pipe."""

    def __init__(self, data: bytes) -> None:
        self.stream = io.BytesIO(data)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self.stream.readinto(buffer)


@pytest.mark.parametrize("name", ["b_frames.mp4", "b_frames.avi"])  # the second is opened again for its part
def test_data_in_memory_and_open_files(clips: Path, name: str) -> None:
    data = (clips / name).read_bytes()
    with (clips / name).open("rb") as file:
        for source in (data, bytearray(data), memoryview(data), io.BytesIO(data), io.BufferedReader(Pipe(data)), file):
            assert [number_in(frame.image) for frame in read(source, start=1.0)] == list(range(24, COUNT))
    assert "empty" in refused(b"")
    assert "empty" in refused(io.BytesIO())
    assert "Give a path" in refused(3)


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n",
    "concat": "ffconcat version 1.0\nfile {name}\n",
    "nested": "ffconcat version 1.0\nfile list.m3u8\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{name}</BaseURL>'
    "<SegmentBase/></Representation></AdaptationSet></Period></MPD>\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("ending", ["mp4", "m3u8", "txt"])
def test_a_playlist_reaches_no_other_file(clips: Path, kind: str, ending: str) -> None:
    """Not in memory, and not next to what it names."""
    text = PLAYLISTS[kind].format(clip=f"file:{clips}/b_frames.ts", name="b_frames.mp4")
    (clips / "list.m3u8").write_text(PLAYLISTS["hls"].format(clip="b_frames.ts"))
    path = clips / f"playlist.{ending}"
    path.write_text(text)
    for source in (path, text.encode()):
        assert "is not a video mien can read: it is text, such as a playlist" in refused(source)


def test_a_stream_of_segments_is_read(clips: Path) -> None:
    """The playlist of a network stream may name others."""

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    (clips / "list.m3u8").write_text(PLAYLISTS["hls"].format(clip="b_frames.ts"))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(clips))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            frames = read(f"http://127.0.0.1:{server.server_port}/list.m3u8")
        finally:
            server.shutdown()
            thread.join()
    assert [number_in(frame.image) for frame in frames] == list(range(COUNT))


@pytest.mark.parametrize("name", ["12:30.mp4", "100%d.mp4", "a b'c.mp4", os.fsdecode(b"caf\xe9.mp4"), "-.mp4"])
def test_odd_names(clips: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        (tmp_path / name).write_bytes((clips / "b_frames.mp4").read_bytes())
    except (OSError, UnicodeError):
        pytest.skip("this file system does not take the name")
    monkeypatch.chdir(tmp_path)
    assert len(read(name)) == COUNT


def test_an_animated_gif_can_be_opened_as_a_video(tmp_path: Path) -> None:
    images = [Image.fromarray(numbered(i)) for i in range(4)]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=[100, 300, 200, 100])
    frames = read(tmp_path / "a.gif")
    assert [number_in(frame.image) for frame in frames] == [0, 1, 2, 3]
    np.testing.assert_allclose([frame.time for frame in frames], [0, 0.1, 0.4, 0.6], atol=0.001)


def test_nothing_reaches_the_terminal(clips: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    data = (clips / "b_frames.mkv").read_bytes()
    failing(data[: len(data) // 2])
    refused(b"rubbish" * 100)
    assert capfd.readouterr() == ("", "")


def test_memory_does_not_grow(tmp_path: Path) -> None:
    rate = Path("/proc/self/statm")
    if not rate.exists():
        pytest.skip("this system does not say how much memory a process holds")

    def resident() -> int:
        return int(rate.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    write(tmp_path / "long.avi", [np.zeros((240, 320, 3), np.uint8)] * 250)
    with open_video(tmp_path / "long.avi") as video:
        for frame in video:
            if frame.index == 60:
                before = resident()
    assert frame.index == 249
    assert resident() - before < 20 * 2**20  # the frames since would take 44 MB


@contextmanager
def served(data: bytes, *, stay: bool = False) -> Iterator[str]:
    """Serve bytes without their length, as a live stream comes; `stay` keeps the line open and silent afterwards."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "video/x-flv")
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
            if stay:
                done.wait(20)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/stream"
    finally:
        done.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("stay", [False, True])
def test_a_stream_that_stops(stay: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.video.container, "TIMEOUT", 0.5)
    stream = io.BytesIO()
    write(stream, codec="mpeg1video", kind="mpeg1video", options={"bf": "0"})
    with served(stream.getvalue() * 3, stay=stay) as address:
        frames, text = failing(address)
    assert address in text
    assert "the stream stopped at" in text or "ends at" in text
    assert len(frames) >= COUNT
    assert [number_in(frame.image) for frame in frames[:COUNT]] == list(range(COUNT))


def test_urls_that_do_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.video.container, "TIMEOUT", 0.3)
    for address in ("rtsp://127.0.0.1:9/door", "http://127.0.0.1:9/film.mp4"):
        text = refused(address)
        assert address in text
        assert "Check the URL" in text
    with served(b"", stay=True) as address:
        assert "Check the URL" in refused(address)
    for scheme in ("gopher", "srt"):
        assert f"{scheme}://x/y: mien does not read {scheme}:// URLs, only http, https, rtsp" in refused(f"{scheme}://x/y")
    assert locate("rtsp://door/1").live
    assert not locate("http://door/1.mp4").live


def test_cameras_of_each_system(monkeypatch: pytest.MonkeyPatch) -> None:
    def camera(name: str, system: str) -> tuple[str, str | None]:
        location = mien.video.container._camera(name, name, system)
        assert location.live
        return location.file, location.format

    assert camera("camera:2", "linux") == ("/dev/video2", "v4l2")
    assert camera("camera:/dev/video4", "linux") == ("/dev/video4", "v4l2")
    assert camera("camera:0", "darwin") == ("0", "avfoundation")
    assert camera("camera:Front", "win32") == ("video=Front", "dshow")
    devices = [SimpleNamespace(name=name, media_types=["video"]) for name in ("Front", "Back")]
    monkeypatch.setattr(av, "enumerate_input_devices", lambda kind: devices)
    assert camera("camera:1", "win32") == ("video=Back", "dshow")
    with pytest.raises(InputError, match=r"camera:2: no such camera\. There are 2: Front, Back"):
        camera("camera:2", "win32")
    assert "The first camera is camera:0" in refused("camera:")


def test_a_camera_that_is_not_there() -> None:
    text = refused("camera:/dev/video9876")
    assert "camera:/dev/video9876: no such camera" in text


def test_a_reader_that_fails_to_open_closes_the_file(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    original = VideoReader.close
    monkeypatch.setattr(VideoReader, "close", lambda self: closed.append(1) or original(self))
    monkeypatch.setattr(VideoReader, "_describe", lambda self, first: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        open_video(clips / "mpeg4.avi")
    assert closed == [1]
