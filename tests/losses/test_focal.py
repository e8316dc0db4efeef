import numpy as np
import pytest
import torch

from mien.errors import LabelError, MienError
from mien.losses import FocalLoss, create_loss, cross_entropy, focal_loss

WEIGHT = [1.0, 2.0, 0.5, 3.0]


def by_hand(logits: np.ndarray, target: np.ndarray, gamma: float, weight: np.ndarray) -> float:
    """Lin et al. 2017, eq. 5, image by image."""
    total = scale = 0.0
    for row, label in zip(logits, target, strict=True):
        p = np.exp(row[label]) / np.exp(row).sum()
        total -= weight[label] * (1 - p) ** gamma * np.log(p)
        scale += weight[label]
    return total / scale


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(6, 4, dtype=torch.float64) * 3, torch.tensor([0, 3, 1, 1, 2, 0])


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 5.0])
@pytest.mark.parametrize("weight", [None, WEIGHT])
def test_it_follows_its_equation(batch, gamma: float, weight: list[float] | None):
    logits, target = batch
    expected = by_hand(logits.numpy(), target.numpy(), gamma, np.array(weight or [1.0] * 4))
    assert FocalLoss(gamma, weight)(logits, target).item() == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("weight", [None, torch.tensor(WEIGHT)])
def test_gamma_0_is_cross_entropy(batch, weight: torch.Tensor | None):
    logits, target = batch
    torch.testing.assert_close(focal_loss(logits, target, 0.0, weight), cross_entropy(logits, target, weight))


def test_the_order_of_a_batch_does_not_matter(batch):
    logits, target = batch
    torch.testing.assert_close(focal_loss(logits.flip(0), target.flip(0)), focal_loss(logits, target))


def test_sure_images_fade_first():
    target = torch.tensor([0])
    share = [focal_loss(x, target) / cross_entropy(x, target) for x in torch.tensor([[[4.0, 0]], [[1.0, 0]], [[-4.0, 0]]])]
    assert share == sorted(share)
    assert share[0] < 0.001
    assert share[2] > 0.95


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_gradients_are_exact(batch, gamma: float):
    logits, target = batch
    assert torch.autograd.gradcheck(lambda x: focal_loss(x, target, gamma), (logits.requires_grad_(),))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_a_probability_that_rounds_to_1_has_a_finite_gradient(gamma: float):
    logits = torch.tensor([[40.0, 0.0, 0.0]], requires_grad=True)
    loss = focal_loss(logits, torch.tensor([0]), gamma)
    loss.backward()
    assert loss == 0
    assert torch.isfinite(logits.grad).all()


def test_a_class_out_of_range_is_named():
    with pytest.raises(LabelError, match="target 7 is not a class"):
        focal_loss(torch.zeros(1, 7), torch.tensor([7]))


@pytest.mark.parametrize("gamma", [-1.0, float("nan")])
def test_a_bad_gamma_is_refused(gamma: float):
    with pytest.raises(MienError, match="gamma must be at least 0"):
        create_loss("focal", gamma=gamma)
