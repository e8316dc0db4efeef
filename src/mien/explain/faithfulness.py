"""Whether a map is faithful, by number: deletion and insertion curves, with random maps as control.

Paper: Petsiuk et al. 2018 (RISE), section 4.2. Deletion replaces the pixels by the face's mean, the map's highest first. If
the map is right, the class's probability drops soon, and the area under the curve is small. Insertion starts from a face
reduced to 4x4 values and puts the pixels back, the highest first: the area is large. A random map has smooth spots like RISE's
masks. Single random pixels would be no fair control, because a face is soon visible through them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mien.explain.base import Explanation, target_probs
from mien.explain.rise import smooth_masks

if TYPE_CHECKING:
    from mien.predict.backend import Backend

STEPS = 20
"""Steps of a curve."""

BLUR = 4
"""Side of the blurred face from which insertion starts, values."""

CONTROLS = 5
"""Random maps whose mean is the control of one face."""

CONTROL = "random maps"
"""Name of the control next to the maps of a face."""


@dataclass(frozen=True, slots=True)
class Faithfulness:
    """Areas under the curves of a map, 0 to 1.

    Attributes:
        deletion: Area under the deletion curve; lower is better.
        insertion: Area under the insertion curve; higher is better.
    """

    deletion: float
    insertion: float


def measure_faithfulness(
    backend: Backend, inputs: NDArray[np.float32], values: NDArray[np.float32], target: int, seed: int = 0
) -> Faithfulness:
    """Return the areas under the deletion and insertion curves of one map.

    Args:
        backend: The network.
        inputs: What it saw, float32 (C, h, w).
        values: The map, (h, w). Equal values are ordered at random.
        target: Index of the explained class.
        seed: Seed of that order.
    """
    height, width = inputs.shape[1:]
    ties = np.random.default_rng(seed).permutation(values.size)
    order = np.lexsort((ties, -values.ravel()))
    rank = np.empty(values.size, np.int64)
    rank[order] = np.arange(values.size)
    limits = np.linspace(0, values.size, STEPS + 1).round()
    first = (rank[None] < limits[:, None]).reshape(-1, 1, height, width)  # the pixels changed at each step
    mean = inputs.mean((1, 2), keepdims=True)
    blurred = np.stack([_blur(channel) for channel in inputs])
    changed = np.concatenate([np.where(first, mean, inputs), np.where(first, inputs, blurred)]).astype(np.float32)
    probs = target_probs(backend, changed, target)
    curves = probs.reshape(2, STEPS + 1)
    deletion, insertion = (curves.sum(1) - curves[:, [0, -1]].mean(1)) / STEPS  # trapezoids
    return Faithfulness(float(deletion), float(insertion))


def random_faithfulness(backend: Backend, inputs: NDArray[np.float32], target: int, seed: int = 0) -> Faithfulness:
    """Return the mean areas of `CONTROLS` random maps, the control for every map of this face."""
    random = np.random.default_rng(seed)
    maps = [smooth_masks(random, 4, inputs.shape[1:]).mean(0) for _ in range(CONTROLS)]
    found = [measure_faithfulness(backend, inputs, values, target, seed + i) for i, values in enumerate(maps)]
    return Faithfulness(float(np.mean([each.deletion for each in found])), float(np.mean([each.insertion for each in found])))


def score_maps(backend: Backend, explanation: Explanation, seed: int = 0) -> dict[str, Faithfulness]:
    """Return how faithful each map of a face is, by name; the last entry, `CONTROL`, is that of random maps."""
    index = backend.info.classes.index(explanation.target)
    inputs = explanation.inputs
    scores = {
        name: measure_faithfulness(backend, inputs, values, index, seed) for name, values in explanation.crop_maps.items()
    }
    return scores | {CONTROL: random_faithfulness(backend, inputs, index, seed)}


def compare_scores(scores: Sequence[Mapping[str, Faithfulness]]) -> dict[str, Any]:
    """Return, for each map and curve, the mean areas of the map and of random maps over all faces, as JSON types.

    Args:
        scores: What `score_maps` returned for each face.

    Returns:
        By map and curve: `mean`, `random`, their `difference`, and its 95 % `interval`.
    """
    found: dict[str, Any] = {}
    for name in [name for name in (scores[0] if scores else ()) if name != CONTROL]:
        for curve in ("deletion", "insertion"):
            ours, random = (np.array([getattr(face[key], curve) for face in scores]) for key in (name, CONTROL))
            difference = ours - random
            mean = float(difference.mean())
            half = float(1.96 * difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
            found.setdefault(name, {})[curve] = {
                "mean": float(ours.mean()),
                "random": float(random.mean()),
                "difference": mean,
                "interval": [mean - half, mean + half],
            }
    return found


def _blur(channel: NDArray[np.float32]) -> NDArray[np.float32]:
    picture = Image.fromarray(channel)
    small = picture.resize((BLUR, BLUR), Image.Resampling.BOX)
    return np.asarray(small.resize(picture.size, Image.Resampling.BICUBIC))
