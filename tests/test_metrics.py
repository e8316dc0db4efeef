import numpy as np
import pytest
from sklearn import metrics as reference

from mien.metrics import agreement_with_votes, classification_report, confusion

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
    assert report["kappa"] == pytest.approx(reference.cohen_kappa_score(target, preds))
    of_class = reference.multilabel_confusion_matrix(target, preds)
    assert list(report["fpr"].values()) == pytest.approx(of_class[:, 0, 1] / of_class[:, 0].sum(1))
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


def test_kappa_and_false_positives_are_unknown_if_all_images_are_of_one_class():
    report = classification_report(np.eye(4, dtype=np.float32)[[0, 0]], np.array([0, 0]), CLASSES)
    assert report["kappa"] is None
    assert report["fpr"] == {"a": None, "b": 0.0, "c": 0.0, "d": 0.0}


def test_agreement_with_votes_is_scikit_learns_accuracy_over_the_voters(answers):
    """One example per image and class, weighted by the share of the image's voters who chose the class."""
    probs, _ = answers
    votes = np.random.default_rng(1).integers(0, 7, (500, 4))
    votes[::9] = 0  # nobody chose one of these classes
    voted = votes[votes.sum(1) > 0]
    shares = voted / voted.sum(1, keepdims=True)
    preds = probs[votes.sum(1) > 0].argmax(1)
    said = np.tile(np.arange(4), len(voted))
    expected = reference.accuracy_score(said, preds.repeat(4), sample_weight=shares.ravel())
    assert agreement_with_votes(probs, votes) == pytest.approx(expected)
    assert agreement_with_votes(probs, np.zeros((500, 4), int)) is None
