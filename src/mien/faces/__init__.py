"""Find faces, crop and align them, and follow them in videos.

Importing this package loads no detector; `create_detector` does.
"""

from mien.faces.detect import DEFAULT_DETECTOR, DETECTORS, Detector, Follower, create_detector, detector_names

__all__ = ["DEFAULT_DETECTOR", "DETECTORS", "Detector", "Follower", "create_detector", "detector_names"]
