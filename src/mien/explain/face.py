"""From a model and a photo to explanations: find the faces, crop them, ask the methods, put the maps into the photo's frame."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, InputError, UnknownNameError, require
from mien.explain.base import METHODS, Explanation, Maps, stretch
from mien.image import read_image
from mien.labels import mapping
from mien.predict.backend import open_backend
from mien.predict.ensemble import EnsembleBackend
from mien.predict.recognizer import Recognizer
from mien.preprocess import preprocess
from mien.registry import nearest
from mien.structures import Face

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.engine.torch_backend import TorchBackend
    from mien.image import ImageSource
    from mien.predict.backend import Backend
    from mien.predict.onnx_backend import OnnxBackend

Model = Recognizer | str | os.PathLike[str] | None
"""A recognizer; or a bundled model, an `.onnx` file, a checkpoint or a run's folder; None is the default model."""


def load_backend(
    model: str | os.PathLike[str] | None = None, providers: str | Sequence[str] | None = None
) -> OnnxBackend | EnsembleBackend | TorchBackend:
    """Return a loaded network: a bundled model or `ensemble`, an `.onnx` file, a checkpoint or a run's folder.

    `providers` are execution providers of ONNX Runtime, which a checkpoint does not have.

    Raises:
        InputError: A checkpoint was given with `providers`.
        CheckpointError: It is missing or corrupt.
        UnknownNameError: The name is not that of a bundled model.
        MissingExtraError: A checkpoint needs torch, which is not installed.
    """
    if model is not None and (Path(model).is_dir() or Path(model).suffix == ".safetensors"):
        if providers is not None:
            raise InputError(
                f"{model}: torch runs it, which has no execution providers; run mien export, and name the .onnx file"
            )
        require("torch", "train")
        from mien.engine.torch_backend import TorchBackend

        return TorchBackend(model)
    return open_backend(model, providers=providers)


def explain(
    model: Model,
    image: ImageSource,
    method: str | Sequence[str] | None = None,
    *,
    target: str | None = None,
    seed: int = 0,
) -> Explanation:
    """Return where a network looked in the largest face of a picture.

    Args:
        model: A recognizer, or the model of one. A recognizer with `detector=None` takes the picture as one ready crop.
        image: A path, bytes, a PIL image, or an RGB array, uint8 (H, W, 3).
        method: Names from `METHODS.names()`. None takes RISE for an exported model, and Grad-CAM for a checkpoint, with its
            attention if it has any.
        target: The class to explain; None explains the answer.
        seed: Seed of the methods that draw random numbers.

    Raises:
        InputError: The picture cannot be read or shows no face, or the method needs what the model does not have.
        UnknownNameError: The method, the class or the model is unknown.
        MissingExtraError: The method's package is not installed.
    """
    found = explain_faces(model, image, method, target=target, seed=seed, max_faces=1)
    if not found:
        raise InputError("no face found in this picture; if it is a face crop already, give a Recognizer with detector=None")
    return found[0]


def explain_faces(
    model: Model,
    image: ImageSource,
    method: str | Sequence[str] | None = None,
    *,
    target: str | None = None,
    seed: int = 0,
    max_faces: int | None = None,
) -> list[Explanation]:
    """Return an explanation for each face of a picture, the largest first; the arguments are those of `explain`.

    The list is empty if no face is found.
    """
    recognizer = model if isinstance(model, Recognizer) else Recognizer(load_backend(model))
    picture = read_image(image)
    faces: Sequence[Face | None] = [None] if recognizer.detector is None else recognizer.find_faces(picture)[:max_faces]
    crops = recognizer.crops(picture, faces)
    matrices = [recognizer.crop_matrix(picture, face) for face in faces]
    found = explain_crops(recognizer, crops, method, target=target, seed=seed)
    return [
        replace(
            each,
            prediction=replace(each.prediction, face=face),
            matrix=matrix,
            size=picture.shape[:2],
            box=None if each.box is None else _to_picture(each.box / crop.shape[1::-1], matrix),
        )
        for each, face, matrix, crop in zip(found, faces, matrices, crops, strict=True)
    ]


