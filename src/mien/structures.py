"""The results of recognition: `Face`, `Quality`, `Prediction`, `Frame`, `Reading`.

All are frozen dataclasses that need only numpy. `Face` and `Prediction` check their values.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mien.errors import MienError


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
        landmarks: Left eye, right eye, nose, left and right mouth corner in px, float32 (5, 2); left and right as seen when
            the face is upright. None if the detector gives none.
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

    @property
    def area(self) -> float:
        """Area of the box, px squared."""
        left, top, right, bottom = self.box_xyxy.astype(float).tolist()
        return (right - left) * (bottom - top)

    def to_dict(self) -> dict[str, Any]:
        """Return the face as JSON types."""
        landmarks = None if self.landmarks is None else np.round(self.landmarks.astype(float), 2).tolist()
        return {"box_xyxy": np.round(self.box_xyxy.astype(float), 2).tolist(), "score": self.score, "landmarks": landmarks}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Face:
        """Return the face that `to_dict` wrote."""
        return cls(values["box_xyxy"], values["score"], values.get("landmarks"))


@dataclass(frozen=True, slots=True)
class Quality:
    """How well a face can be seen; see `mien.faces.quality`.

    Attributes:
        size: Shorter side of the face's box, or of a ready crop, px.
        sharpness: Standard deviation of the Laplacian of the crop at 40 x 40 px, grey levels (0 to 255), after the least
            contrast of the model's preprocessing.
        detail: The same at the left eye, the right eye or the mouth, whichever has the least.
        brightness: Mean grey level of the crop, 0 to 255.
        yaw: How far the face is turned towards the right of the image, degrees, estimated from the landmarks; None without.
        roll: How far the face is tilted clockwise, degrees, -180 to 180; None without landmarks.
        cut: Share of the face's box that is outside the picture, 0 to 1; None for a ready crop.
    """

    size: float
    sharpness: float
    detail: float
    brightness: float
    yaw: float | None = None
    roll: float | None = None
    cut: float | None = None

    def to_dict(self) -> dict[str, float | None]:
        """Return the quality as JSON types, rounded to 2 decimals."""
        return {name: None if value is None else round(value, 2) + 0.0 for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """The expression recognised in one face.

    Attributes:
        classes: The model's classes, by index.
        probs: Probability of each class, float32 (K,), sums to 1.
        face: Where the face is; None for a ready crop.
        source: The file or URL the face came from, or the name of a picture in memory, such as `picture 2`; None for a ready
            crop.
        frame: Number of the video's frame, from 0; None for a picture.
        time: When the frame is shown, in seconds from the video's start; None for a picture.
        track: Number of the person followed through the video, from 1; None for a picture.
        unsure: Whether the confidence, less what the quality takes from it, is below the recognizer's `unsure_below`, or the
            video's frame is damaged.
        quality: How well the face can be seen; None if nobody measured it.
        set: The expressions that together cover the recognizer's `coverage`, the most probable first; None without one.
    """

    classes: tuple[str, ...]
    probs: NDArray[np.float32]
    face: Face | None = None
    source: str | None = None
    frame: int | None = None
    time: float | None = None
    track: int | None = None
    unsure: bool = False
    quality: Quality | None = None
    set: tuple[str, ...] | None = None

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
        """Return the prediction as JSON types."""
        return {
            "source": self.source,
            "frame": self.frame,
            "time": None if self.time is None else round(self.time, 6),
            "track": self.track,
            "face": None if self.face is None else self.face.to_dict(),
            "label": self.label,
            "confidence": round(self.confidence, 6),
            "unsure": self.unsure,
            "set": None if self.set is None else list(self.set),
            "quality": None if self.quality is None else self.quality.to_dict(),
            "probs": {name: round(float(p), 6) for name, p in zip(self.classes, self.probs, strict=True)},
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Prediction:
        """Return the prediction that `to_dict` wrote."""
        face = values.get("face")
        probs = np.array(list(values["probs"].values()), np.float32)
        rest: dict[str, Any] = {key: values[key] for key in ("source", "frame", "time", "track", "unsure") if key in values}
        quality, names = values.get("quality"), values.get("set")
        rest |= {"quality": None if quality is None else Quality(**quality), "set": None if names is None else tuple(names)}
        return cls(tuple(values["probs"]), probs, None if face is None else Face.from_dict(face), **rest)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A picture, or a frame of a video.

    Attributes:
        image: RGB uint8 (H, W, 3), upright.
        index: Number of the frame in the video, from 0; None for a picture.
        time: When it is shown, in seconds from the video's start; None for a picture.
        damaged: Whether its pixels may be wrong, because a part of the video is corrupt or missing.
    """

    image: NDArray[np.uint8]
    index: int | None = None
    time: float | None = None
    damaged: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Reading:
    """The predictions for one picture or frame, or the error that prevented them.

    Attributes:
        source: The file or URL, or the name of a picture in memory.
        frame: The picture or frame; None if there is an error.
        predictions: One per face; empty if no face was found.
        error: Why the source, or the rest of it, could not be read; None otherwise.
        number: Number of the source, from 0.
    """

    source: str
    frame: Frame | None
    predictions: tuple[Prediction, ...] = ()
    error: MienError | None = None
    number: int = 0
