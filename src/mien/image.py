"""Read a picture from a path, bytes, a Pillow image or an array as RGB uint8 (H, W, 3).

Pictures are rotated according to their EXIF data, transparent areas become white, 16 bits are scaled to 8, and only the first
frame of an animation is read. HEIC and HEIF need pillow-heif (the extra `heic`).

A few kilobytes can unpack to a gigabyte. The header says how much a picture will take, before any pixel is decoded: too much
for one picture is refused, and the threads of a process share one `Budget` for what they decode at the same time.
"""

from __future__ import annotations

import ctypes
import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mien.errors import InputError, MissingExtraError, reason, require

MAX_PIXELS = 100_000_000
"""Pixels of the largest picture that is decoded."""

MAX_BYTES = 900_000_000
"""Bytes that decoding one picture may take: 100 megapixels of JPEG or PNG, 52 of WebP."""

BYTES_PER_PIXEL = {"WEBP": 17, "AVIF": 13, "HEIF": 10}
"""Bytes that decoding takes for each pixel, as measured; 9 for other formats, 12 for a progressive JPEG."""

FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM", "AVIF")
"""Formats that are read. Pillow knows more, but some of those run other programs or read other files."""

SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n")
"""First bytes of JPEG and PNG files."""

ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".dib", ".ppm", ".pgm", ".pbm",
     ".pnm", ".avif", ".heic", ".heif", ".hif")
)  # fmt: skip
"""Suffixes of pictures, lower case."""

