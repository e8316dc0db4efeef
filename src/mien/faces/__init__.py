"""Finding faces: one interface (`Detector`), a registry of detectors, and the crop a network sees.

Importing this package loads no detector; `create_detector` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mien.registry import Registry
from mien.structures import Face


class Detector(Protocol):
    """Anything that finds faces in a picture.

    Those of the registry share the arguments `min_face`, `threshold`, `max_size` and `threads`, score from 0 to 1, and frame a
    face as MTCNN does, in whose boxes a model's `crop_scale` is counted (see `mien.faces.framing`). One without
    landmarks says so by `landmarks = False`.
    """

    def detect(self, image: NDArray[np.uint8]) -> list[Face]:
        """Return the faces of an RGB picture, uint8 (H, W, 3), the most certain first; none is an empty list."""
        ...


@runtime_checkable
class Follower(Detector, Protocol):
    """A detector that can also follow faces from one frame of a video to the next, in a fraction of the time."""

    def follow(self, image: NDArray[np.uint8], faces: Sequence[Face]) -> list[Face | None]:
        """Return each face of the frame before as it stands in this one, RGB uint8 (H, W, 3); None where it is lost."""
        ...


DETECTORS: Registry[Detector] = Registry("detector")
"""The detectors by name. To add one: a file in this folder and a factory here that imports it when called."""


@DETECTORS.register("mtcnn")
def _mtcnn(**arguments: object) -> Detector:
    from mien.faces.mtcnn import MTCNN

    return MTCNN(**arguments)  # type: ignore[arg-type]


@DETECTORS.register("centerface")
def _centerface(**arguments: object) -> Detector:
    from mien.faces.centerface import CenterFace

    return CenterFace(**arguments)  # type: ignore[arg-type]


@DETECTORS.register("haar")
def _haar(**arguments: object) -> Detector:
    from mien.faces.haar import Haar

    return Haar(**arguments)  # type: ignore[arg-type]


def create_detector(name: str = "mtcnn", **arguments: object) -> Detector:
    """Return a detector.

    >>> create_detector("mtcnn", min_face=60).detect(np.zeros((120, 160, 3), np.uint8))
    []

    Args:
        name: A name of `detector_names()`.
        **arguments: Arguments of that detector's class.

    Raises:
        UnknownNameError: No such detector; lists the nearest.
        MissingExtraError: It needs a package that is not installed; names the pip command.
        CheckpointError: Its weights are missing or damaged.
        InputError: An argument is out of range.
    """
    return DETECTORS.create(name, **arguments)


def detector_names() -> list[str]:
    """Return the names `create_detector` knows.

    >>> detector_names()
    ['mtcnn', 'centerface', 'haar']
    """
    return DETECTORS.names()
