"""A thousand damaged pictures and a thousand damaged videos: each is read or refused, within ten seconds and a gigabyte.

Run as a script, this file is the process that reads them: `test_fuzz.py pictures|videos FIRST LAST`.
"""

from __future__ import annotations

import faulthandler
import io
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from mien.errors import InputError
from mien.image import read_image
from mien.video.reader import open_video

COUNT = 1000
SECONDS = 10
MEMORY = 2**30

NUMBERS = [
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    127,
    128,
    255,
    256,
    0x7FFF,
    0x8000,
    0xFFFF,
    10_000,
    1 << 20,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
]
"""Values that break readers, for fields of headers."""


def scene(width: int, height: int, shift: int = 0) -> np.ndarray:
    """A picture with edges and shades, RGB."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 5 + shift * 9) % 256, (y * 7) % 256, ((x + shift) // 8 + y // 8) % 2 * 200], axis=2).astype(np.uint8)


def picture_seeds() -> list[bytes]:
    """A few small pictures of every format, in more than one of its kinds."""
    rgb = Image.fromarray(scene(40, 30))
    alpha = rgb.copy()
    alpha.putalpha(128)
    kinds: list[tuple[Image.Image, str, dict]] = [
        (rgb, "JPEG", {"quality": 80}),
        (rgb, "JPEG", {"quality": 60, "progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "PNG", {}),
        (alpha, "PNG", {}),
        (Image.fromarray(scene(40, 30)[..., 0].astype(np.uint16) * 200), "PNG", {}),
        (rgb, "WEBP", {"quality": 70}),
        (alpha, "WEBP", {"lossless": True}),
        (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb, "BMP", {}),
        (rgb.quantize(16), "BMP", {}),
        (rgb.quantize(16), "GIF", {"save_all": True, "append_images": [rgb.rotate(90).quantize(16)]}),
    ]
    seeds = []
    for picture, kind, options in kinds:
        stream = io.BytesIO()
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.save(stream, kind, **options, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
        seeds.append(stream.getvalue())
    return seeds


def video_seeds() -> list[bytes]:
    """The same six small frames in each container."""
    kinds = [
        ("mp4", "libx264", {"g": "3", "bf": "1"}, {}),
        ("mp4", "mpeg4", {}, {"movflags": "faststart"}),
        ("mp4", "libx264", {"g": "3"}, {"movflags": "frag_keyframe+empty_moov"}),
        ("matroska", "libx264", {"g": "3", "bf": "1"}, {}),
        ("webm", "libvpx", {"deadline": "realtime", "cpu-used": "8"}, {}),
        ("webm", "libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, {}),
        ("avi", "mpeg4", {}, {}),
        ("avi", "mjpeg", {}, {}),
        ("mpegts", "mpeg2video", {}, {}),
    ]
    with tempfile.TemporaryDirectory() as folder:
        return [film(Path(folder) / "film", *kind) for kind in kinds]


def film(path: Path, kind: str, codec: str, options: dict[str, str], muxer: dict[str, str]) -> bytes:
    """Six small frames."""
    with av.open(path, "w", format=kind, options=muxer) as container:
        video = container.add_stream(codec, rate=10, options=options)
        video.width, video.height = 48, 32
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for shift in range(6):
            container.mux(video.encode(av.VideoFrame.from_ndarray(scene(48, 32, shift), format="rgb24")))
        container.mux(video.encode())
    return path.read_bytes()


def flip(data: bytearray, chance: random.Random) -> None:
    """Change some bytes, or bits, anywhere."""
    for _ in range(chance.choice([1, 2, 4, 16, 64])):
        place = chance.randrange(len(data))
        data[place] = chance.choice([chance.randrange(256), data[place] ^ 1 << chance.randrange(8), 0, 255])


def field(data: bytearray, chance: random.Random) -> None:
    """Write a dangerous number over a few bytes, mostly of the header."""
    for _ in range(chance.choice([1, 1, 2, 4])):
        size = chance.choice([1, 2, 4])
        place = chance.randrange(min(len(data), chance.choice([64, 256, 1024, len(data)])))
        number = chance.choice(NUMBERS) & (1 << 8 * size) - 1
        data[place : place + size] = number.to_bytes(size, chance.choice(["big", "little"]))


def cut(data: bytearray, chance: random.Random) -> None:
    """Cut off the end."""
    del data[max(1, chance.randrange(len(data))) :]


def insert(data: bytearray, chance: random.Random) -> None:
    """Put bytes in: random ones, or a copy of a part."""
    place, start = chance.randrange(len(data)), chance.randrange(len(data))
    size = chance.choice([1, 2, 4, 32, 256])
    data[place:place] = chance.randbytes(size) if chance.random() < 0.5 else data[start : start + size]


def remove(data: bytearray, chance: random.Random) -> None:
    """Take bytes out, or make them zero."""
    place, size = chance.randrange(len(data)), chance.choice([1, 4, 32, 256])
    data[place : place + size] = b"" if chance.random() < 0.5 and len(data) > 2 * size else bytes(min(size, len(data) - place))


WAYS = [flip, flip, field, field, cut, insert, remove]


def damaged(seeds: list[bytes], number: int) -> bytes:
    """The file of a number: always the same."""
    chance = random.Random(number)
    data = bytearray(seeds[number % len(seeds)])
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        chance.choice(WAYS)(data, chance)
    return bytes(data)


def read_video(data: bytes, number: int) -> None:
    """Read a video to its end: whole, a part, or a sample."""
    options = [{}, {}, {"start": 0.25}, {"fps": 4.0}][number // 7 % 4]
    with open_video(data, **options) as video:
        for frame in video:
            assert frame.image.shape == (*video.size[::-1], 3)


def peak() -> int:
    """The most memory that this process held, bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # the other figure begins with what the process that started this one held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def main(what: str, first: int, last: int) -> None:
    """Read the damaged files of these numbers and say what came of it."""
    seeds = picture_seeds() if what == "pictures" else video_seeds()
    read: Callable[[bytes, int], object] = (lambda data, _: read_image(data)) if what == "pictures" else read_video
    outcome = {"read": 0, "refused": 0, "wrong": []}
    for number in range(first, last):
        data = damaged(seeds, number)
        print(number, flush=True)  # the last one is to blame for a crash
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            read(data, number)
            outcome["read"] += 1
        except InputError as error:
            outcome["refused"] += 1
            if len(str(error).splitlines()) != 1:
                outcome["wrong"].append((number, "an error of several lines"))
        except BaseException as error:
            outcome["wrong"].append((number, repr(error)))
        faulthandler.cancel_dump_traceback_later()
        if peak() > MEMORY:
            outcome["wrong"].append((number, f"{peak() >> 20} MB"))
            break
    print(json.dumps(outcome | {"peak": peak()}))


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not say how much memory a process held")
@pytest.mark.parametrize("what", ["pictures", "videos"])
def test_damaged_files_are_read_or_refused(what: str) -> None:
    command = [sys.executable, "-W", "error", str(Path(__file__)), what, "0", str(COUNT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=570)
    *numbers, last = done.stdout.splitlines() or [""]
    assert done.returncode == 0, f"{what}, number {last}: {done.stderr[-2000:]}"
    assert numbers == [str(number) for number in range(COUNT)]
    if what == "videos":
        assert done.stderr == ""  # libtiff, which Pillow reads TIFF with, cannot be silenced; ffmpeg is
    outcome = json.loads(last)
    assert outcome["wrong"] == []
    assert outcome["read"] + outcome["refused"] == COUNT
    assert min(outcome["read"], outcome["refused"]) > COUNT / 20
    assert outcome["peak"] < MEMORY


def test_the_files_are_damaged() -> None:
    for seeds in (picture_seeds(), video_seeds()):
        assert sum(damaged(seeds, number) != seeds[number % len(seeds)] for number in range(200)) > 190


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
