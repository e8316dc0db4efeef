"""The ensemble: the mean answer of several bundled models, each of which also looks at the mirrored face.

It is more accurate than each of its members, and takes as long as all of them together, twice. `mien/weights/ensemble.json`
names the members with their SHA-256, and has the ensemble's own calibration.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien import weights
from mien.calibration import calibrated_probs, unbiased
from mien.errors import CheckpointError
from mien.model_info import ModelInfo, check_calibration
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import preprocess

LEAST_PROBABILITY = 1e-30
"""A mean probability below this counts as this, because the logarithm of 0 is not finite."""


class EnsembleBackend:
    """Several networks that answer together.

    Args:
        path: The JSON file that names the members, which are bundled models; None takes the bundled ensemble.
        threads: Threads of one run; None takes every core this process may use.
        providers: Execution providers, as `OnnxBackend` takes them.

    Attributes:
        path: The file.
        members: The loaded members.
        mirror: Whether each member also looks at the mirrored face.
        info: The classes and provenance of the first member, with the calibration and the results of the ensemble.

    Raises:
        CheckpointError: The file is missing or damaged, a member is another file than it names, or the members differ in
            their classes or in the part of the picture they look at.
    """

    def __init__(
        self, path: Path | None = None, threads: int | None = None, providers: str | Sequence[str] | None = None
    ) -> None:
        self.path = path or weights.ensemble_file()
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            named, self.mirror = dict(stored["members"]), bool(stored["mirror"])
            calibration, results = stored["calibration"], dict(stored["results"])
        except (OSError, ValueError, KeyError, TypeError):
            raise CheckpointError(f"{self.path}: is missing or damaged; run: pip install --force-reinstall mien") from None
        check_calibration(calibration)
        self.members = [OnnxBackend(weights.resolve(name), threads, providers) for name in named]
        for name, member in zip(named, self.members, strict=True):
            if weights.sha256(member.path) != named[name]:
                raise CheckpointError(
                    f"{self.path}: was made with another file than {member.path.name}; run: pip install --force-reinstall mien"
                )
        first = self.members[0].info
        for info in (member.info for member in self.members):
            same = [(each.classes, each.preprocess.crop_scale, each.preprocess.crop_shift) for each in (first, info)]
            if same[0] != same[1]:
                raise CheckpointError(f"{self.path}: its members differ in their classes or crops; choose others")
        self.info: ModelInfo = replace(
            first,
            arch=weights.ENSEMBLE,
            arguments={"members": named, "mirror": self.mirror},
            recipe={"name": weights.ENSEMBLE, "data": first.recipe.get("data") or {}},
            calibration=calibration,
            results=results,
        )

    @property
    def device(self) -> str:
        """What the members run on."""
        return self.members[0].device

    @property
    def threads(self) -> int:
        """Threads in use."""
        return self.members[0].threads

    def crop_logits(self, crops: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Return the logarithms of the members' mean probabilities, without their bias, float32 (N, K), of ready face crops.

        Args:
            crops: uint8, grey (H, W) or RGB (H, W, 3). Each member prepares them in its own way.
        """
        views = [crops, [crop[:, ::-1] for crop in crops]] if self.mirror else [crops]
        probs = [
            calibrated_probs(member.logits(preprocess(view, member.info.preprocess)), unbiased(member.info.calibration))
            for member in self.members
            for view in views
        ]
        return np.log(np.maximum(np.mean(probs, axis=0), LEAST_PROBABILITY))

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Refuse a preprocessed batch: each member needs its own.

        Raises:
            CheckpointError: Always.
        """
        raise CheckpointError("the members of the ensemble prepare crops in different ways; give crops to crop_logits")
