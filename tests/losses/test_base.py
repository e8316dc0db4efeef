"""What every registered loss must do."""

import pytest
import torch
from torch import Tensor

from mien.errors import MienError, UnknownNameError
from mien.losses import LOSSES, Loss, create_loss


@pytest.fixture(params=LOSSES.names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def arguments_of(loss: Loss, rows: int = 6) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, a target of the kind the loss takes, and features."""
    logits, target = torch.randn(rows, 7), torch.arange(rows) % 7
    return logits, torch.nn.functional.one_hot(target, 7) * 10 if loss.soft_target else target, torch.randn(rows, 5)


def test_one_signature_serves_all(name: str):
    torch.manual_seed(0)
    loss = create_loss(name, 7, 5)
    logits, target, features = arguments_of(loss)
    value = loss(logits, target, features)
    assert value.shape == ()
    assert value > 0
    if not loss.needs_features:
        assert torch.equal(loss(logits, target), value)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits_give_finite_values_and_gradients(name: str, scale: float):
    loss = create_loss(name, 7, 5)
    logits, target, features = arguments_of(loss)
    logits = (logits.sign() * scale).requires_grad_()
    value = loss(logits, target, features.requires_grad_())
    value.backward()
    assert torch.isfinite(value)
    for gradient in (logits.grad, features.grad):
        assert gradient is None or torch.isfinite(gradient).all()


def test_one_graph(name: str):
    loss = create_loss(name, 7, 5)
    batch = arguments_of(loss)
    torch.testing.assert_close(torch.compile(loss, fullgraph=True, backend="eager")(*batch), loss(*batch))


def test_an_unknown_argument_is_refused(name: str):
    with pytest.raises(MienError, match="no_such_argument"):
        create_loss(name, 7, 5, no_such_argument=1)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="unknown loss 'focall'; did you mean 'focal'"):
        create_loss("focall")
