"""Where a network looked: maps over a face, by method, and how faithful they are, by number.

`explain("model", "photo.jpg")` returns an `Explanation`. A method is one file here and one name in the import below. Occlusion
and RISE only ask for answers, so they take any model, also `.onnx` files without torch; the others need a checkpoint.
"""

from __future__ import annotations

from mien.explain import attention, cam, occlusion, rise  # noqa: F401 (each registers its methods)
from mien.explain.base import METHODS, Explanation
from mien.explain.face import explain, explain_corpus, explain_crops, explain_faces, load_backend
from mien.explain.faithfulness import Faithfulness, compare_scores, measure_faithfulness, random_faithfulness, score_maps
from mien.explain.picture import montage, overlay, photo_overlay, sheet

__all__ = [
    "METHODS",
    "Explanation",
    "Faithfulness",
    "compare_scores",
    "explain",
    "explain_corpus",
    "explain_crops",
    "explain_faces",
    "load_backend",
    "measure_faithfulness",
    "montage",
    "overlay",
    "photo_overlay",
    "random_faithfulness",
    "score_maps",
    "sheet",
]
