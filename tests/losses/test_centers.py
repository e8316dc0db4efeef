"""Center, island and joint loss: all three keep class centers."""

import numpy as np
import pytest
import torch
from torch import Tensor

from mien.errors import LabelError, MienError
from mien.losses import JointLoss, center_loss, center_similarity, create_loss, cross_entropy, island_loss, joint_loss

TARGET = torch.tensor([0, 3, 1, 1, 2, 0])


def center_by_hand(features: np.ndarray, target: np.ndarray, centers: np.ndarray) -> float:
    """Wen et al. 2016, eq. 2, over the images of the batch, divided by their number."""
    return sum(0.5 * ((x - centers[y]) ** 2).sum() for x, y in zip(features, target, strict=True)) / len(features)


def similarity_by_hand(centers: np.ndarray) -> float:
    """Eq. 6 of vgg16_gcca's paper, j and k different."""
    total = 0.0
    for j, a in enumerate(centers):
        for k, b in enumerate(centers):
            if j != k:
                total += a @ b / (np.linalg.norm(a) * np.linalg.norm(b)) + 1
    return total


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Logits (6, 4), features (6, 5) and centers (4, 5)."""
    torch.manual_seed(0)
    return tuple(torch.randn(*shape, dtype=torch.float64) for shape in ((6, 4), (6, 5), (4, 5)))


def test_they_follow_their_equations(batch):
    logits, features, centers = batch
    center = center_by_hand(features.numpy(), TARGET.numpy(), centers.numpy())
    similarity = similarity_by_hand(centers.numpy())
    softmax = -np.mean([row[y] - np.log(np.exp(row).sum()) for row, y in zip(logits.numpy(), TARGET, strict=True)])
    assert center_loss(features, TARGET, centers).item() == pytest.approx(center, rel=1e-12)
    assert center_similarity(centers).item() == pytest.approx(similarity, rel=1e-12)
    assert island_loss(features, TARGET, centers).item() == pytest.approx(center + 7 * similarity, rel=1e-12)
    expected = softmax + 0.005 * (center + 7 * similarity)
    assert joint_loss(logits, TARGET, features, centers).item() == pytest.approx(expected, rel=1e-12)


def test_modules_hold_the_papers_constants(batch):
    logits, features, _ = batch
    loss = JointLoss(4, 5).double()
    torch.testing.assert_close(loss(logits, TARGET, features), joint_loss(logits, TARGET, features, loss.centers, 0.005, 7.0))
    for name, function in (("center", center_loss), ("island", island_loss)):
        module = create_loss(name, 4, 5).double()
        torch.testing.assert_close(module(logits, TARGET, features), function(features, TARGET, module.centers))


def test_center_loss_is_zero_at_the_centers(batch):
    centers = batch[2]
    assert center_loss(centers[TARGET], TARGET, centers) == 0


def test_center_loss_moves_with_both_and_grows_with_the_square(batch):
    _, features, centers = batch
    loss = center_loss(features, TARGET, centers)
    torch.testing.assert_close(center_loss(features + 3, TARGET, centers + 3), loss)
    torch.testing.assert_close(center_loss(features * 3, TARGET, centers * 3), loss * 9)


def test_similarity_knows_directions_only(batch):
    centers = batch[2]
    lengths = torch.tensor([[0.1], [1.0], [20.0], [3.0]], dtype=torch.float64)
    torch.testing.assert_close(center_similarity(centers * lengths), center_similarity(centers))


def test_similarity_of_opposite_equal_and_orthogonal_centers():
    ray = torch.tensor([[1.0, 0.0]])
    assert center_similarity(torch.cat([ray, -2 * ray])).item() == pytest.approx(0, abs=1e-6)
    assert center_similarity(torch.cat([ray, 2 * ray])).item() == pytest.approx(4)
    assert center_similarity(torch.eye(5)).item() == pytest.approx(5 * 4)


def test_the_order_of_batch_and_classes_does_not_matter(batch):
    logits, features, centers = batch
    expected = joint_loss(logits, TARGET, features, centers)
    torch.testing.assert_close(joint_loss(logits.flip(0), TARGET.flip(0), features.flip(0), centers), expected)
    torch.testing.assert_close(joint_loss(logits.flip(1), 3 - TARGET, features, centers.flip(0)), expected)


def test_without_pairs_it_is_softmax_with_center_loss(batch):
    logits, features, centers = batch
    expected = cross_entropy(logits, TARGET) + 0.01 * center_loss(features, TARGET, centers)
    torch.testing.assert_close(joint_loss(logits, TARGET, features, centers, 0.01, 0.0), expected)


def test_gradients_of_the_network_are_exact(batch):
    logits, features, centers = batch
    inputs = [logits.requires_grad_(), features.requires_grad_()]
    assert torch.autograd.gradcheck(lambda logits, features: joint_loss(logits, TARGET, features, centers), inputs)


def test_the_gradient_of_the_centers_is_that_of_the_island_loss(batch):
    logits, features, centers = batch
    centers.requires_grad_()
    assert torch.autograd.gradcheck(lambda centers: island_loss(features, TARGET, centers), centers)
    (expected,) = torch.autograd.grad(island_loss(features, TARGET, centers), centers)
    for island_weight in (0.0, 0.0005, 0.05):
        (found,) = torch.autograd.grad(joint_loss(logits, TARGET, features, centers, island_weight), centers)
        torch.testing.assert_close(found, expected)


def test_lambda_moves_the_network_and_not_the_centers(batch):
    """As Fig. 6(a) needs it: after ten steps the centers are the same, and embeddings are pulled in proportion to lambda."""
    logits, features, _ = batch
    ends, pulls = [], []
    for island_weight in (0.0005, 0.05):
        torch.manual_seed(0)
        loss = JointLoss(4, 5, island_weight).double()
        start, x = loss.centers.detach().clone(), features.clone().requires_grad_()
        optimizer = torch.optim.SGD(loss.parameters(), lr=0.0025, momentum=0.9, nesterov=True)
        for _ in range(10):
            optimizer.zero_grad()
            loss(logits, TARGET, x).backward()
            optimizer.step()
        assert (loss.centers - start).abs().max() > 0.01
        ends.append(loss.centers.detach())
        pulls.append(x.grad)
    assert torch.equal(*ends)
    torch.testing.assert_close(100 * pulls[0], pulls[1])


def test_a_step_of_sgd_is_wen_et_als_update(batch):
    logits, features, _ = batch
    loss = create_loss("center", 4, 5).double()
    before = loss.centers.detach().clone()
    loss(logits, TARGET, features).backward()
    torch.optim.SGD(loss.parameters(), lr=0.5).step()
    for k in range(4):
        pull = (before[k] - features[k == TARGET]).sum(0)
        torch.testing.assert_close(loss.centers[k].detach(), before[k] - 0.5 * pull / 6)


def test_centers_are_parameters_of_length_about_1():
    torch.manual_seed(0)
    loss = create_loss("joint", 7, 801)
    assert [(name, p.shape) for name, p in loss.named_parameters()] == [("centers", (7, 801))]
    assert list(loss.state_dict()) == ["centers"]
    torch.testing.assert_close(loss.centers.norm(dim=1), torch.ones(7), rtol=0.2, atol=0)


def test_half_precision_is_summed_in_float32(batch):
    logits, features, _ = batch
    loss = create_loss("joint", 4, 5)
    half = (logits.bfloat16(), features.bfloat16())
    torch.testing.assert_close(loss(half[0], TARGET, half[1]), loss(half[0].float(), TARGET, half[1].float()))
    assert loss(half[0], TARGET, half[1]).dtype == torch.float32


@pytest.mark.parametrize("name", ["center", "island", "joint"])
def test_what_does_not_fit_is_refused(name: str):
    loss, logits, target = create_loss(name, 4, 5), torch.zeros(2, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="call it with features"):
        loss(logits, target)
    with pytest.raises(ValueError, match="embeddings have 6 features, centers 5; num_features"):
        loss(logits, target, torch.zeros(2, 6))
    with pytest.raises(ValueError, match="class indices int64"):
        loss(logits, logits.softmax(1), torch.zeros(2, 5))
    with pytest.raises(LabelError, match="target 4 is not a class"):
        loss(logits, torch.tensor([0, 4]), torch.zeros(2, 5))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_features": None}, "give num_features"),
        ({"num_features": 0}, "at least 2 classes and 1 feature"),
        ({"num_features": 5, "num_classes": 1}, "at least 2 classes and 1 feature"),
        ({"num_features": 5, "pair_weight": -1.0}, "at least 0"),
        ({"num_features": 5, "island_weight": -1.0}, "at least 0"),
        ({"num_features": 5, "label_smoothing": 1.0}, "label_smoothing in"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict, message: str):
    with pytest.raises(MienError, match=message):
        create_loss("joint", **arguments)
