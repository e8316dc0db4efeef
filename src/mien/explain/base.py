"""What all methods share: their registry, what they return, and how a map of the network's input gets into the photo."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.calibration import calibrated_probs
from mien.errors import InputError
from mien.registry import Registry
from mien.structures import Prediction

if TYPE_CHECKING:
    from mien.predict.backend import Backend

BATCH = 64
"""Images per run of the network."""


@dataclass(frozen=True, slots=True, eq=False)
class Maps:
    """What a method returns for a batch of N images.

    Attributes:
        maps: By name, float (N, h, w), of any range and any resolution; they cover the whole input.
        channels: Weight of each channel, for attention that has no positions: by name, (N, C).
        boxes: Corners of the window that a spatial transformer samples, as fractions of the input, (N, 4, 2); or None.
    """

    maps: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    channels: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    boxes: NDArray[np.float64] | None = None


METHODS: Registry[Maps] = Registry("explanation method")
"""Each is called as `method(backend, batch, target, seed)`: the loaded network, its inputs float32 (N, C, h, w), the class to
explain for each, int (N,), and the seed of its random numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Explanation:
    """Where a network looked in one face.

    Attributes:
        prediction: What it answered.
        target: The class that is explained.
        crop_maps: By name, float32 (h, w) in [0, 1] over the network's input. 0 is the map's smallest value and 1 its largest;
            a map with a single value is 0 everywhere.
        ranges: Smallest and largest value of each map before it was scaled to [0, 1].
        channels: Weight of each channel, for attention without positions: by name, float32 (C,).
        matrix: Affine map from px of the picture to fractions of the crop's sides, (2, 3).
        size: Height and width of the picture, px.
        box: Corners of the window that a spatial transformer sampled, px of the picture, (4, 2); None without one.
        inputs: What the network saw, float32 (C, h, w), preprocessed.
    """

    prediction: Prediction
    target: str
    crop_maps: dict[str, NDArray[np.float32]]
    ranges: dict[str, tuple[float, float]]
    channels: dict[str, NDArray[np.float32]]
    matrix: NDArray[np.float64]
    size: tuple[int, int]
    box: NDArray[np.float64] | None
    inputs: NDArray[np.float32]

    def to_dict(self) -> dict[str, Any]:
        """Return the answer, the range of each map, channel weights and window as JSON types."""
        return {
            "prediction": self.prediction.to_dict(),
            "explained": self.target,
            "maps": {name: {"range": list(self.ranges[name])} for name in self.crop_maps},
            "channels": {name: [round(float(value), 4) for value in values] for name, values in self.channels.items()},
            "box": None if self.box is None else self.box.round(2).tolist(),
        }

    @property
    def maps(self) -> dict[str, NDArray[np.float32]]:
        """The maps in the frame of the picture, float32 (H, W) in [0, 1]; 0 outside the crop."""
        return {name: project(values, self.matrix, self.size) for name, values in self.crop_maps.items()}


def project(values: NDArray[np.float32], matrix: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return a map of a crop in the frame of a picture, float32 (H, W); 0 outside the crop.

    Args:
        values: The map, (h, w), which covers the whole crop.
        matrix: Affine map from px of the picture to fractions of the crop's sides, (2, 3).
        size: Height and width of the picture, px.
    """
    height, width = values.shape
    data = (matrix * [[width], [height]]).ravel().tolist()
    placed = Image.fromarray(values).transform(size[::-1], Image.Transform.AFFINE, data, Image.Resampling.BILINEAR)
    return np.clip(np.asarray(placed), 0, 1)


def stretch(values: NDArray[Any], size: tuple[int, int]) -> tuple[NDArray[np.float32], tuple[float, float]]:
    """Return a map resized to a height and width and scaled to [0, 1], and its smallest and largest value before."""
    low, high = float(values.min()), float(values.max())
    resized = np.asarray(Image.fromarray(values.astype(np.float32)).resize(size[::-1], Image.Resampling.BILINEAR))
    if high - low <= 1e-6 * max(abs(low), abs(high)):  # rounding, not information
        return np.zeros(size, np.float32), (low, high)
    return np.clip((resized - low) / (high - low), 0, 1), (low, high)


def target_probs(backend: Backend, batch: NDArray[np.float32], target: int) -> NDArray[np.float64]:
    """Return the calibrated probability of one class for each input, (N,)."""
    logits = [backend.logits(batch[i : i + BATCH]) for i in range(0, len(batch), BATCH)]
    return calibrated_probs(np.concatenate(logits), backend.info.calibration)[:, target].astype(np.float64)


def require_network(backend: Backend, method: str) -> Any:
    """Return the torch network of a backend.

    Raises:
        InputError: It is an exported network, which has neither gradients nor layers to look into.
    """
    model = getattr(backend, "model", None)
    if model is None:
        raise InputError(
            f"{method} looks inside the network, which an exported .onnx model does not allow; choose the method occlusion or "
            "rise, or give the checkpoint or run that the model was exported from"
        )
    return model
