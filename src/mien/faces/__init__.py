"""Find faces (detect.py, and one file per detector), crop and align them (crop.py), follow them in videos (track.py).

Importing this package loads no detector; `create_detector` does.
"""

from mien.faces.detect import DETECTORS, Detector, Follower, create_detector, detector_names

__all__ = ["DETECTORS", "Detector", "Follower", "create_detector", "detector_names"]
