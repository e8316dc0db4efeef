"""mien: facial expression recognition.

Photos and videos in, expressions out, offline and without torch:

    >>> import mien
    >>> mien.label_set("fer2013")[3]
    'happy'

The names below are loaded when first used, so `import mien` costs nothing and never imports torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

# mien works offline. ONNX Runtime 1.31 writes a device id to ~/.cache/Microsoft and looks up an upload host, unless this is set
# before its import. A value that the user has set is kept; see docs/privacy.md.
os.environ["ORT_DISABLE_TELEMETRY"] = os.environ.get("ORT_DISABLE_TELEMETRY") or "1"

_HOME: dict[str, str] = {
    "Face": "mien.structures",
    "Frame": "mien.structures",
    "MienError": "mien.errors",
    "Prediction": "mien.structures",
    "PreprocessSpec": "mien.preprocess",
    "Reading": "mien.structures",
    "Recognizer": "mien.predict.recognizer",
    "VideoOptions": "mien.predict.recognizer",
    "create_detector": "mien.faces",
    "create_model": "mien.models",
    "label_set": "mien.labels",
    "load_checkpoint": "mien.checkpoint",
    "load_recipe": "mien.recipe",
    "read_image": "mien.image",
    "to_dataframe": "mien.output.table",
    "translate": "mien.languages",
    "use_language": "mien.languages",
    "write_table": "mien.output.table",
}
"""Public names and the module each lives in."""

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from mien.checkpoint import load_checkpoint
    from mien.errors import MienError
    from mien.faces import create_detector
    from mien.image import read_image
    from mien.labels import label_set
    from mien.languages import translate, use_language
    from mien.models import create_model
    from mien.output.table import to_dataframe, write_table
    from mien.predict.recognizer import Recognizer, VideoOptions
    from mien.preprocess import PreprocessSpec
    from mien.recipe import load_recipe
    from mien.structures import Face, Frame, Prediction, Reading


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'mien' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
