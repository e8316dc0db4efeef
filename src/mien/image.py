"""Read a picture from a path, bytes, a Pillow image or an array as RGB uint8 (H, W, 3).

Pictures are rotated according to their EXIF data, transparent areas become white, 16 bits are scaled to 8, and only the first
frame of an animation is read. HEIC and HEIF need pillow-heif (the extra `heic`).
"""

from __future__ import annotations

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mien.errors import InputError, MissingExtraError, reason, require

MAX_PIXELS = 100_000_000
"""Pixels of the largest picture that is decoded; the size is known before any pixel is decoded."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF")
"""Formats that are read. Pillow knows more, but some of those run other programs or read other files."""

ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm",
     ".pnm", ".avif", ".heic", ".heif", ".hif")
)  # fmt: skip
"""Suffixes of pictures, lower case."""

HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
"""Brands that the first box of a HEIC or HEIF file can name."""

STRIP = 4_000_000
"""Pixels converted at a time, so that memory holds a large picture at most twice."""

_FILTERS = threading.Lock()


def _renew_lock() -> None:
    global _FILTERS
    _FILTERS = threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that held the lock at a fork does not exist in the child, and never releases it
    os.register_at_fork(after_in_child=_renew_lock)

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]


def read_image(source: ImageSource, name: str | None = None) -> NDArray[np.uint8]:
    """Return a picture as RGB, uint8 (H, W, 3), range 0-255.

    >>> read_image(np.zeros((2, 4), np.uint8)).shape
    (2, 4, 3)

    Args:
        source: A file's path, a file's bytes, a Pillow image, or an array, uint8, RGB (H, W, 3) or grey (H, W).
            An RGB array is returned as it is, without a copy.
        name: Name of a picture in memory, for error messages.

    Raises:
        InputError: It is missing, not a picture, corrupt, too large or of the wrong type.
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
            + conversion(array, "image")
        )
    return np.ascontiguousarray(array if array.ndim == 3 else array[..., None].repeat(3, axis=2))


def conversion(array: NDArray[Any], name: str) -> str:
    """Return what to do with an array of another type or shape to get a picture, uint8 (H, W) or (H, W, 3).

    >>> conversion(np.full((3, 48, 48), 255.0), "crop")
    "convert it with crop.transpose(1, 2, 0).round().astype('uint8')"

    Args:
        array: The array; its values tell how floats and large integers are scaled.
        name: What to call it.
    """
    made = name
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array, made = array.transpose(1, 2, 0), f"{made}.transpose(1, 2, 0)"
    if array.ndim == 3 and array.shape[2] in (1, 2, 4):
        made += "[..., :3]" if array.shape[2] == 4 else "[..., 0]"
    elif array.ndim != 2 and array.shape[2:] != (3,):
        return f"give one picture at a time, for example {name}[0]"
    if not array.size:
        return "it has no pixels"
    kind, lowest, highest = array.dtype.kind, array.min(), array.max()
    if kind not in "buif" or not 0 <= lowest <= highest <= 65535:  # or NaN
        return "its values must range from 0 to 255; undo any normalisation first"
    if kind == "b" or (kind == "f" and highest <= 1):
        made = f"({made} * 255)"
    elif highest > 255:
        made = f"({made} / 257)"
    if kind == "f" or highest > 255:
        made += ".round()"
    return f"convert it with {made}" + ".astype('uint8')" * (array.dtype != np.uint8)


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
        raise InputError(f"{name!r}: cannot be read ({reason(error)}); check the path") from None


def is_picture(stream: BinaryIO) -> bool:
    """Return whether an open file begins like a picture that `read_image` reads; rewinds the file."""
    start = stream.read(64)
    stream.seek(0)
    if _is_heif(start):
        return True
    try:
        with _quiet(), Image.open(stream, formats=_formats()):
            return True
    except Image.DecompressionBombError:
        return True
    except Exception:  # Pillow raises anything on other files
        return False
    finally:
        stream.seek(0)


