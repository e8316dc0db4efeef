"""Reading a picture: a path, bytes, a Pillow image or an array comes in, RGB uint8 (H, W, 3) comes out, or an `InputError`.

Turned as its EXIF says, transparency laid on white, 16 bits scaled to 8, the first frame of an animation. HEIC and HEIF are
read where pillow-heif is installed (the extra `heic`).
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mien.errors import InputError, MissingExtraError, require

MAX_PIXELS = 100_000_000
"""Pixels of the largest picture that is decoded; its size is read before any of its pixels."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF")
"""Formats that are read. Not all that Pillow knows: some of those run other programs or read other files."""

ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm",
     ".pnm", ".avif", ".heic", ".heif", ".hif")
)  # fmt: skip
"""What names of pictures end in, lower case; of an animated GIF, WebP or PNG the first frame is read."""

HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
"""Brands in the first box of a HEIC or HEIF file."""

STRIP = 4_000_000
"""Pixels converted at once, so that a large picture is held twice at most."""

_FILTERS = threading.Lock()

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]


def read_image(source: ImageSource, name: str | None = None) -> NDArray[np.uint8]:
    """Return a picture as RGB, uint8 (H, W, 3), range 0-255.

    >>> read_image(np.zeros((2, 4), np.uint8)).shape
    (2, 4, 3)

    Args:
        source: A file's path, a file's bytes, a Pillow image, or an array, uint8, RGB (H, W, 3) or grey (H, W).
            An RGB array comes back as it is, not copied.
        name: What errors call a picture in memory.

    Raises:
        InputError: It is missing, no picture, damaged, too large or of the wrong type; one line says which and what to do.
        MissingExtraError: It is HEIC and pillow-heif is not installed.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, name)
    if isinstance(source, Image.Image):
        return _decode(source, name or "this picture")
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_stream(io.BytesIO(source), name or "this picture (bytes)")
    if isinstance(source, (str, os.PathLike)):
        return _from_file(source)
    raise InputError(f"cannot read a picture from {type(source).__name__}; give a path, bytes, a Pillow image or a uint8 array")


def _from_array(array: NDArray[np.uint8], name: str | None) -> NDArray[np.uint8]:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.size == 0 or (array.ndim == 3 and array.shape[2] != 3):
        raise InputError(
            f"{name or 'a picture'} must be a uint8 array of shape (H, W) or (H, W, 3), got {array.dtype} {array.shape}; "
            "convert floats up to 1 with (image * 255).astype('uint8') and 16 bits with (image // 257).astype('uint8'); drop "
            "an alpha channel with image[..., :3]; take one channel with image[..., 0]"
        )
    return np.ascontiguousarray(array if array.ndim == 3 else array[..., None].repeat(3, axis=2))


def _from_file(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    name = str(path)
    try:
        if Path(path).is_dir():
            raise InputError(f"{name}: is a folder; give a picture in it")
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{name}: is not a regular file; give a picture")
        with Path(path).open("rb") as stream:
            return _from_stream(stream, name)
    except FileNotFoundError:
        raise InputError(f"{name}: no such file; check the path") from None
    except PermissionError:
        raise InputError(f"{name}: no permission to read it; check its owner and mode") from None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{name!r}: cannot be read ({_line(error)}); check the path") from None


def is_picture(stream: BinaryIO) -> bool:
    """Return whether an open file begins as a picture `read_image` reads; it is left at its start."""
    start = stream.read(64)
    stream.seek(0)
    if _is_heif(start):
        return True
    try:
        with _quiet(), Image.open(stream, formats=_formats()):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow's readers raise anything on what is no picture
        return False
    finally:
        stream.seek(0)


def _from_stream(stream: BinaryIO, name: str) -> NDArray[np.uint8]:
    """Return the picture in an open file."""
    start = stream.read(64)
    if not start:
        raise InputError(f"{name}: is empty (0 bytes); copy or download it again")
    stream.seek(0)
    formats = _heif_formats(name) if _is_heif(start) else _formats()
    try:
        with _quiet():
            picture = Image.open(stream, formats=formats)
    except Image.DecompressionBombError:
        raise InputError(f"{name}: is larger than {MAX_PIXELS // 10**6} megapixels; make it smaller") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name}: is not a picture mien reads ({', '.join(_formats())}, HEIC); convert it to JPEG or PNG"
        ) from None
    except Exception as error:  # Pillow's readers raise anything on damaged files
        raise InputError(f"{name}: is damaged ({_line(error)}); copy or download it again") from None
    with picture:
        return _decode(picture, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings in; one thread at a time, because the filters belong to the whole process."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _formats() -> list[str]:
    """Return the formats this Pillow reads, of ours."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _is_heif(start: bytes) -> bool:
    """Return whether a file that begins so is HEIC or HEIF; AVIF, which shares some brands, is Pillow's own."""
    length = int.from_bytes(start[:4], "big")
    brands = {start[i : i + 4] for i in range(8, min(length, len(start)), 4)}
    return start[4:8] == b"ftyp" and bool(brands & HEIF_BRANDS) and b"avif" not in brands


