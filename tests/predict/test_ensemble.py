import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mien import Recognizer, weights
from mien.calibration import calibrated_probs, unbiased
from mien.errors import CheckpointError
from mien.predict.backend import crop_logits, open_backend
from mien.predict.ensemble import EnsembleBackend

ASTRONAUT = Path(__file__).parents[2] / "docs/assets/astronaut.jpg"


@pytest.fixture(scope="module")
def ensemble() -> EnsembleBackend:
    return EnsembleBackend(threads=1)


@pytest.fixture(scope="module")
def crops() -> list[NDArray[np.uint8]]:
    """Grey and colour crops of several sizes."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, shape, np.uint8) for shape in ((48, 48), (60, 50, 3), (30, 40))]


def test_it_is_the_mean_of_its_members_and_their_mirrored_views(
    ensemble: EnsembleBackend, crops: list[NDArray[np.uint8]]
) -> None:
    assert ensemble.mirror
    answers = [
        calibrated_probs(crop_logits(member, view), unbiased(member.info.calibration))
        for member in map(open_backend, ensemble.info.arguments["members"])
        for view in (crops, [crop[:, ::-1] for crop in crops])
    ]
    np.testing.assert_allclose(np.exp(ensemble.crop_logits(crops)), np.mean(answers, axis=0), rtol=1e-5)
    found = Recognizer("ensemble", detector=None, threads=1).probabilities(crops)
    np.testing.assert_allclose(found, calibrated_probs(ensemble.crop_logits(crops), ensemble.info.calibration), rtol=1e-5)


def test_it_recognises_mirrored_faces_alike(ensemble: EnsembleBackend, crops: list[NDArray[np.uint8]]) -> None:
    mirrored = [crop[:, ::-1] for crop in crops]
    np.testing.assert_allclose(ensemble.crop_logits(mirrored), ensemble.crop_logits(crops), rtol=1e-4)


def test_a_recognizer_takes_it_by_name_and_can_be_pickled() -> None:
    recognizer = Recognizer("ensemble", threads=1, coverage=0.9)
    (prediction,) = recognizer.predict(ASTRONAUT)
    assert (prediction.label, prediction.unsure) == ("happy", False)
    assert prediction.set == ("happy",)
    (again,) = pickle.loads(pickle.dumps(recognizer)).predict(ASTRONAUT)
    np.testing.assert_array_equal(again.probs, prediction.probs)


def test_its_file_names_what_was_measured() -> None:
    stored = json.loads(weights.ensemble_file().read_text())
    for name, digest in stored["members"].items():
        assert weights.sha256(weights.bundled()[name]) == digest
    best = max(weights.read_card(weights.bundled()[name])["results"]["private_test"]["accuracy"] for name in stored["members"])
    assert stored["results"]["private_test"]["accuracy"] > best
    assert stored["calibration"]["split"] == "public_test"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"members": {weights.DEFAULT: "0" * 64}}, "was made with another file"),
        ({"members": 5}, "is missing or damaged"),
        ({"calibration": {"temperature": -1}}, "calibration.temperature must be a number"),
    ],
)
def test_a_changed_file_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    path = tmp_path / "ensemble.json"
    path.write_text(json.dumps(json.loads(weights.ensemble_file().read_text()) | change))
    with pytest.raises(CheckpointError, match=message):
        EnsembleBackend(path, threads=1)
    with pytest.raises(CheckpointError, match="is missing or damaged"):
        EnsembleBackend(tmp_path / "none.json")


def test_one_file_is_needed_where_a_network_is_exported_or_taught(ensemble: EnsembleBackend) -> None:
    with pytest.raises(CheckpointError, match=f"several models, not one file; here, choose one of .*{weights.DEFAULT}"):
        weights.resolve("ensemble")
    assert weights.model_file("ensemble") == ensemble.path
    with pytest.raises(CheckpointError, match="prepare crops in different ways"):
        ensemble.logits(np.zeros((1, 1, 48, 48), np.float32))
