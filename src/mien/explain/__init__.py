"""Where a network looked: maps over a face, by method, and how faithful they are, by number.

`explain("model", "photo.jpg")` returns an `Explanation`. A method is one file here and one name in the import below. Occlusion
and RISE only ask for answers, so they take any model, also `.onnx` files without torch; the others need a checkpoint.
"""

from __future__ import annotations

from mien.explain import attention, cam, occlusion, rise  # noqa: F401 (each registers its methods)
from mien.explain.base import METHODS, Explanation
from mien.explain.face import explain, explain_crops, explain_faces, load_backend
from mien.explain.faithfulness import Faithfulness, measure_faithfulness, random_faithfulness
from mien.explain.picture import montage, overlay, sheet

__all__ = [
    "METHODS",
    "Explanation",
    "Faithfulness",
    "explain",
    "explain_crops",
    "explain_faces",
    "load_backend",
    "measure_faithfulness",
    "montage",
    "overlay",
    "random_faithfulness",
    "sheet",
]
