"""Preprocessing of face crops for a network, its facts (`PreprocessSpec`) and its only implementation.

Evaluation, prediction and export all call `preprocess`. Training augments first, but its inputs end in the same range
(`mien.augment.Normalize`). The spec is stored in the checkpoint and in the ONNX file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.errors import CheckpointError, InputError
from mien.image import conversion

MAX_SIDE = 2048
"""Largest height or width of an input, px; the largest networks in use take about 1000."""

_RANGES = {
    "mean": (0, 1),
    "std": (1e-3, 100),
    "crop_scale": (0.1, 10),
    "crop_shift": (-1, 1),
    "min_contrast": (0, 0.3),
    "smooth": (0, 0.7),
}
"""Smallest and largest value of each number in a `PreprocessSpec`."""


@dataclass(frozen=True, slots=True)
class PreprocessSpec:
    """How a face crop becomes a network's input.

    Attributes:
        size: Height and width of the input, px.
        channels: 1 (grey, ITU-R 601 luma) or 3 (RGB; a grey crop is repeated).
        mean: Mean subtracted from each channel, on the scale [0, 1].
        std: Standard deviation each channel is divided by, on the scale [0, 1].
        crop_scale: Side of the square crop cut around a detected face, as a multiple of the longer side of its box.
        crop_shift: Downward shift of the crop's centre from the box's, as a fraction of that same longer side.
        min_contrast: Least contrast of the resized crop: the standard deviation of its values, on the scale [0, 1]. The values
            of a dark or pale crop, which has less, are spread around mid-grey until it has this much. 0 changes nothing.
            It is not applied to training images.
        smooth: Standard deviation of the three-tap blur of the resized crop, px of the input, 0 to 0.7. Augmentation
            blurs training images slightly; this gives other images the same blur. It is not applied to training images.

    Raises:
        CheckpointError: A value has another type or is out of range; names the field.
    """

    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_scale: float = 1.0
    crop_shift: float = 0.0
    min_contrast: float = 0.0
    smooth: float = 0.0

    def __post_init__(self) -> None:
        if (
            not isinstance(self.size, tuple)
            or len(self.size) != 2
            or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in self.size)
        ):
            raise CheckpointError(f"preprocess.size must be a height and a width, 1 to {MAX_SIDE} px, got {self.size!r}")
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise CheckpointError(f"preprocess.channels must be 1 or 3, got {self.channels!r}")
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            per_channel = name in ("mean", "std")
            numbers = value if per_channel else (value,)
            if (
                not isinstance(numbers, tuple)
                or len(numbers) != (self.channels if per_channel else 1)
                or not all(isinstance(number, Real) and not isinstance(number, bool) for number in numbers)
                or not all(low <= number <= high for number in numbers)  # also refuses nan
            ):
                what = f"{self.channels} number(s)" if per_channel else "a number"
                raise CheckpointError(f"preprocess.{name} must be {what} from {low} to {high}, got {value!r}")

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> PreprocessSpec:
        """Return the spec that `to_dict` wrote.

        Raises:
            CheckpointError: A field is missing or unknown.
        """
        try:
            fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(**fields)
        except (AttributeError, TypeError) as error:
            raise CheckpointError(
                f"cannot read the preprocessing of this model ({error}); export it again with mien export"
            ) from None


def check_crops(crops: Sequence[NDArray[np.uint8]]) -> None:
    """Check that every crop is uint8 (H, W) or (H, W, 3).

    Raises:
        InputError: A crop is not uint8, is empty or has another shape (names its index), or the argument is a single crop.
    """
    if isinstance(crops, np.ndarray) and (crops.ndim < 3 or (crops.ndim == 3 and crops.shape[2] in (1, 3, 4))):
        raise InputError(f"crops must be a list, got one array of shape {crops.shape}; for one crop give [crop]")
    for i, crop in enumerate(crops):
        if not isinstance(crop, np.ndarray):
            raise InputError(f"crop {i} must be a uint8 array, got {type(crop).__name__}; mien.read_image gives one")
        if crop.dtype != np.uint8 or crop.ndim not in (2, 3) or crop.size == 0 or (crop.ndim == 3 and crop.shape[2] != 3):
            raise InputError(
                f"crop {i} must be uint8 of shape (H, W) or (H, W, 3), got {crop.dtype} {crop.shape}; "
                + conversion(crop, "crop")
            )


def preprocess(crops: Sequence[NDArray[np.uint8]], spec: PreprocessSpec) -> NDArray[np.float32]:
    """Return face crops as a network's input, float32 (N, C, h, w).

    Each crop is converted to the spec's channels, resized with Pillow's antialiased bilinear filter, given the least contrast,
    scaled to [0, 1], normalised and smoothed. Crops may differ in size.

    Args:
        crops: Face crops, uint8, grey (H, W) or RGB (H, W, 3), range 0-255.
        spec: The network's preprocessing.

    Raises:
        InputError: A crop is not uint8, is empty or has another shape.

    >>> spec = PreprocessSpec(size=(40, 40), channels=1, mean=(0.5,), std=(0.25,))
    >>> preprocess([np.full((48, 48), 255, np.uint8)], spec).shape
    (1, 1, 40, 40)
    """
    check_crops(crops)
    values = np.empty((len(crops), spec.channels, *spec.size), np.float32)
    scale = (1.0 / (255.0 * np.asarray(spec.std))).astype(np.float32)
    offset = (np.asarray(spec.mean) / np.asarray(spec.std)).astype(np.float32)
    for value, crop in zip(values, crops, strict=True):
        pixels = _resize(crop, spec)
        if spec.min_contrast:
            pixels = _with_contrast(pixels, spec.min_contrast)
        value[:] = (pixels * scale - offset).transpose(2, 0, 1)
    return _smooth(values, spec.smooth) if spec.smooth else values


def _with_contrast(pixels: NDArray[Any], least: float) -> NDArray[Any]:
    """Return a crop (h, w, C), 0 to 255, with at least that standard deviation of its values, as a share of 255.

    The mean moves towards mid-grey by as much of the way as the contrast lacks. A blank crop stays blank.
    """
    contrast = float(pixels.std()) / 255
    if contrast >= least or contrast == 0:
        return pixels
    share, mean = contrast / least, float(pixels.mean())
    spread = (pixels - mean) / share + share * mean + (1 - share) * 127.5
    return spread.clip(0, 255).astype(np.float32)


def _smooth(values: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return images (N, C, h, w) blurred along rows and columns by (v/2, 1 - v, v/2), whose variance is v = sigma^2.

    The border repeats the outermost pixels.
    """
    share = np.float32(sigma**2 / 2)
    for axis in (2, 3):
        shared, values = share * values, (1 - 2 * share) * values
        lines, neighbours = np.moveaxis(values, axis, 0), np.moveaxis(shared, axis, 0)  # views
        lines[1:] += neighbours[:-1]
        lines[:-1] += neighbours[1:]
        lines[0] += neighbours[0]
        lines[-1] += neighbours[-1]
    return values


def _resize(crop: NDArray[np.uint8], spec: PreprocessSpec) -> NDArray[Any]:
    """Return a crop in the spec's channels and size, (h, w, C)."""
    height, width = spec.size
    picture = Image.fromarray(crop).convert("L" if spec.channels == 1 else "RGB")
    if picture.size != (width, height):
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(picture).reshape(height, width, spec.channels)
