"""Find faces, crop and align them, and follow them in videos.

Importing this package loads no detector; `create_detector` does.
"""

from mien.faces.detect import DETECTORS, Detector, Follower, create_detector, detector_names

__all__ = ["DETECTORS", "Detector", "Follower", "create_detector", "detector_names"]
