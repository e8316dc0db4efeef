import numpy as np
import pytest
import torch

from mien.errors import LabelError, MienError
from mien.losses import CrossEntropyLoss, create_loss, cross_entropy

WEIGHT = [1.0, 2.0, 0.5, 3.0]


def by_hand(logits: np.ndarray, target: np.ndarray, weight: np.ndarray, smoothing: float) -> float:
    """Szegedy et al. 2016, section 7, image by image."""
    total = scale = 0.0
    for row, label in zip(logits, target, strict=True):
        log_probs = row - np.log(np.exp(row).sum())
        wanted = np.full(len(row), smoothing / len(row))
        wanted[label] += 1 - smoothing
        total -= (weight * wanted * log_probs).sum()
        scale += weight[label]
    return total / scale


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 4, dtype=torch.float64) * 3, torch.tensor([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_it_follows_its_definition(batch, smoothing: float, weight: list[float] | None):
    logits, target = batch
    expected = by_hand(logits.numpy(), target.numpy(), np.array(weight or [1.0] * 4), smoothing)
    assert CrossEntropyLoss(weight, smoothing)(logits, target).item() == pytest.approx(expected, rel=1e-12)


def test_probabilities_are_a_target_too(batch):
    logits, target = batch
    one_hot = torch.nn.functional.one_hot(target, 4).float()
    torch.testing.assert_close(cross_entropy(logits, one_hot), cross_entropy(logits, target))


def test_the_order_of_a_batch_does_not_matter(batch):
    logits, target = batch
    loss = CrossEntropyLoss(WEIGHT, 0.1)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), loss(logits, target))


def test_equal_weights_and_a_shift_of_all_logits_change_nothing(batch):
    logits, target = batch
    torch.testing.assert_close(CrossEntropyLoss([2.5] * 4)(logits + 7, target), cross_entropy(logits, target))


def test_smoothing_wants_no_certainty():
    sure, target = torch.tensor([[50.0, 0.0]]), torch.tensor([0])
    assert cross_entropy(sure, target) < 1e-6
    assert cross_entropy(sure, target, label_smoothing=0.1).item() == pytest.approx(0.05 * 50)


def test_gradients_are_exact(batch):
    logits, target = batch
    assert torch.autograd.gradcheck(lambda x: CrossEntropyLoss(WEIGHT, 0.1)(x, target), (logits.requires_grad_(),))


def test_half_precision_is_summed_in_float32(batch):
    logits, target = batch
    half = logits.bfloat16()
    loss = cross_entropy(half, target)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, cross_entropy(half.float(), target))


@pytest.mark.parametrize("label", [-1, 4, -100])
def test_a_class_out_of_range_is_named(label: int):
    with pytest.raises(LabelError, match=f"target {label} is not a class: the 4 classes are numbered 0 to 3"):
        cross_entropy(torch.zeros(2, 4), torch.tensor([0, label]))


@pytest.mark.parametrize(
    ("logits", "target"),
    [((2, 4), torch.zeros(3, dtype=torch.int64)), ((4,), torch.zeros(4, dtype=torch.int64)), ((2, 4), torch.zeros(2).int())],
)
def test_shapes_and_types_that_do_not_fit_are_refused(logits: tuple[int, ...], target: torch.Tensor):
    with pytest.raises(ValueError, match="class indices int64"):
        cross_entropy(torch.zeros(logits), target)


@pytest.mark.parametrize("target", [torch.zeros(2), torch.zeros(2, 3), torch.zeros(3, 4)])
def test_probabilities_of_another_shape_are_refused(target: torch.Tensor):
    with pytest.raises(ValueError, match="expected probabilities of the logits' shape"):
        cross_entropy(torch.zeros(2, 4), target)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1.0}, "label_smoothing must be in"),
        ({"label_smoothing": -0.1}, "label_smoothing must be in"),
        ({"weight": [1.0, -1.0]}, "not negative"),
        ({"weight": [0.0, 0.0]}, "not all zero"),
        ({"weight": [1.0, 2.0, 3.0]}, "weight has 3 numbers, but there are 7 classes"),
        ({"weight": [1.0, float("nan")]}, "finite"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(MienError, match=message):
        create_loss("cross_entropy", **arguments)
