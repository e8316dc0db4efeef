"""Soft cross-entropy and Kullback-Leibler divergence against votes."""

import numpy as np
import pytest
import torch

from mien.errors import LabelError
from mien.losses import cross_entropy, kl_divergence, soft_cross_entropy


def by_hand(logits: np.ndarray, votes: np.ndarray) -> tuple[float, float]:
    """Cross-entropy and divergence, image by image and class by class."""
    cross = divergence = 0.0
    for row, counts in zip(logits, votes, strict=True):
        log_probs = row - np.log(np.exp(row).sum())
        for log_p, t in zip(log_probs, counts / counts.sum(), strict=True):
            cross -= t * log_p / len(logits)
            divergence += (t * (np.log(t) - log_p) if t else 0) / len(logits)
    return cross, divergence


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    votes = torch.tensor([[10, 0, 0, 0], [3, 3, 4, 0], [1, 2, 3, 4], [0, 5, 0, 5], [0, 0, 1, 0]], dtype=torch.float64)
    return torch.randn(5, 4, dtype=torch.float64) * 3, votes


def test_they_follow_their_definitions(batch):
    logits, votes = batch
    cross, divergence = by_hand(logits.numpy(), votes.numpy())
    assert soft_cross_entropy(logits, votes).item() == pytest.approx(cross, rel=1e-12)
    assert kl_divergence(logits, votes).item() == pytest.approx(divergence, rel=1e-12)


@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence])
def test_votes_count_by_their_shares_and_images_in_any_order(batch, loss):
    logits, votes = batch
    torch.testing.assert_close(loss(logits.flip(0), 3 * votes.flip(0)), loss(logits, votes))
    torch.testing.assert_close(loss(logits, votes.long()), loss(logits, votes))


@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence])
def test_all_votes_for_one_class_are_cross_entropy(loss):
    torch.manual_seed(0)
    logits, target = torch.randn(4, 5), torch.tensor([1, 0, 4, 4])
    torch.testing.assert_close(loss(logits, torch.nn.functional.one_hot(target, 5) * 10), cross_entropy(logits, target))


def test_divergence_is_zero_where_the_answer_is_the_votes_and_positive_elsewhere(batch):
    logits, votes = batch
    assert kl_divergence(logits, logits.softmax(1)).item() == pytest.approx(0, abs=1e-14)
    assert kl_divergence(logits, votes) > 0


def test_both_have_the_same_gradient(batch):
    logits, votes = batch
    logits.requires_grad_()
    gradients = [torch.autograd.grad(loss(logits, votes), logits)[0] for loss in (soft_cross_entropy, kl_divergence)]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence])
def test_gradients_are_exact(batch, loss):
    logits, votes = batch
    assert torch.autograd.gradcheck(lambda x: loss(x, votes), (logits.requires_grad_(),))


@pytest.mark.parametrize("row", [[0.0, 0, 0, 0], [-1.0, 1, 1, 0], [float("nan"), 1, 0, 0]])
@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence])
def test_a_row_that_is_no_distribution_is_named(batch, loss, row: list[float]):
    logits, votes = batch
    votes[2] = torch.tensor(row)
    with pytest.raises(LabelError, match="votes of row 2 are not a distribution"):
        loss(logits, votes)


@pytest.mark.parametrize("loss", [soft_cross_entropy, kl_divergence])
def test_votes_of_another_shape_are_refused(loss):
    with pytest.raises(ValueError, match=r"logits' shape \(N, K\), got \(3,\) for \(3, 4\)"):
        loss(torch.zeros(3, 4), torch.zeros(3, dtype=torch.int64))
