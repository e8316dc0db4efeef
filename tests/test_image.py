from __future__ import annotations

import io
import os
import re
import signal
import struct
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

import mien.image
from mien.errors import InputError, MissingExtraError
from mien.image import MAX_PIXELS, Budget, conversion, is_picture, open_image, read_image


def encode(picture: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


def portrait() -> Image.Image:
    return Image.fromarray(skimage.data.astronaut()[60:180, 160:290])


SMALL = portrait().resize((40, 36))
REAL = {
    "png": encode(SMALL),
    "jpeg": encode(SMALL, "JPEG"),
    "gif": encode(SMALL, "GIF"),
    "webp": encode(SMALL, "WEBP"),
    "tiff": encode(SMALL, "TIFF", compression="tiff_lzw"),
    "bmp": encode(SMALL, "BMP"),
    "ppm": encode(SMALL, "PPM"),
}


def test_all_sources_agree(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(REAL["png"])
    expected = np.asarray(SMALL)
    for source in (path, str(path), REAL["png"], bytearray(REAL["png"]), memoryview(REAL["png"]), SMALL, expected):
        image = read_image(source)
        assert image.dtype == np.uint8
        assert image.flags.c_contiguous
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("kind", REAL)
def test_every_format(kind: str) -> None:
    image = read_image(REAL[kind])
    assert image.shape == (36, 40, 3)
    assert np.abs(image.astype(int) - np.asarray(SMALL)).mean() < 12


def test_grey_is_repeated() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    for source in (grey, Image.fromarray(grey), encode(Image.fromarray(grey))):
        np.testing.assert_array_equal(read_image(source), np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_exif_rotation_is_applied(orientation: int, kind: str) -> None:
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = (255, 0, 0)
    upright[0, -1] = (0, 255, 0)
    turned = upright.transpose(1, 0, 2)
    stored = [  # how a camera held that way stores the same scene, EXIF 2.3, table 8
        upright, upright[:, ::-1], upright[::-1, ::-1], upright[::-1],
        turned, turned[::-1], turned[::-1, ::-1], turned[:, ::-1],
    ][orientation - 1]  # fmt: skip
    picture = Image.fromarray(np.ascontiguousarray(stored))
    exif = picture.getexif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(read_image(encode(picture, kind, exif=exif)), upright)


def test_damaged_exif_does_not_matter() -> None:
    data = encode(SMALL, "JPEG", exif=b"Exif\x00\x00rubbish that is no TIFF header")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(data).shape == (36, 40, 3)


def test_transparency_is_laid_on_white() -> None:
    picture = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    picture.putpixel((1, 0), (0, 0, 0, 0))
    expected = [[[255, 0, 0], [255, 255, 255]]]
    assert read_image(encode(picture)).tolist() == expected
    assert read_image(picture).tolist() == expected
    grey = Image.new("LA", (1, 1), (0, 128))
    assert read_image(grey).tolist() == [[[127, 127, 127]]]


def test_palette_with_transparency() -> None:
    picture = Image.new("P", (2, 1), 0)
    picture.putpalette([10, 20, 30, 200, 0, 0])
    picture.putpixel((1, 0), 1)
    assert read_image(encode(picture)).tolist() == [[[10, 20, 30], [200, 0, 0]]]
    assert read_image(encode(picture, transparency=0)).tolist() == [[[255, 255, 255], [200, 0, 0]]]


def sixteen_bit_png(values: NDArray[np.uint16], colour: int) -> bytes:
    """A PNG of 16 bits a value, which Pillow cannot write; colour 2 RGB, 4 grey and alpha, 6 RGBA."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    chunks = [struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data)) for tag, data in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def sixteen_bit_tiff(values: NDArray[np.uint16], *, planes: bool = False, compressed: bool = False) -> bytes:
    """A TIFF of 16 bits a value, which Pillow cannot write."""
    stream = io.BytesIO()
    tifffile.imwrite(
        stream,
        np.moveaxis(values, 2, 0) if planes else values,
        photometric="rgb",
        planarconfig="separate" if planes else "contig",
        compression="zlib" if compressed else None,
        extrasamples=["unassalpha"] if values.shape[2] == 4 else None,
    )
    return stream.getvalue()


DEEP = (np.arange(4 * 12 * 3, dtype=np.uint16).reshape(4, 12, 3) * 450).astype(np.uint16)
OPAQUE = np.full((4, 12, 1), 65535, np.uint16)


@pytest.mark.parametrize(
    "data",
    [
        sixteen_bit_png(DEEP, 2),
        sixteen_bit_png(np.dstack([DEEP, OPAQUE]), 6),
        sixteen_bit_tiff(DEEP),
        sixteen_bit_tiff(DEEP, compressed=True),
        sixteen_bit_tiff(DEEP, planes=True, compressed=True),
        sixteen_bit_tiff(np.dstack([DEEP, OPAQUE])),
    ],
    ids=["png", "png with alpha", "tiff", "deflated tiff", "tiff in deflated planes", "tiff with alpha"],
)
def test_sixteen_bit_colour_is_scaled(data: bytes) -> None:
    assert np.abs(read_image(data) - DEEP / 257).max() < 1


def test_sixteen_bit_grey_with_alpha() -> None:
    values = np.dstack([DEEP[..., :1], OPAQUE])
    assert np.abs(read_image(sixteen_bit_png(values, 4))[..., 1] - DEEP[..., 0] / 257).max() < 1


@pytest.mark.parametrize(("most", "step"), [(255, 1), (65535, 257)])
def test_grey_in_32_bits_has_8_or_16(most: int, step: int) -> None:
    values = np.linspace(0, most, 40 * 36).reshape(36, 40).astype(np.int32)
    image = read_image(encode(Image.fromarray(values), "TIFF"))
    assert np.abs(image[..., 0] - values / step).max() < 1


def test_the_sixteen_bit_tiff_that_pillow_reads_wrongly_is_refused() -> None:
    with pytest.raises(InputError, match="separate planes"):
        read_image(sixteen_bit_tiff(DEEP, planes=True))


def tagged(data: bytes, tag: int, old: int, new: int) -> bytes:
    """A TIFF with another value of a tag that holds one short."""
    entry = struct.pack("<HHIHH", tag, 3, 1, old, 0)
    assert data.count(entry) == 1
    return data.replace(entry, struct.pack("<HHIHH", tag, 3, 1, new, 0))


def test_other_tiffs_that_pillow_reads_wrongly_are_refused() -> None:
    deep = encode(Image.fromarray(DEEP[..., 0]), "TIFF")
    assert read_image(deep).max() > 50
    with pytest.raises(InputError, match="has 12-bit grey values, which mien does not read"):
        read_image(tagged(deep, 258, 16, 12))
    with pytest.raises(InputError, match="16-bit grey values with 0 for white"):
        read_image(tagged(deep, 262, 1, 0))
    with pytest.raises(InputError, match="begins with a small preview of itself"):
        read_image(encode(SMALL, "TIFF", tiffinfo={254: 1}))


def test_the_depth_of_grey_is_one_for_all_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.full((36, 40), 60_000, np.int32)
    values[30:] = 200  # nearly black
    monkeypatch.setattr(mien.image, "STRIP", 40 * 6)
    image = read_image(encode(Image.fromarray(values), "TIFF"))
    assert image[:30].min() == image[:30].max() == 233
    assert image[30:].max() == 1


EIGHT_IN_SIXTEEN = np.arange(4 * 12, dtype=np.uint16).reshape(4, 12) * 5


@pytest.mark.parametrize(
    "data",
    [
        encode(Image.fromarray(EIGHT_IN_SIXTEEN)),
        encode(Image.fromarray(EIGHT_IN_SIXTEEN), "TIFF"),
        encode(Image.fromarray(EIGHT_IN_SIXTEEN.astype(">u2")), "TIFF"),
        b"P5 12 4 65535\n" + EIGHT_IN_SIXTEEN.astype(">u2").tobytes(),
    ],
    ids=["png", "tiff", "big-endian tiff", "pgm"],
)
def test_sixteen_bit_grey_that_holds_values_of_eight_is_not_black(data: bytes) -> None:
    assert np.array_equal(read_image(data)[..., 0], EIGHT_IN_SIXTEEN)


EIGHT_IN_COLOUR = np.dstack([EIGHT_IN_SIXTEEN] * 3)


@pytest.mark.parametrize(
    "data",
    [
        sixteen_bit_png(EIGHT_IN_COLOUR, 2),
        sixteen_bit_png(np.dstack([EIGHT_IN_COLOUR, OPAQUE]), 6),
        sixteen_bit_png(EIGHT_IN_COLOUR[..., :2], 4),
        sixteen_bit_tiff(EIGHT_IN_COLOUR),
        sixteen_bit_tiff(EIGHT_IN_COLOUR, compressed=True),
        b"P6 12 4 65535\n" + EIGHT_IN_COLOUR.astype(">u2").tobytes(),
    ],
    ids=["png", "png with alpha", "grey png with alpha", "tiff", "deflated tiff", "ppm"],
)
def test_sixteen_bit_colours_that_hold_values_of_eight_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="has 16-bit colours with 8-bit values, or is black; save it again with 8 bits"):
        read_image(data)


def test_a_transparent_value_of_sixteen_bit_grey_is_laid_on_white() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    data = encode(Image.fromarray(values), transparency=257)
    assert Image.open(io.BytesIO(data)).info["transparency"] == 257
    assert read_image(data)[0, :, 0].tolist() == [0, 255, 128, 255]


def test_a_kind_that_takes_more_memory_has_a_lower_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = SMALL.width * SMALL.height
    monkeypatch.setattr(mien.image, "MAX_BYTES", 10 * pixels)
    assert read_image(encode(SMALL)).shape == (SMALL.height, SMALL.width, 3)
    for kind, options in (
        ("WEBP", {}),
        ("WEBP", {"save_all": True, "append_images": [SMALL]}),
        ("JPEG", {"progressive": True}),
    ):
        with pytest.raises(
            InputError, match=f"megapixels mien reads of this kind of {kind}; make it smaller, or save it as PNG"
        ):
            read_image(encode(SMALL.copy(), kind, **options))


@pytest.mark.parametrize(("total", "together"), [(1, 1), (40_000_000, 5)])
def test_threads_share_a_budget_of_bytes(total: int, together: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.image, "_budget", Budget(total))  # 40 MB are five units, and a small picture takes one
    data, active, highest, lock = encode(SMALL), 0, 0, threading.Lock()

    def read(_: int) -> None:
        nonlocal active, highest
        with open_image(data):
            with lock:
                active += 1
                highest = max(highest, active)
            time.sleep(0.02)
            with lock:
                active -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(24)))
    assert highest == together


def test_a_picture_that_cannot_be_read_gives_its_bytes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.image, "_budget", Budget(1))
    for _ in range(3):
        with pytest.raises(InputError):
            read_image(encode(SMALL)[:-200])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_does_not_wait_for_threads_it_does_not_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.image, "_budget", Budget(1))
    with open_image(encode(SMALL)):  # as another thread might
        if not (child := os.fork()):
            signal.alarm(20)
            os._exit(0 if read_image(encode(SMALL)).size else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_too_little_memory_is_no_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*shape: object) -> None:
        raise MemoryError

    monkeypatch.setattr(mien.image.np, "empty", full)
    with pytest.raises(InputError, match="has 40x36 pixels, for which there is not enough memory; make it smaller"):
        read_image(REAL["png"])


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_kinds_of_tiff(mode: str, compression: str | None) -> None:
    image = read_image(encode(SMALL.convert(mode), "TIFF", compression=compression))
    expected = SMALL.convert(mode).convert("RGB")
    assert np.abs(image.astype(int) - np.asarray(expected)).mean() < 8


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_strips_are_put_together(orientation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    picture = SMALL.convert("RGBA")
    exif = picture.getexif()
    exif[0x0112] = orientation
    data = encode(picture, exif=exif)
    whole = read_image(data)
    monkeypatch.setattr(mien.image, "STRIP", 40 * 7)  # seven rows; the last strip has one
    np.testing.assert_array_equal(read_image(data), whole)


def heic(picture: Image.Image, **options: object) -> bytes:
    pytest.importorskip("pillow_heif").register_heif_opener()
    return encode(picture, "HEIF", **options)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
def test_heic(mode: str, tmp_path: Path) -> None:
    data = heic(SMALL.convert(mode), quality=95)
    (tmp_path / "a.jpg").write_bytes(data)  # the content counts, not the name
    for source in (data, tmp_path / "a.jpg"):
        image = read_image(source)
        assert image.shape == (36, 40, 3)
        assert np.abs(image.astype(int) - np.asarray(SMALL.convert(mode).convert("RGB"))).mean() < 8


def test_heic_is_turned_once() -> None:
    exif = SMALL.getexif()
    exif[0x0112] = 6
    image = read_image(heic(SMALL, quality=95, exif=exif.tobytes()))
    assert image.shape == (40, 36, 3)
    assert np.abs(image.astype(int) - np.rot90(np.asarray(SMALL), -1)).mean() < 8


def test_damaged_heic() -> None:
    data = heic(SMALL)
    for broken in (data[:-60], data[:100], data[:12], data[:200] + bytes(len(data) - 200)):
        with pytest.raises(InputError):
            read_image(broken)


def test_heic_without_its_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(50))
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MissingExtraError, match=r"a\.heic: is HEIC; .*pip install 'mien\[heic\]'"):
        read_image(tmp_path / "a.heic")


def test_avif_needs_no_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert read_image(encode(SMALL, "AVIF")).shape == (36, 40, 3)


@pytest.mark.parametrize("kind", REAL)
def test_is_picture(kind: str) -> None:
    stream = io.BytesIO(REAL[kind])
    assert is_picture(stream)
    assert stream.tell() == 0
    assert not is_picture(io.BytesIO(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + bytes(50)))
    assert not is_picture(io.BytesIO())


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    for kind in ("PNG", "TIFF"):
        assert read_image(encode(Image.fromarray(values), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_other_modes() -> None:
    assert read_image(Image.new("1", (2, 2), 1)).tolist() == [[[255] * 3] * 2] * 2
    assert read_image(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG"))[4, 4].tolist() == pytest.approx(
        [255, 0, 0], abs=4
    )
    assert read_image(Image.new("HSV", (1, 1), (0, 255, 255))).tolist() == [[[255, 0, 0]]]
    with pytest.raises(InputError, match="floating-point values"):
        read_image(Image.new("F", (2, 2)))
    with pytest.raises(InputError, match="outside 16 bits"):
        read_image(Image.new("I", (2, 2), 70_000))


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_an_animation(kind: str) -> None:
    first, second = Image.new("RGB", (8, 8), (255, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 255))
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(first, kind, save_all=True, append_images=[second], **options)
    assert read_image(data)[4, 4].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 2, 3)),
        np.zeros((2, 2, 4), np.uint8),
        np.zeros((0, 2, 3), np.uint8),
        np.zeros(4, np.uint8),
        np.zeros((1, 2, 2, 3), np.uint8),
    ],
)
def test_wrong_arrays_are_refused(array: NDArray[np.uint8]) -> None:
    with pytest.raises(InputError, match=r"uint8 array of shape \(H, W\) or \(H, W, 3\)"):
        read_image(array)
    with pytest.raises(InputError, match=r"^picture 3 must be a uint8 array"):
        read_image(array, "picture 3")


SHADES = np.arange(0, 240, dtype=np.uint8).reshape(8, 10, 3)


@pytest.mark.parametrize(
    "array",
    [
        SHADES.transpose(2, 0, 1),
        SHADES / 255,
        SHADES.astype(np.float32),
        SHADES.transpose(2, 0, 1) / 255,
        SHADES.transpose(2, 0, 1).astype(np.float64),
        SHADES.astype(np.int64),
        SHADES.astype(np.uint16) * 257,
        SHADES * 257.0,
        np.dstack([SHADES, np.full((8, 10), 255, np.uint8)]),
        np.dstack([SHADES, np.ones((8, 10))]).transpose(2, 0, 1),
    ],
    ids=lambda array: f"{array.dtype}-{array.shape}-{array.max():g}",
)
def test_the_advice_makes_an_array_a_picture(array: NDArray[Any]) -> None:
    with pytest.raises(InputError) as caught:
        read_image(array)
    advice = re.search(r"convert it with (.+)$", str(caught.value))
    assert advice is not None
    made = eval(advice[1], {"image": array})
    np.testing.assert_array_equal(read_image(made), SHADES)


def test_the_advice_for_one_channel_and_for_bits() -> None:
    assert conversion(SHADES[..., :1], "crop") == "convert it with crop[..., 0]"
    assert conversion(SHADES[:, :, :2].astype(bool), "crop") == "convert it with (crop[..., 0] * 255).astype('uint8')"


@pytest.mark.parametrize("values", [(-2.1, 2.6), (0.0, np.nan), (0.0, 1e6)])
def test_values_that_no_rule_converts_are_named(values: tuple[float, float]) -> None:
    array = np.zeros((8, 10, 3))
    array[0, 0, :2] = values
    with pytest.raises(InputError, match="its values must range from 0 to 255; undo any normalisation first"):
        read_image(array)  # type: ignore[arg-type]


def test_wrong_types_are_refused() -> None:
    for source in (None, 3, [1, 2]):
        with pytest.raises(InputError, match="give a path, bytes"):
            read_image(source)  # type: ignore[arg-type]


def test_errors_say_the_file_and_what_to_do(tmp_path: Path) -> None:
    def error(path: Path, data: bytes | None = None) -> str:
        if data is not None:
            path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_image(path)
        text = str(caught.value)
        assert path.name in text
        assert "\n" not in text
        return text

    assert "no such file" in error(tmp_path / "missing.png")
    assert "is a folder" in error(tmp_path)
    assert "empty" in error(tmp_path / "empty.jpg", b"")
    assert "not a picture" in error(tmp_path / "notes.jpg", b"these are notes")
    assert "truncated" in error(tmp_path / "half.jpg", REAL["jpeg"][:-200])
    assert "truncated" in error(tmp_path / "half.png", REAL["png"][:-800])
    assert "is corrupt or truncated" in error(tmp_path / "start.jpg", REAL["jpeg"][:22])
    assert "is corrupt or truncated" in error(tmp_path / "start.png", REAL["png"][:30])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes in the file system")
def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="not a regular file"):
        read_image(tmp_path / "pipe")


@pytest.mark.parametrize("path", ["a\0b.png", "x" * 5000])
def test_impossible_paths(path: str) -> None:
    with pytest.raises(InputError, match=r"^\S.*(cannot be read|no such file)"):
        read_image(path)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(REAL["png"])

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # a mode would not stop root
    with pytest.raises(InputError, match="no permission"):
        read_image(path)


@pytest.mark.parametrize("side", [10_001, 14_000, 20_000, 60_000])
def test_too_large_is_refused_before_decoding(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ihdr = side.to_bytes(4, "big") * 2
    data = bytearray(encode(Image.new("1", (8, 8))))
    data[16:24] = ihdr
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    monkeypatch.setattr(mien.image, "_rgb", lambda picture: pytest.fail("decoded"))
    assert side * side > MAX_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match="megapixels"):
            read_image(bytes(data))


def test_the_limit_itself_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.image, "MAX_PIXELS", 36 * 40)
    assert read_image(REAL["png"]).shape == (36, 40, 3)
    monkeypatch.setattr(mien.image, "MAX_PIXELS", 36 * 40 - 1)
    with pytest.raises(InputError, match="40x36 pixels"):
        read_image(REAL["png"])


def test_the_source_is_not_changed_and_not_shared() -> None:
    picture = SMALL.copy()
    image = read_image(picture)
    image[:] = 0
    np.testing.assert_array_equal(np.asarray(picture), np.asarray(SMALL))


def readable_or_refused(data: bytes) -> None:
    try:
        image = read_image(data)
    except InputError as error:
        lines = str(error).splitlines()
    else:
        lines = ["picture"]
        assert image.dtype == np.uint8
        assert image.ndim == 3
    assert len(lines) == 1


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_never_leak_another_error(data: bytes) -> None:
    readable_or_refused(data)


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\x00", b"BM", b"P6\n", b"RIFF....WEBP"]),
    st.binary(max_size=200),
)
def test_random_bytes_behind_a_signature(signature: bytes, data: bytes) -> None:
    readable_or_refused(signature + data)


@settings(max_examples=250, deadline=None)
@given(
    st.sampled_from(sorted(REAL)),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=12),
    st.integers(0, 10_000),
)
def test_mutated_pictures_never_leak_another_error(kind: str, changes: list[tuple[int, int]], length: int) -> None:
    data = bytearray(REAL[kind])
    for position, value in changes:
        data[position % len(data)] = value
    readable_or_refused(bytes(data[: max(1, length)]))
