"""Find faces, crop and align them, and follow them in videos.

Importing this package loads no detector; `create_detector` does.
"""

from __future__ import annotations

from mien.faces.detect import Detector, Follower
from mien.registry import Registry

__all__ = ["DEFAULT_DETECTOR", "DETECTORS", "Detector", "Follower", "create_detector", "detector_names"]

DETECTORS: Registry[Detector] = Registry("detector")
"""Detectors by name. To add one, write a file in this folder and a function here that imports the file when it is called."""


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


DEFAULT_DETECTOR = "centerface"
"""It finds the most faces in the time that `mtcnn` takes; docs/faces.md compares them."""


def create_detector(name: str = DEFAULT_DETECTOR, **arguments: object) -> Detector:
    """Return a detector.

    >>> import numpy as np
    >>> create_detector("mtcnn", min_face=60).detect(np.zeros((120, 160, 3), np.uint8))
    []

    Args:
        name: A name of `detector_names()`.
        **arguments: Arguments of that detector's class.

    Raises:
        UnknownNameError: There is no such detector; the message lists similar names.
        MissingExtraError: It needs a package that is not installed; the message names the pip command.
        CheckpointError: Its weights are missing or corrupt.
        InputError: An argument is out of range.
    """
    return DETECTORS.create(name, **arguments)


def detector_names() -> list[str]:
    """Return the names `create_detector` knows.

    >>> detector_names()
    ['mtcnn', 'centerface', 'haar']
    """
    return DETECTORS.names()
