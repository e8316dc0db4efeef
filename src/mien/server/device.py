"""The files with which a browser recognises faces by itself: the page's `device/`.

They are mien's own JavaScript, onnxruntime-web, the networks, and what Python knows about the model, as JSON. `mien serve`
answers with them and `mien page` writes them.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

from mien.errors import CheckpointError, MissingExtraError
from mien.faces import mtcnn
from mien.faces.centerface import CenterFace
from mien.faces.crop import FRAME, model_template, template_points
from mien.predict.onnx_backend import OnnxBackend
from mien.predict.recognizer import Recognizer

PAGE = Path(__file__).parent / "page"

MANIFEST = "device.json"
"""The file that says that the others are there. The page asks for it."""

_FACES = Path(mtcnn.__file__).parent


def device_files(recognizer: Recognizer) -> dict[str, bytes | Path]:
    """Return the content, or the file, of everything in the page's `device/`, by its name there.

    Args:
        recognizer: Whose answers the browser shall give.

    Raises:
        MissingExtraError: onnxruntime-web is not part of this install.
        CheckpointError: The model is the ensemble, or the detector is not CenterFace.
    """
    backend, detector = recognizer.backend, recognizer.detector
    if not (PAGE / "device" / "ort" / "VERSION").is_file():
        raise MissingExtraError(
            "recognition in the browser needs onnxruntime-web, which this copy of mien does not have; "
            "run make web in the clone (it needs npm), or install a released wheel"
        )
    if not isinstance(backend, OnnxBackend) or not isinstance(detector, CenterFace):
        raise CheckpointError("the browser runs one network and the detector centerface; choose another model or detector")
    files: dict[str, bytes | Path] = {
        path.relative_to(PAGE / "device").as_posix(): path for path in sorted((PAGE / "device").rglob("*")) if path.is_file()
    }
    files |= {"model.onnx": backend.path, "centerface.onnx": _FACES / "centerface.onnx"}
    for name in mtcnn.LAYERS:
        files[f"mtcnn_{name}.onnx"] = _FACES / f"mtcnn_{name}.onnx"
        files[f"mtcnn_{name}.bin"] = mtcnn.packed_weights(name)
    info, spec = backend.info, backend.info.preprocess
    model = {
        "name": backend.path.stem,
        "classes": info.classes,
        "preprocess": spec.to_dict(),
        "calibration": info.calibration,
        "unsure_below": recognizer.unsure_below,
        "min_face": recognizer.min_face,
        "max_faces": recognizer.max_faces,
        "detector": {"min_face": detector.min_face, "threshold": detector.threshold, "max_size": detector.max_size},
        "template": template_points(1, *model_template(spec.crop_scale, spec.crop_shift)).tolist(),
        "frame": FRAME.tolist(),
    }
    files["model.json"] = json.dumps(model).encode()
    manifest = {
        "mien": version("mien"),
        "onnxruntime-web": (PAGE / "device" / "ort" / "VERSION").read_text(encoding="utf-8").strip(),
        "model": backend.path.stem,
        "classes": info.classes,
        "files": {name: file.stat().st_size if isinstance(file, Path) else len(file) for name, file in files.items()},
    }
    files[MANIFEST] = json.dumps(manifest).encode()
    return files
