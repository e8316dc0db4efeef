import numpy as np
import pytest
from sklearn import metrics as reference

from mien.metrics import classification_report, confusion

CLASSES = ("a", "b", "c", "d")


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    logits = random.normal(size=(500, 4))
    target = random.choice(4, 500, p=[0.6, 0.25, 0.1, 0.05])
    logits[np.arange(500), target] += 1
    return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32), target


def test_figures_are_scikit_learns(answers):
    probs, target = answers
    report, preds = classification_report(probs, target, CLASSES), probs.argmax(1)
    assert report["images"] == 500
    assert report["accuracy"] == pytest.approx(reference.accuracy_score(target, preds))
    assert report["macro_f1"] == pytest.approx(reference.f1_score(target, preds, average="macro"))
    assert report["uar"] == pytest.approx(reference.balanced_accuracy_score(target, preds))
    assert list(report["recall"].values()) == pytest.approx(reference.recall_score(target, preds, average=None))
    assert confusion(probs, target, 4).tolist() == reference.confusion_matrix(target, preds).tolist()


def test_calibration_error_by_its_definition(answers):
    probs, target = answers
    confidence, right = probs.max(1), probs.argmax(1) == target
    bins = np.clip(np.ceil(confidence * 15).astype(int) - 1, 0, 14)
    gaps = [(bins == b).mean() * abs(right[bins == b].mean() - confidence[bins == b].mean()) for b in set(bins)]
    assert classification_report(probs, target, CLASSES)["ece"] == pytest.approx(sum(gaps), abs=1e-6)


def test_a_class_without_images_counts_in_no_mean():
    probs = np.eye(4, dtype=np.float32)[[0, 1, 1]]
    report = classification_report(probs, np.array([0, 1, 0]), CLASSES)
    assert report["recall"] == {"a": 0.5, "b": 1.0, "c": None, "d": None}
    assert report["uar"] == 0.75
