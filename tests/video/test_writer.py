import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from fractions import Fraction
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mien.atomic import STOPS
from mien.errors import OutputError
from mien.structures import Frame
from mien.video.container import TemporaryCopy
from mien.video.reader import open_video
from mien.video.writer import VideoWriter

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"
RATE = 16000


def pictures(count: int, size: tuple[int, int] = (96, 72)) -> list[np.ndarray]:
    """A window that wanders over a colourful photo."""
    with Image.open(ASTRONAUT) as photo:
        photo = photo.convert("RGB").resize((size[0] + count, size[1] + count))
        return [np.asarray(photo.crop((i, i, i + size[0], i + size[1]))) for i in range(count)]


def frames(times: list[float], size: tuple[int, int] = (96, 72)) -> list[Frame]:
    return [Frame(image, i, time) for i, (image, time) in enumerate(zip(pictures(len(times), size), times, strict=True))]


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def write(path: Path, given: list, like: Path | None = None) -> VideoWriter:  # type: ignore[type-arg]
    """Write frames; an exception in their place is raised."""
    with VideoWriter(path, like=like) as writer:
        for frame in given:
            if isinstance(frame, Exception):
                raise frame
            writer.write(frame)
    return writer


def pitch(time: float) -> float:
    """Of the tone of `film`, in Hz; it rises, so that it tells the time."""
    return 300 + 200 * time


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """Make a video of 4 s with a rising tone, once of each kind."""

    @cache
    def make(name: str, codec: str) -> Path:
        path = tmp_path_factory.mktemp("film") / name
        with av.open(str(path), "w") as out:
            video = out.add_stream("libx264", rate=10)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
            sound = out.add_stream(codec, rate=RATE, layout="mono")
            for i in range(40):
                picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 6 * i, np.uint8), format="rgb24")
                picture.pts, picture.time_base = i, Fraction(1, 10)
                out.mux(video.encode(picture))
            time = np.arange(4 * RATE) / RATE
            wave = (np.sin(2 * np.pi * (300 + 100 * time) * time) * 10000).astype(np.int16)
            for i in range(0, len(wave), 1024):
                piece = av.AudioFrame.from_ndarray(wave[None, i : i + 1024], format="s16", layout="mono")
                piece.rate, piece.pts, piece.time_base = RATE, i, Fraction(1, RATE)
                out.mux(sound.encode(piece))
            out.mux(sound.encode(None))
            out.mux(video.encode(None))
        return path

    return make


@pytest.fixture(scope="module")
def talkie(film) -> Path:  # type: ignore[no-untyped-def]
    return film("talkie.mp4", "aac")


def decoded(path: Path) -> tuple[list[float], list[np.ndarray]]:
    with av.open(str(path)) as video:
        found = list(video.decode(video=0))
        return [frame.time for frame in found], [frame.to_ndarray(format="rgb24") for frame in found]


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / ((a.astype(float) - b) ** 2).mean()))


def sound_of(path: Path) -> tuple[str, float, np.ndarray, int]:
    """Codec, time of the first sample in seconds, samples, their rate."""
    with av.open(str(path)) as video:
        pieces = list(video.decode(audio=0))
        samples = np.concatenate([piece.to_ndarray()[0].astype(float) for piece in pieces])
        return video.streams.audio[0].codec_context.name, pieces[0].time, samples, pieces[0].sample_rate


