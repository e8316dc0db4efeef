"""Faces in pictures and videos: detect (`detect`, one file per detector), cut out and align (`crop`), follow (`track`).

Importing this package loads no detector; `create_detector` does.
"""

from mien.faces.detect import DETECTORS, Detector, Follower, create_detector, detector_names

__all__ = ["DETECTORS", "Detector", "Follower", "create_detector", "detector_names"]