def _from_stream(stream: BinaryIO, name: str) -> NDArray[np.uint8]:
    start = stream.read(64)
    if not start:
        raise InputError(f"{name}: is empty (0 bytes); copy or download it again")
    stream.seek(0)
    formats = _formats()
    if _is_heif(start):
        try:
            require("pillow_heif", "heic").register_heif_opener()
        except MissingExtraError as error:
            raise MissingExtraError(f"{name}: is HEIC; {error}; or convert it to JPEG") from None
        formats = ["HEIF"]
    try:
        with _quiet():
            picture = Image.open(stream, formats=formats)
    except Image.DecompressionBombError:
        raise InputError(f"{name}: is larger than {MAX_PIXELS // 10**6} megapixels; make it smaller") from None
    except UnidentifiedImageError:
        raise InputError(
            f"{name}: is not a picture mien reads ({', '.join(_formats())}, HEIC); convert it to JPEG or PNG"
        ) from None
    except Exception as error:  # Pillow raises anything on corrupt files
        raise InputError(f"{name}: is corrupt ({reason(error)}); copy or download it again") from None
    with picture:
        return _decode(picture, name)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress Pillow's warnings; one thread at a time, because warning filters belong to the whole process."""
    with _FILTERS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _formats() -> list[str]:
    """Return those of `FORMATS` that the installed Pillow reads."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _is_heif(start: bytes) -> bool:
    """Return whether the first bytes are those of a HEIC or HEIF file; Pillow itself reads AVIF, which shares some brands."""
    length = int.from_bytes(start[:4], "big")
    brands = {start[i : i + 4] for i in range(8, min(length, len(start)), 4)}
    return start[4:8] == b"ftyp" and bool(brands & HEIF_BRANDS) and b"avif" not in brands


def _decode(picture: Image.Image, name: str) -> NDArray[np.uint8]:
    size = f"{picture.width}x{picture.height}"
    if picture.width * picture.height > MAX_PIXELS:
        raise InputError(
            f"{name}: has {size} pixels, more than the {MAX_PIXELS // 10**6} megapixels mien reads; make it smaller"
        )
    if not picture.width * picture.height:
        raise InputError(f"{name}: has no pixels ({size})")
    try:
        _check_planes(picture)
        picture.load()  # before the orientation is read, because Pillow rotates TIFF while it loads
        return _pixels(picture)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: has {size} pixels, for which there is not enough memory; make it smaller") from None
    except Exception as error:  # as above
        raise InputError(f"{name}: is corrupt or truncated ({reason(error)}); copy or download it again") from None


def _check_planes(picture: Image.Image) -> None:
    """Refuse the kinds of TIFF that Pillow silently reads wrongly or in part."""
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(258, (8,))
    if tags.get(284) == 2 and max(bits) > 8 and tags.get(259, 1) == 1:
        raise InputError("stores its 16-bit colours in separate planes; save it again with interleaved or compressed colours")
    if bits == (12,) or (bits == (16,) and tags.get(262) == 0):
        kind = "12-bit grey values" if bits == (12,) else "16-bit grey values with 0 for white"
        raise InputError(f"has {kind}, which mien does not read; save it again with 8 bits")
    if tags.get(254, 0) & 1:  # "a reduced-resolution version of another image in this file"
        raise InputError("begins with a small preview of itself, like a camera's raw file; convert it to JPEG or PNG")


def _pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels as RGB, upright; they are converted one strip at a time to save memory."""
    try:
        with _quiet():
            orientation = int(picture.getexif().get(0x0112, 1))
    except Exception:  # a picture with corrupt metadata is still a picture
        orientation = 1
    width, height = picture.size
    upright = np.empty((width, height, 3) if 5 <= orientation <= 8 else (height, width, 3), np.uint8)
    swapped = upright.swapaxes(0, 1)
    views = {  # the upright picture in the file's order of pixels, by EXIF orientation (EXIF 2.3, table 8)
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: swapped,
        6: swapped[::-1],
        7: swapped[::-1, ::-1],
        8: swapped[:, ::-1],
    }
    stored = views.get(orientation, upright)
    rows = max(1, STRIP // width)
    deep = picture.mode.startswith("I") and (picture.mode != "I" or picture.getextrema()[1] > 255)  # type: ignore[operator]
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        stored[top:bottom] = np.asarray(_rgb(picture.crop((0, top, width, bottom)), deep))
    return upright


def _rgb(picture: Image.Image, deep: bool) -> Image.Image:
    """Return a picture of any mode as RGB, white where it is transparent; `deep` says that grey values have 16 bits."""
    if picture.mode.startswith("I"):
        values = np.asarray(picture).astype(np.int64)
        values[values == picture.info.get("transparency", -1)] = 65535 if deep else 255  # white
        if values.min() < 0 or values.max() > 65535:
            raise InputError("has values outside 16 bits; scale it to 8 bits and save it again")
        picture = Image.fromarray(((values + 128) // 257 if deep else values).astype(np.uint8))
    if picture.mode == "F":
        raise InputError("has floating-point values; scale it to 8 bits and save it again")
    if picture.has_transparency_data:
        top = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", top.size, "white"), top).convert("RGB")
    return picture.convert("RGB")
