import pytest
import torch
from torch.nn import functional as F

from mien.layers.channel_attention import ChannelAttention
from mien.layers.spatial_attention import SpatialAttention


def test_spatial_attention_follows_its_equation():
    torch.manual_seed(0)
    layer = SpatialAttention(3).double()
    x = torch.randn(2, 5, 7, 6, dtype=torch.float64)
    weight, bias = layer.conv.weight, layer.conv.bias
    maps = torch.stack([x.sum(1) / 5, x.max(1).values], dim=1)
    expected = x * (1 / (1 + torch.exp(-F.conv2d(F.pad(maps, (1, 1, 1, 1)), weight, bias))))
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("max_pool", [True, False])
def test_channel_attention_follows_its_equation(max_pool: bool):
    torch.manual_seed(0)
    layer = ChannelAttention(6, reduction=2, max_pool=max_pool).double()
    x = torch.randn(2, 6, 3, 5, dtype=torch.float64)
    first, second = layer.squeeze.weight[:, :, 0, 0], layer.excite.weight[:, :, 0, 0]
    pooled = [x.flatten(2).mean(2), *([x.flatten(2).max(2).values] if max_pool else [])]
    scores = sum(torch.clamp(descriptor @ first.T, min=0) @ second.T for descriptor in pooled)
    torch.testing.assert_close(layer(x), x * torch.sigmoid(scores)[:, :, None, None])


def test_gradients_are_exact():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(SpatialAttention(3).double(), (x,))
    assert torch.autograd.gradcheck(ChannelAttention(4, 2).double(), (x,))


def test_channels_the_reduction_does_not_divide_are_refused():
    with pytest.raises(ValueError, match="10 channels cannot be reduced 4 times; choose a divisor of 10"):
        ChannelAttention(10, 4)


def test_attention_lies_between_0_and_1():
    x = torch.randn(2, 8, 5, 5) * 10
    for weights, shape in ((SpatialAttention().attention(x), (2, 1, 5, 5)), (ChannelAttention(8).attention(x), (2, 8, 1, 1))):
        assert weights.shape == shape
        assert 0 <= weights.min() <= weights.max() <= 1
