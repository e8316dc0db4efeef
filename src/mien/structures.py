"""What recognition returns: `Face` (where) and `Prediction` (what), frozen, checked, numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def _array(values: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.float32]:
    array = np.array(values, dtype=np.float32)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite and of shape {shape}, got {array.tolist()}")
    array.flags.writeable = False
    return array


@dataclass(frozen=True, slots=True, eq=False)
class Face:
    """A face found in an image.

    Attributes:
        box_xyxy: Left, top, right, bottom in px of the image, float32 (4,); may reach outside the image.
        score: The detector's confidence, 0 to 1.
        landmarks: Eye, eye, nose, mouth corner, mouth corner in px of the image, float32 (5, 2), left of the image first; None
            where the detector gives none.
    """

    box_xyxy: NDArray[np.float32]
    score: float
    landmarks: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        box = _array(self.box_xyxy, (4,), "box_xyxy")
        if box[2] <= box[0] or box[3] <= box[1]:
            raise ValueError(f"box_xyxy must have a positive width and height, got {box.tolist()}")
        object.__setattr__(self, "box_xyxy", box)
        object.__setattr__(self, "score", float(self.score))
        if self.landmarks is not None:
            object.__setattr__(self, "landmarks", _array(self.landmarks, (5, 2), "landmarks"))

    def to_dict(self) -> dict[str, Any]:
        """Return the face as plain JSON types."""
        landmarks = None if self.landmarks is None else np.round(self.landmarks.astype(float), 2).tolist()
        return {"box_xyxy": np.round(self.box_xyxy.astype(float), 2).tolist(), "score": self.score, "landmarks": landmarks}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Face:
        """Return the face that `to_dict` wrote."""
        return cls(values["box_xyxy"], values["score"], values.get("landmarks"))


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The expression recognised in one face.

    Attributes:
        classes: The model's classes, by index.
        probs: Probability of each class, float32 (K,), sums to 1.
        face: Where the face is; None for a ready crop.
        source: The file or name the face came from; None if it came from memory.
    """

    classes: tuple[str, ...]
    probs: NDArray[np.float32]
    face: Face | None = None
    source: str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", tuple(self.classes))
        probs = _array(self.probs, (len(self.classes),), "probs")
        if abs(float(probs.sum()) - 1) > 1e-3 or probs.min() < 0:
            raise ValueError(f"probs must be probabilities that sum to 1, got {probs.tolist()}")
        object.__setattr__(self, "probs", probs)

    @property
    def label(self) -> str:
        """The most probable expression."""
        return self.classes[int(self.probs.argmax())]

    @property
    def confidence(self) -> float:
        """Probability of `label`."""
        return float(self.probs.max())

    def to_dict(self) -> dict[str, Any]:
        """Return the prediction as plain JSON types."""
        return {
            "source": self.source,
            "face": None if self.face is None else self.face.to_dict(),
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "probs": {name: round(float(p), 6) for name, p in zip(self.classes, self.probs, strict=True)},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Prediction:
        """Return the prediction that `to_dict` wrote."""
        face = values.get("face")
        probs = np.array(list(values["probs"].values()), np.float32)
        return cls(tuple(values["probs"]), probs, None if face is None else Face.from_dict(face), values.get("source"))