def explain_crops(
    recognizer: Recognizer,
    crops: Sequence[NDArray[np.uint8]],
    method: str | Sequence[str] | None = None,
    *,
    target: str | None = None,
    seed: int = 0,
) -> list[Explanation]:
    """Return an explanation for each ready face crop, uint8 (H, W) or (H, W, 3), in the crop's own frame."""
    backend = recognizer.backend
    names = default_methods(backend) if method is None else [method] if isinstance(method, str) else list(method)
    methods = {name: METHODS.get(name) for name in names}
    if isinstance(backend, EnsembleBackend):
        members = ", ".join(member.path.stem for member in backend.members)
        raise InputError(f"the ensemble is several networks; explain one of its members: {members}")
    predictions = recognizer.predict_faces(crops)
    if not crops:
        return []
    classes = backend.info.classes
    (wanted,) = [None] if target is None else mapping([target], classes)
    if target is not None and wanted is None:
        raise UnknownNameError(f"unknown class {target!r}{nearest(target, list(classes))}")
    index = np.array([int(each.probs.argmax()) if wanted is None else wanted for each in predictions])
    inputs = preprocess(crops, backend.info.preprocess)
    found = Maps()
    for run in methods.values():
        maps = run(backend, inputs, index, seed)
        found = Maps(found.maps | maps.maps, found.channels | maps.channels, found.boxes if maps.boxes is None else maps.boxes)
    explanations = []
    for i, (prediction, crop) in enumerate(zip(predictions, crops, strict=True)):
        scaled = {name: stretch(values[i], inputs.shape[2:]) for name, values in found.maps.items()}
        height, width = crop.shape[:2]
        explanations.append(
            Explanation(
                prediction=prediction,
                target=classes[index[i]],
                crop_maps={name: values for name, (values, _) in scaled.items()},
                ranges={name: limits for name, (_, limits) in scaled.items()},
                channels={name: values[i] for name, values in found.channels.items()},
                matrix=np.array([[1 / width, 0, 0], [0, 1 / height, 0]]),
                size=(height, width),
                box=None if found.boxes is None else found.boxes[i] * [width, height],
                inputs=inputs[i],
            )
        )
    return explanations


def explain_corpus(
    recognizer: Recognizer,
    corpus: Corpus,
    split: str,
    images: int,
    method: str | Sequence[str] | None = None,
    *,
    target: str | None = None,
    seed: int = 0,
) -> dict[str, tuple[list[NDArray[np.uint8]], list[Explanation]]]:
    """Return faces of each class, drawn at random, and their explanations, by the class's name.

    Args:
        recognizer: The model. Classes that it does not have are left out.
        corpus: The corpus; its images are ready crops.
        split: The split to draw from.
        images: Faces of each class.
        method: As in `explain`.
        target: The class to explain; None explains the true class.
        seed: Seed of the drawing and of the methods.

    Raises:
        DataError: The split has no image of the model's classes.
    """
    rows, random = corpus.where(split), np.random.default_rng(seed)
    found = {}
    for index, column in enumerate(mapping(corpus.classes, recognizer.classes)):
        chosen = rows[corpus.target[rows] == index]
        if column is not None and len(chosen):
            chosen = np.sort(random.choice(chosen, min(images, len(chosen)), replace=False))
            faces = list(corpus.read(chosen))
            explained = target or recognizer.classes[column]
            found[corpus.classes[index]] = faces, explain_crops(recognizer, faces, method, target=explained, seed=seed)
    if not found:
        raise DataError(f"{corpus.name} has no image of the model's classes in {split}; choose another split")
    return found


def default_methods(backend: Backend) -> list[str]:
    """Return what explains a network if nothing is chosen."""
    network = getattr(backend, "model", None)
    if network is None:
        return ["rise"]
    from mien.explain.attention import has_attention

    return ["attention", "grad_cam"] if has_attention(network) else ["grad_cam"]


def _to_picture(points: NDArray[np.float64], matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return points given as fractions of a crop's sides, (P, 2), in px of the picture."""
    return (points - matrix[:, 2]) @ np.linalg.inv(matrix[:, :2]).T