def _heif_formats(name: str) -> list[str]:
    """Return the one format, after teaching it to Pillow."""
    try:
        require("pillow_heif", "heic").register_heif_opener()
    except MissingExtraError as error:
        raise MissingExtraError(f"{name}: is HEIC; {error}; or convert it to JPEG") from None
    return ["HEIF"]


def _decode(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    """Return a Pillow image's pixels, upright, RGB."""
    size = f"{picture.width}x{picture.height}"
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"{name}: has {size} pixels, more than the {MAX_PIXELS // 10**6} megapixels mien reads; make it smaller"
        )
    if not picture.width * picture.height:
        raise InputError(f"{name}: has no pixels ({size})")
    try:
        _check_planes(picture)
        picture.load()  # before its orientation, because TIFF turns itself while it loads
        return _pixels(picture, _orientation(picture))
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: has {size} pixels, for which there is not enough memory; make it smaller") from None
    except Exception as error:  # as above
        raise InputError(f"{name}: is damaged or cut short ({_line(error)}); copy or download it again") from None


def _check_planes(picture: Image.Image) -> None:
    """Refuse the kinds of TIFF that Pillow reads wrongly, or in part, without a word."""
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(258, (8,))
    if tags.get(284) == 2 and max(bits) > 8 and tags.get(259, 1) == 1:
        raise InputError("keeps its 16-bit colours in separate planes; save it again with the colours together or compressed")
    if bits == (12,) or (bits == (16,) and tags.get(262) == 0):
        kind = "12-bit grey values" if bits == (12,) else "16-bit grey values with 0 for white"
        raise InputError(f"holds {kind}, which are not read; save it again with 8 bits")
    if tags.get(254, 0) & 1:  # "a reduced-resolution version of another image in this file"
        raise InputError("begins with a small preview of itself, as a camera's raw file does; convert it to JPEG or PNG")


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 if damaged or absent."""
    try:
        with _quiet():
            return int(picture.getexif().get(0x0112, 1))
    except Exception:  # a picture with damaged metadata is still a picture
        return 1


def _pixels(picture: Image.Image, orientation: int) -> NDArray[np.uint8]:
    """Return the pixels as RGB, upright; converted a strip at a time."""
    width, height = picture.size
    sides = (width, height) if orientation in (5, 6, 7, 8) else (height, width)
    upright = np.empty((*sides, 3), np.uint8)
    stored = _as_stored(upright, orientation)
    rows = max(1, STRIP // width)
    deep = picture.mode.startswith("I") and (picture.mode != "I" or picture.getextrema()[1] > 255)  # type: ignore[operator]
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        stored[top:bottom] = np.asarray(_rgb(picture.crop((0, top, width, bottom)), deep))
    return upright


def _as_stored(upright: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return a view of an upright picture in the order in which a camera held that way stores it (EXIF 2.3, table 8)."""
    turned = upright.swapaxes(0, 1)
    views = {
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }
    return views.get(orientation, upright)


def _rgb(picture: Image.Image, deep: bool) -> Image.Image:
    """Return a picture of any mode as RGB, laid on white where it is transparent; `deep`: its grey values have 16 bits."""
    if picture.mode.startswith("I"):
        picture = _eight_bits(picture, deep)
    if picture.mode == "F":
        raise InputError("holds floating-point values; scale it to 8 bits and save it again")
    if picture.has_transparency_data:
        top = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", top.size, "white"), top).convert("RGB")
    return picture.convert("RGB")


def _eight_bits(picture: Image.Image, deep: bool) -> Image.Image:
    """Return a grey picture of 16 bits, or of 8 in a mode that has place for more, in 8 bits."""
    values = np.asarray(picture).astype(np.int64)
    values[values == picture.info.get("transparency", -1)] = 65535 if deep else 255  # laid on white
    if values.min() < 0 or values.max() > 65535:
        raise InputError("holds values outside 16 bits; scale it to 8 bits and save it again")
    return Image.fromarray(((values + 128) // 257 if deep else values).astype(np.uint8))


def _line(error: BaseException) -> str:
    """Return an error's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
