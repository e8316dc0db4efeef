"""Damaged pictures of every format: each is read or refused. A picture that is cut off is refused, or read as the whole one."""

from __future__ import annotations

import io
import sys
from functools import cache

import numpy as np
import pytest
from mutate import damaged, serve, try_cases
from PIL import Image

from mien.image import read_image


def scene(width: int, height: int, shift: int = 0) -> np.ndarray:
    """A picture with edges and shades, RGB."""
    y, x = np.mgrid[:height, :width]
    return np.stack([(x * 5 + shift * 9) % 256, (y * 7) % 256, ((x + shift) // 8 + y // 8) % 2 * 200], axis=2).astype(np.uint8)


@cache
def seeds() -> list[bytes]:
    """A few small pictures of every format, in more than one of its kinds."""
    rgb = Image.fromarray(scene(40, 30))
    alpha, grey, palette = rgb.copy(), rgb.convert("L"), rgb.quantize(16)
    alpha.putalpha(128)
    deep = Image.fromarray(scene(40, 30)[..., 0].astype(np.uint16) * 200)
    frames = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    kinds: list[tuple[Image.Image, str, dict]] = [
        (rgb, "JPEG", {"quality": 80}),
        (rgb, "JPEG", {"quality": 60, "progressive": True}),
        (rgb.convert("CMYK"), "JPEG", {}),
        (rgb, "MPO", frames),
        (rgb, "PNG", {}),
        (alpha, "PNG", {}),
        (deep, "PNG", {}),
        (palette, "PNG", {"transparency": 3}),
        (rgb.convert("1"), "PNG", {}),
        (rgb, "PNG", frames),
        (rgb, "WEBP", {"quality": 70}),
        (alpha, "WEBP", {"lossless": True}),
        (rgb, "WEBP", {**frames, "quality": 50}),
        (rgb, "TIFF", {}),
        (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "TIFF", {"compression": "jpeg"}),
        (rgb, "TIFF", {"compression": "tiff_adobe_deflate", **frames}),
        (deep, "TIFF", {}),
        (rgb, "BMP", {}),
        (palette, "BMP", {}),
        (palette, "GIF", {**frames, "append_images": [rgb.rotate(90).quantize(16)]}),
        (rgb, "PPM", {}),
        (grey, "PPM", {}),
        (deep, "PPM", {}),
        (rgb, "AVIF", {"quality": 60, "speed": 10}),
        (rgb, "HEIF", {}),
    ]
    made = []
    for picture, kind, options in kinds:
        if kind == "HEIF":
            pillow_heif = pytest.importorskip("pillow_heif") if "pytest" in sys.argv[0] else __import__("pillow_heif")
            pillow_heif.register_heif_opener()
        stream = io.BytesIO()
        if "append_images" in options:  # Pillow leaves options of the last format in a picture
            options = {**options, "append_images": [each.copy() for each in options["append_images"]]}
        exif = picture.getexif()
        exif[0x0112] = 6
        picture.copy().save(stream, kind, **options, **({"exif": exif} if kind in ("JPEG", "PNG", "WEBP", "TIFF") else {}))
        made.append(stream.getvalue())
    return made


def read_damaged(number: int) -> None:
    pixels = read_image(damaged(seeds(), number))
    assert pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8


@cache
def whole(seed: int) -> np.ndarray:
    """The pixels of a picture that is not damaged."""
    return read_image(seeds()[seed])


def read_cut_off(number: int) -> None:
    """Cut off the end; what is still read must be the whole picture, as when only its last, needless bytes are gone."""
    seed = number % len(seeds())
    data = seeds()[seed]
    length = len(data) - 1 - number // len(seeds()) * 7919 % (len(data) - 1)
    assert np.array_equal(read_image(data[:length]), whole(seed)), f"{length} of {len(data)} bytes of seed {seed} read as whole"


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not say how much memory a process held")
def test_damaged_pictures_are_read_or_refused() -> None:
    outcome = try_cases(__file__, "damaged", 800)
    assert min(outcome.read, outcome.refused) > 40


@pytest.mark.skipif(sys.platform == "win32", reason="as above")
def test_pictures_that_are_cut_off_are_not_read_as_whole() -> None:
    assert try_cases(__file__, "cut_off", 400).refused > 300


def test_the_pictures_are_damaged_and_the_whole_ones_are_read() -> None:
    assert sum(damaged(seeds(), number) != seeds()[number % len(seeds())] for number in range(200)) > 190
    assert all(whole(seed).shape == (40, 30, 3) or whole(seed).shape == (30, 40, 3) for seed in range(len(seeds())))


if __name__ == "__main__":
    serve({"damaged": read_damaged, "cut_off": read_cut_off})