HEIF_BRANDS = frozenset((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"))
"""Brands that the first box of a HEIC or HEIF file can name."""

STRIP = 4_000_000
"""Pixels converted at a time, so that memory holds a large picture at most twice."""

BUDGET_BYTES = 768_000_000
"""Bytes that the pictures being decoded at the same time may take together. A picture that needs more is decoded alone."""

TRIM_BYTES = 100_000_000
"""A picture that took more to decode is followed by a tidying up, which takes a few milliseconds."""

_FILTERS = threading.Lock()


def _renew_lock() -> None:
    global _FILTERS
    _FILTERS = threading.Lock()


if hasattr(os, "register_at_fork"):  # a thread that held the lock at a fork does not exist in the child, and never releases it
    os.register_at_fork(after_in_child=_renew_lock)

ImageSource = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8]


class Budget:
    """Bytes that several threads or processes share: whoever needs some waits until they are free.

    Args:
        total: The bytes to share.
        context: A context of multiprocessing to share them between its processes, by passing the budget to each as it starts;
            None shares them between threads.
    """

    UNIT = 8_000_000
    """Bytes are counted in such steps."""

    def __init__(self, total: int, context: Any = None) -> None:
        self.units = max(1, total // self.UNIT)
        self._turn = (context or threading).Lock()  # one waits at a time, so that small pictures do not overtake a large one
        self._free = (context or threading).Semaphore(self.units)

    @contextmanager
    def hold(self, size: int) -> Iterator[None]:
        """Take so many bytes for a block, or all there are; never within another block of the same budget."""
        units, taken = min(self.units, -(-size // self.UNIT)), 0
        try:
            with self._turn:
                while taken < units:
                    self._free.acquire()
                    taken += 1
            yield
        finally:  # also of what Ctrl-C interrupted
            for _ in range(taken):
                self._free.release()


_budget = Budget(BUDGET_BYTES)


def share_budget(budget: Budget) -> None:
    """Use this budget for the pictures that this process decodes from now on."""
    global _budget
    _budget = budget


if hasattr(os, "register_at_fork"):  # another thread may hold a part of it, which would never be free in the child
    os.register_at_fork(after_in_child=lambda: share_budget(Budget(BUDGET_BYTES)))


def read_image(source: ImageSource, name: str | None = None, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Return a picture as RGB, uint8 (H, W, 3), range 0-255.

    >>> read_image(np.zeros((2, 4), np.uint8)).shape
    (2, 4, 3)

    Args:
        source: A file's path, a file's bytes, a Pillow image, or an array, uint8, RGB (H, W, 3) or grey (H, W).
            An RGB array is returned as it is, without a copy.
        name: Name of a picture in memory, for error messages.
        max_pixels: Refuse larger pictures, at most the default.

    Raises:
        InputError: It is missing, not a picture, corrupt, too large or of the wrong type.
        MissingExtraError: It is HEIC and pillow-heif is not installed.
    """
    with open_image(source, name, max_pixels) as pixels:
        return pixels


@contextmanager
def open_image(source: ImageSource, name: str | None = None, max_pixels: int = MAX_PIXELS) -> Iterator[NDArray[np.uint8]]:
    """Yield what `read_image` returns; the picture counts against the budget of this process until the block ends.

    For threads that make something smaller of each picture. A block must not open another picture.
    """
    with ExitStack() as held:
        if isinstance(source, np.ndarray):
            pixels = _from_array(source, name)
        elif isinstance(source, Image.Image):
            pixels = _decode(source, name or "this picture", held, max_pixels)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            pixels = _from_stream(io.BytesIO(source), name or "this picture (bytes)", held, max_pixels)
        elif isinstance(source, (str, os.PathLike)):
            pixels = _from_file(source, held, max_pixels)
        else:
            kind = type(source).__name__
            raise InputError(f"cannot read a picture from {kind}; give a path, bytes, a Pillow image or a uint8 array")
        yield pixels


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


def _from_file(path: str | os.PathLike[str], held: ExitStack, max_pixels: int) -> NDArray[np.uint8]:
    name = str(path)
    try:
        if Path(path).is_dir():
            raise InputError(f"{name}: is a folder; give a picture in it")
        if Path(path).exists() and not Path(path).is_file():
            raise InputError(f"{name}: is not a regular file; give a picture")
        with Path(path).open("rb") as stream:
            return _from_stream(stream, name, held, max_pixels)
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


def _from_stream(stream: BinaryIO, name: str, held: ExitStack, max_pixels: int) -> NDArray[np.uint8]:
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
        if start.startswith(SIGNATURES):  # cut or damaged in its header
            raise InputError(f"{name}: is corrupt or truncated; copy or download it again") from None
        raise InputError(
            f"{name}: is not a picture mien reads ({', '.join(_formats())}, HEIC); convert it to JPEG or PNG"
        ) from None
    except Exception as error:  # Pillow raises anything on corrupt files
        raise InputError(f"{name}: is corrupt ({reason(error)}); copy or download it again") from None
    with picture:
        return _decode(picture, name, held, max_pixels)


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


def _decode(picture: Image.Image, name: str, held: ExitStack, max_pixels: int) -> NDArray[np.uint8]:
    """Return the pixels of an opened picture; what they take of the budget is given back when `held` is closed."""
    size = f"{picture.width}x{picture.height}"
    if picture.width * picture.height > (most := min(max_pixels, MAX_PIXELS)):
        raise InputError(f"{name}: has {size} pixels, more than the {most / 10**6:g} megapixels that are read; make it smaller")
    if not picture.width * picture.height:
        raise InputError(f"{name}: has no pixels ({size})")
    if (cost := _decoding_cost(picture)) > MAX_BYTES:
        most = MAX_BYTES * picture.width * picture.height // cost // 10**6
        raise InputError(
            f"{name}: has {size} pixels, more than the {most} megapixels mien reads of this kind of {picture.format}; "
            "make it smaller, or save it as PNG"
        )
    held.enter_context(_budget.hold(cost))
    if cost > TRIM_BYTES:
        held.callback(_trim)
    try:
        _check_planes(picture)
        has_16_bit_colours = _has_16_bit_colours(picture)
        picture.load()  # before the orientation is read, because Pillow rotates TIFF while it loads
        if has_16_bit_colours and max(high for _, high in picture.getextrema()[:3]) <= 1:  # type: ignore[misc, index]
            raise InputError("has 16-bit colours with 8-bit values, or is black; save it again with 8 bits")
        return _pixels(picture)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    except MemoryError:
        raise InputError(f"{name}: has {size} pixels, for which there is not enough memory; make it smaller") from None
    except Exception as error:  # as above
        raise InputError(f"{name}: is corrupt or truncated ({reason(error)}); copy or download it again") from None


def _decoding_cost(picture: Image.Image) -> int:
    """Return about how many bytes it takes to decode a picture, from its header."""
    progressive = picture.info.get("progressive") or picture.info.get("progression")
    return picture.width * picture.height * BYTES_PER_PIXEL.get(picture.format or "", 12 if progressive else 9)


def _trim() -> None:
    """Return freed memory to the system. glibc would keep what Pillow freed, as much as a large picture for each thread."""
    with suppress(AttributeError, OSError, TypeError):  # other systems have no such function
        ctypes.CDLL(None).malloc_trim(0)


def _has_16_bit_colours(picture: Image.Image) -> bool:
    """Return whether a picture that is not loaded has colours of 16 bits, of which Pillow keeps the upper 8."""
    tiles = getattr(picture, "tile", None)
    if not tiles or not picture.mode.startswith("RGB"):
        return False
    mode, *more = tiles[0][3] if isinstance(tiles[0][3], tuple) else (tiles[0][3],)
    return ";16" in str(mode) or (picture.format == "PPM" and max([0, *more]) > 255)  # the highest value, of PPM's header


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
    deep = picture.mode.startswith("I") and int(np.asarray(picture).max()) > 255  # else 16 bits hold values of 8
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
