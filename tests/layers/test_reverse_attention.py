import pytest
import torch
from torch.nn import functional as F

from mien.layers.edge import EdgePath
from mien.layers.feature_map import resize
from mien.layers.reverse_attention import ReverseAttention


@pytest.mark.parametrize("size", [(5, 5), (3, 3), (2, 2), (4, 7)])
@pytest.mark.parametrize("channels", [1, 6])
def test_reverse_attention_follows_its_equations(size: tuple[int, int], channels: int):
    torch.manual_seed(0)
    features = torch.randn(2, 6, *size, dtype=torch.float64)
    prediction = torch.randn(2, channels, 2, 2, dtype=torch.float64) * 3
    up = F.interpolate(prediction, size, mode="bilinear") if size != (2, 2) else prediction
    attention = 1 - 1 / (1 + torch.exp(-up))
    layer = ReverseAttention()
    torch.testing.assert_close(layer.attention(features, prediction), attention)
    torch.testing.assert_close(layer(features, prediction), features * attention)


def test_a_prediction_is_erased_and_the_rest_is_kept():
    prediction = torch.tensor([[200.0, -200.0]]).reshape(1, 1, 1, 2)
    assert ReverseAttention()(torch.ones(1, 3, 1, 2), prediction)[0, 0].tolist() == [[0.0, 1.0]]


def test_gradients_are_exact():
    torch.manual_seed(0)
    features = torch.randn(1, 2, 5, 3, dtype=torch.float64, requires_grad=True)
    prediction = torch.randn(1, 1, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ReverseAttention(), (features, prediction))
    assert torch.autograd.gradcheck(EdgePath(2).double(), (features,))


@pytest.mark.parametrize("shape", [(1, 3, 2, 2), (1, 2, 2)])
def test_a_prediction_that_does_not_fit_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"prediction \(N, 1 or C, h, w\)"):
        ReverseAttention()(torch.zeros(1, 4, 4, 4), torch.zeros(shape))


@pytest.mark.parametrize("size", [(5, 5), (3, 3), (2, 2)])
def test_the_edge_path_is_one_kernel(size: tuple[int, int]):
    torch.manual_seed(0)
    layer = EdgePath(4).double()
    x = torch.randn(2, 4, *size, dtype=torch.float64)
    padded = F.pad(x, (1, 1, 1, 1))
    expected = torch.empty(2, 1, *size, dtype=torch.float64)
    for i in range(size[0]):
        for j in range(size[1]):
            window = padded[:, :, i : i + 3, j : j + 3]
            expected[:, 0, i, j] = (window * layer.conv.weight[0]).sum((1, 2, 3)) + layer.conv.bias[0]
    torch.testing.assert_close(layer(x), expected)
    assert layer.conv.weight.shape == (1, 4, 3, 3)


@pytest.mark.parametrize(("channels", "kernel_size"), [(0, 3), (4, 2), (4, -1)])
def test_edge_paths_without_channel_or_middle_are_refused(channels: int, kernel_size: int):
    with pytest.raises(ValueError, match="an odd kernel"):
        EdgePath(channels, kernel_size)


def test_the_edge_path_refuses_other_channels():
    with pytest.raises(ValueError, match=r"must be \(N, 4, H, W\)"):
        EdgePath(4)(torch.zeros(1, 3, 4, 4))


def test_shrinking_reads_every_position_and_the_same_size_is_left_alone():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert resize(x, x) is x
    assert resize(x, torch.zeros(1, 1, 2, 2)).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert resize(x, torch.zeros(1, 1, 2, 5)).shape == (1, 1, 2, 5)
