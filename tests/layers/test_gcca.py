import pytest
import torch
from torch import Tensor

from mien.layers.gcca import GCCA


def by_hand(layer: GCCA, x: Tensor) -> Tensor:
    """Eqs. 1 and 2 for one image (C, H, W), channel by channel."""
    group = layer.group.weight[:, :, 0, 0]
    fused = []
    for c, channel in enumerate(x.flatten(1)):
        positive = channel.clamp(min=0)
        values = torch.stack([channel.sum() / channel.numel(), channel.max(), (positive**2).sum() / positive.sum()])
        fused.append((group[c] * values).sum() + layer.group.bias[c])
    hidden = layer.squeeze.weight[:, :, 0, 0] @ torch.stack(fused).clamp(min=0) + layer.squeeze.bias
    scores = layer.excite.weight[:, :, 0, 0] @ hidden.clamp(min=0) + layer.excite.bias
    weights = 1 / (1 + torch.exp(-scores))
    return weights[:, None, None] * x + x


def scrambled(channels: int, reduction: int) -> GCCA:
    torch.manual_seed(0)
    layer = GCCA(channels, reduction).double().eval()
    for p in layer.parameters():
        torch.nn.init.normal_(p)
    return layer


@pytest.mark.parametrize("size", [(5, 5), (3, 3), (2, 2), (4, 7)])
def test_gcca_follows_its_equations(size: tuple[int, int]):
    layer = scrambled(8, 4)
    x = torch.randn(3, 8, *size, dtype=torch.float64)
    x[:, :, 0, 0].abs_()  # a channel without a positive value is test_stochastic_pool's
    torch.testing.assert_close(layer(x), torch.stack([by_hand(layer, image) for image in x]))


def test_parameters_are_those_of_the_three_convolutions():
    assert sum(p.numel() for p in GCCA(64).parameters()) == (3 * 64 + 64) + (64 * 4 + 4) + (4 * 64 + 64)


def test_a_channel_is_fused_from_its_own_three_values():
    layer = scrambled(4, 2)
    x = torch.rand(1, 4, 3, 3, dtype=torch.float64)
    other = x.clone()
    other[0, 2] += 1
    changed = (layer.group(layer.descriptors(x)) != layer.group(layer.descriptors(other))).flatten()
    assert changed.tolist() == [False, False, True, False]


def test_no_channel_starts_behind_its_relu():
    layer = GCCA(64)
    x = torch.rand(2, 64, 4, 4)
    assert (layer.group(layer.descriptors(x)) > 0).all()


def test_gradients_are_exact():
    layer = scrambled(4, 2)
    assert torch.autograd.gradcheck(layer, (torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True),))


def test_training_is_random_and_seeded_evaluation_is_neither():
    torch.manual_seed(0)
    layer, x = GCCA(16, 4), torch.rand(1, 16, 5, 5)
    torch.manual_seed(1)
    first = layer(x)
    assert not torch.equal(layer(x), first)
    torch.manual_seed(1)
    assert torch.equal(layer(x), first)
    layer.eval()
    assert torch.equal(layer(x), layer(x))


def test_weights_lie_between_0_and_1():
    weights = GCCA(16).attention(torch.randn(2, 16, 5, 5) * 100)
    assert weights.shape == (2, 16, 1, 1)
    assert 0 <= weights.min() <= weights.max() <= 1


@pytest.mark.parametrize(("channels", "reduction"), [(24, 16), (8, 16), (8, 0), (0, 1)])
def test_a_reduction_that_does_not_divide_is_refused(channels: int, reduction: int):
    with pytest.raises(ValueError, match=f"{channels} channels cannot be reduced by {reduction}"):
        GCCA(channels, reduction)


def test_another_number_of_channels_is_refused():
    with pytest.raises(ValueError, match=r"input of GCCA must be \(N, 16, H, W\).*got \(1, 8, 3, 3\)"):
        GCCA(16)(torch.zeros(1, 8, 3, 3))
