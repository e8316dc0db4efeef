import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.layers.partial_decoder import PartialDecoder

SIZES = [((8, 8), (4, 4), (2, 2)), ((5, 5), (3, 3), (2, 2)), ((7, 5), (3, 2), (1, 1)), ((3, 3), (3, 3), (3, 3))]


def conv(block: nn.Module, x: Tensor) -> Tensor:
    """A convolution and its batch norm in evaluation, from their parameters."""
    first, norm = block[0], block[1]
    x = F.conv2d(x, first.weight, padding=first.weight.shape[-1] // 2)
    scale = norm.weight / (norm.running_var + norm.eps) ** 0.5
    return (x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def grow(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, like.shape[2:], mode="bilinear")


def by_hand(d: PartialDecoder, maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    c3, c4, c5 = (conv(block, x).clamp(min=0) for block, x in zip(d.reduce, maps, strict=True))
    a4 = conv(d.multiply_5_4, grow(c5, c4)) * c4
    a3 = conv(d.multiply_5_3, grow(c5, c3)) * conv(d.multiply_4_3, grow(c4, c3)) * c3
    b4 = conv(d.join_4, torch.cat([a4, conv(d.append_5, grow(c5, c4))], 1))
    b3 = conv(d.join_3, torch.cat([a3, conv(d.append_4, grow(b4, c3))], 1))
    features = conv(d.refine, b3)
    return (d.predict.weight[:, :, 0, 0] @ features.flatten(2)).reshape(len(c3), 1, *c3.shape[2:]) + d.predict.bias, features


def scrambled(channels: tuple[int, int, int], width: int) -> PartialDecoder:
    torch.manual_seed(0)
    decoder = PartialDecoder(channels, width).double().eval()
    for norm in decoder.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.normal_(norm.bias)
            nn.init.uniform_(norm.weight, 0.5, 2)
            nn.init.normal_(norm.running_mean)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    return decoder


def maps_of(channels: tuple[int, ...], sizes: tuple[tuple[int, int], ...], **kwargs: bool) -> list[Tensor]:
    return [torch.randn(2, c, *size, dtype=torch.float64, **kwargs) for c, size in zip(channels, sizes, strict=True)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_partial_decoder_follows_its_lines(sizes: tuple[tuple[int, int], ...]):
    decoder = scrambled((3, 5, 4), 2)
    maps = maps_of((3, 5, 4), sizes)
    global_map, features = decoder(*maps)
    assert global_map.shape == (2, 1, *sizes[0])
    assert features.shape == (2, decoder.out_channels, *sizes[0]) == (2, 6, *sizes[0])
    expected = by_hand(decoder, maps)
    torch.testing.assert_close(global_map, expected[0])
    torch.testing.assert_close(features, expected[1])


def test_gradients_are_exact():
    decoder = scrambled((2, 2, 2), 1)
    assert torch.autograd.gradcheck(decoder, maps_of((2, 2, 2), ((4, 4), (2, 2), (1, 1)), requires_grad=True))


def test_every_parameter_takes_part():
    torch.manual_seed(0)
    decoder = PartialDecoder((4, 4, 4), 4)
    decoder(torch.randn(2, 4, 8, 8), torch.randn(2, 4, 4, 4), torch.randn(2, 4, 2, 2))[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for name, p in decoder.named_parameters() if "bias" not in name)


@pytest.mark.parametrize(("channels", "width"), [((8, 8), 4), ((8, 8, 0), 4), ((8, 8, 8), 0)])
def test_bad_arguments_are_refused(channels: tuple[int, ...], width: int):
    with pytest.raises(ValueError, match="takes the channels of C_3, C_4 and C_5"):
        PartialDecoder(channels, width)


def test_another_number_of_channels_names_the_map():
    with pytest.raises(ValueError, match=r"C_4 must be \(N, 4, H, W\)"):
        PartialDecoder((3, 4, 5), 2)(torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 2, 2), torch.zeros(1, 5, 1, 1))