def heard(path: Path, time: float) -> float:
    """The pitch at a time, in Hz."""
    _, start, samples, rate = sound_of(path)
    at = round((time - start) * rate)
    piece = samples[at - rate // 40 : at + rate // 40]
    return float(np.abs(np.fft.rfft(piece * np.hanning(len(piece)), 1 << 16)).argmax() * rate / (1 << 16))


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".webm", ".M4V"])
def test_every_frame_comes_back_at_its_own_time(tmp_path: Path, suffix: str) -> None:
    times = [0.0, 0.033, 0.067, 0.5, 0.5123, 1.9, 1.94, 3.2]
    given = frames([7.25 + time for time in times])
    with VideoWriter(tmp_path / f"a{suffix}", fps=10) as writer:
        for frame in given:
            writer.write(frame)
    assert names(tmp_path) == [f"a{suffix}"]
    found, images = decoded(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(found, times, atol=1e-3)
    assert min(psnr(image, frame.image) for image, frame in zip(images, given, strict=True)) > 30
    with av.open(str(tmp_path / f"a{suffix}")) as video:
        assert video.duration / 1e6 == pytest.approx(3.3, abs=0.005)  # the last frame is shown for 1/fps
        assert video.streams.video[0].codec_context.pix_fmt == "yuv420p"


def test_colours_are_what_they_were(tmp_path: Path) -> None:
    image = np.empty((64, 64, 3), np.uint8)
    patches = [(200, 40, 40), (40, 180, 60), (50, 60, 200), (230, 220, 70)]
    for i, colour in enumerate(patches):
        image[32 * (i // 2) : 32 * (i // 2) + 32, 32 * (i % 2) : 32 * (i % 2) + 32] = colour
    write(tmp_path / "a.mp4", [Frame(image, 0, 0.0)])
    _, (found,) = decoded(tmp_path / "a.mp4")
    middles = found[[16, 16, 48, 48], [16, 48, 16, 48]].astype(int)
    assert np.abs(middles - patches).max() <= 6


@pytest.mark.parametrize("size", [(95, 72), (96, 71), (3, 5), (1, 1)])
def test_an_odd_size_is_made_even(tmp_path: Path, size: tuple[int, int]) -> None:
    given = frames([0.0, 0.1], size)
    write(tmp_path / "a.mp4", given)
    _, images = decoded(tmp_path / "a.mp4")
    assert images[0].shape == (size[1] + size[1] % 2, size[0] + size[0] % 2, 3)
    assert psnr(images[1][: size[1], : size[0]], given[1].image) > 25


def test_a_frame_of_another_size_is_scaled(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4") as writer:
        writer.write(Frame(np.full((48, 64, 3), 90, np.uint8), 0, 0.0))
        writer.write(Frame(np.full((120, 80, 3), 200, np.uint8), 1, 0.5))
    _, images = decoded(tmp_path / "a.mp4")
    assert [image.shape for image in images] == [(48, 64, 3)] * 2
    assert images[1].mean() == pytest.approx(200, abs=3)


def test_frames_without_a_time_follow_the_rate(tmp_path: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", fps=5) as writer:
        for image in pictures(4):
            writer.write(Frame(image))
    assert decoded(tmp_path / "a.mp4")[0] == pytest.approx([0, 0.2, 0.4, 0.6])


def test_times_that_repeat_or_go_back_lose_no_frame(tmp_path: Path) -> None:
    write(tmp_path / "a.mp4", frames([0.0, 0.1, 0.1, 0.05, 0.3]))
    assert decoded(tmp_path / "a.mp4")[0] == pytest.approx([0, 0.1, 0.1, 0.1, 0.3], abs=1e-3)


def test_the_sound_is_copied(tmp_path: Path, talkie: Path) -> None:
    writer = write(tmp_path / "a.mp4", frames([i / 10 for i in range(40)]), talkie)
    assert writer.sound == "copied"
    before, after = sound_of(talkie), sound_of(tmp_path / "a.mp4")
    assert after[0] == "aac"
    assert after[1] == pytest.approx(before[1], abs=1e-3)
    assert abs(len(before[2]) - len(after[2])) <= 1024
    least = min(len(before[2]), len(after[2]))
    np.testing.assert_array_equal(before[2][2048:least], after[2][2048:least])


@pytest.mark.parametrize(
    ("name", "codec", "ending", "sound"),
    [
        ("a.mp4", "aac", "mp4", "copied"),
        ("a.ts", "aac", "mp4", "copied"),
        ("a.mkv", "pcm_s16le", "mp4", "encoded"),
        ("a.mkv", "pcm_s16le", "mkv", "copied"),
        ("a.mp4", "libmp3lame", "webm", "encoded"),
        ("a.mkv", "libopus", "webm", "copied"),
    ],
)
def test_the_sound_is_cut_to_the_frames(tmp_path: Path, film, name: str, codec: str, ending: str, sound: str) -> None:  # type: ignore[no-untyped-def]
    source, path = film(name, codec), tmp_path / f"part.{ending}"
    with VideoWriter(path, like=source, fps=5) as writer:
        for frame in frames([2.4 + i / 5 for i in range(5)]):
            writer.write(frame)
    assert writer.sound == sound
    _, start, samples, rate = sound_of(path)
    assert start == pytest.approx(0, abs=0.07)
    assert start + len(samples) / rate == pytest.approx(1.0, abs=0.1)
    for time in (0.2, 0.8):
        assert heard(path, time) == pytest.approx(pitch(2.4 + time), abs=12)


@contextmanager
def served(data: bytes, length: bool = True) -> Iterator[str]:
    """Serve a file, or without its length what looks like a live stream."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            start = int(self.headers.get("Range", "bytes=0-")[6:-1]) if length else 0
            self.send_response(206 if start else 200)
            if length:
                self.send_header("Accept-Ranges", "bytes")
                self.send_header("Content-Length", str(len(data) - start))
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            with suppress(OSError):  # who reads has enough
                self.wfile.write(data[start:])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.05,)).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/film"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("kind", "part"),
    [("file", slice(40)), *((kind, slice(25, 35)) for kind in ("bytes", "file", "pipe", "url"))],
)
def test_the_sound_is_read_while_the_frames_are(tmp_path: Path, talkie: Path, kind: str, part: slice) -> None:
    given = frames([i / 10 for i in range(40)])[part]
    write(tmp_path / "expected.mp4", given, talkie)
    with ExitStack() as files:
        stream = files.enter_context(talkie.open("rb"))
        video: Any = {"bytes": talkie.read_bytes(), "file": stream, "pipe": TemporaryCopy(stream)}.get(kind)
        video = files.enter_context(served(talkie.read_bytes())) if kind == "url" else video
        reader = files.enter_context(open_video(video))
        writer = files.enter_context(VideoWriter(tmp_path / "a.mp4", like=video))
        times = []
        for i, read in enumerate(reader):
            times.append(read.time)
            if given[0].index <= i <= given[-1].index:
                writer.write(given[i - given[0].index])
        assert times == pytest.approx([i / 10 for i in range(40)])
    assert writer.sound == "copied"
    np.testing.assert_array_equal(sound_of(tmp_path / "a.mp4")[2], sound_of(tmp_path / "expected.mp4")[2])


def test_the_sound_of_a_live_stream_is_left_out(tmp_path: Path, film) -> None:  # type: ignore[no-untyped-def]
    with served(film("a.ts", "aac").read_bytes(), length=False) as address:
        with VideoWriter(tmp_path / "a.mp4", like=address) as writer:
            writer.write(frames([0.0])[0])
        assert writer.sound == "left out"
    assert len(decoded(tmp_path / "a.mp4")[0]) == 1


@pytest.mark.parametrize("number", STOPS)
def test_ctrl_c_and_kill_leave_a_playable_video(tmp_path: Path, talkie: Path, number: int) -> None:
    before = signal.signal(number, signal.default_int_handler)  # as `mien predict` takes both
    given = frames([i / 10 for i in range(20)])

    class Interrupting:
        """A frame during whose writing the user presses Ctrl-C."""

        index, time = 20, 2.0

        @property
        def image(self) -> np.ndarray:
            signal.raise_signal(number)
            return given[0].image

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "a.mp4", [*given, Interrupting(), *given], talkie)
    assert names(tmp_path) == ["a.mp4"]
    times, images = decoded(tmp_path / "a.mp4")
    assert times == pytest.approx([i / 10 for i in range(21)], abs=1e-3)  # the frame is whole
    assert psnr(images[20], given[0].image) > 26
    _, _, samples, rate = sound_of(tmp_path / "a.mp4")
    assert len(samples) / rate == pytest.approx(2.1, abs=0.1)
    assert signal.signal(number, before) is signal.default_int_handler


def test_what_a_killed_process_left_is_removed_and_what_another_writes_is_not(tmp_path: Path) -> None:
    left, being_written = tmp_path / ".a [b]-01234567.mp4", tmp_path / ".a [b]-89abcdef.mp4"
    for file in (left, being_written):
        file.write_bytes(b"half")
    os.utime(left, (0, 0))  # long ago
    write(tmp_path / "a [b].mp4", frames([0.0, 0.1]))
    assert sorted(names(tmp_path)) == [being_written.name, "a [b].mp4"]


def test_an_exception_leaves_nothing_and_an_older_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old.mp4").write_bytes(b"old")
    for name in ("old.mp4", "new.mp4"):
        with pytest.raises(RuntimeError):
            write(tmp_path / name, [*frames([0.0]), RuntimeError()])
    assert names(tmp_path) == ["old.mp4"]
    assert (tmp_path / "old.mp4").read_bytes() == b"old"


def test_a_closed_video_takes_no_frame(tmp_path: Path) -> None:
    writer = write(tmp_path / "a.mp4", frames([0.0]))
    writer.close()
    writer.discard()
    with pytest.raises(ValueError, match="closed"):
        writer.write(frames([0.0])[0])
    assert names(tmp_path) == ["a.mp4"]


def test_without_frames_there_is_no_file(tmp_path: Path, talkie: Path) -> None:
    with VideoWriter(tmp_path / "a.mp4", like=talkie):
        pass
    assert names(tmp_path) == []


def test_names_that_cannot_be_written(tmp_path: Path, talkie: Path) -> None:
    with pytest.raises(OutputError, match=r"a\.gif does not end like a video mien can write\. End it with one of \.mp4"):
        VideoWriter(tmp_path / "a.gif")
    with pytest.raises(OutputError, match="is the video that is read"):
        VideoWriter(talkie, like=talkie)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"file.a\.mp4"):
        write(tmp_path / "file/a.mp4", frames([0.0]))


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let files grow to `limit` bytes only."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of a file")
def test_a_full_disk_is_an_error_that_names_the_file_and_leaves_nothing(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), np.uint8)
    given = [Frame(image, i, i / 10) for i, image in enumerate(noise)]
    write(tmp_path / "full.mp4", given)
    size = (tmp_path / "full.mp4").stat().st_size
    (tmp_path / "full.mp4").unlink()
    for limit in (1, size // 2, size - 1):
        with full_disk(limit), pytest.raises(OutputError, match=r"full\.mp4: cannot be written"):
            write(tmp_path / "full.mp4", given)
        assert names(tmp_path) == []


@pytest.mark.parametrize("like", ["camera:0", "rtsp://door/1", None, "missing.mp4"])
def test_a_source_that_is_not_a_file_has_no_sound(tmp_path: Path, like: str | None) -> None:
    with VideoWriter(tmp_path / "a.mp4", like=like) as writer:
        writer.write(frames([0.0])[0])
    assert writer.sound == "none"


def test_truncated_sound_ends_early(tmp_path: Path, film) -> None:  # type: ignore[no-untyped-def]
    whole = film("a.mkv", "aac").read_bytes()
    source = tmp_path / "cut.mkv"
    source.write_bytes(whole[: len(whole) // 2])
    write(tmp_path / "a.mp4", frames([i / 10 for i in range(40)]), source)
    assert len(decoded(tmp_path / "a.mp4")[0]) == 40
    _, _, samples, rate = sound_of(tmp_path / "a.mp4")
    assert 0.3 < len(samples) / rate < 3.5
    assert heard(tmp_path / "a.mp4", 0.2) == pytest.approx(pitch(0.2), abs=12)
