from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from mien.errors import MienError
from mien.models import create_model
from mien.models.dlib_resnet import BLOCKS, Block
from mien.transfer import restore_norms, start_from


@pytest.fixture(scope="module")
def convert(script):
    return script("convert_dlib")


@pytest.fixture(scope="module")
def layers() -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Filters, biases, scales and shifts of a network as dlib would keep it, drawn at random."""
    generator, found = np.random.default_rng(0), []
    shapes = [(32, 3, 7)]
    width = 32
    for outputs, _ in BLOCKS:
        shapes += [(outputs, width, 3), (outputs, outputs, 3)]
        width = outputs
    for outputs, inputs, side in shapes:
        filters = generator.normal(0, (inputs * side * side) ** -0.5, (outputs, inputs, side, side))
        rest = [generator.normal(centre, 0.2, outputs) for centre in (0, 1, 0)]
        found.append(tuple(values.astype("<f4") for values in (filters, *rest)))
    return found


def integer(value: int) -> bytes:
    """Return an integer as dlib writes it: how many bytes, then those."""
    length = (value.bit_length() + 7) // 8 or 1
    return bytes([length]) + value.to_bytes(length, "little")


def as_dlib_writes(layers) -> bytes:
    def layer(name: bytes, *values: np.ndarray) -> bytes:
        numbers = np.concatenate([value.ravel() for value in values])
        return integer(len(name)) + name + integer(2) + b"".join(map(integer, (len(numbers), 1, 1, 1))) + numbers.tobytes()

    parts = [layer(b"con_4", f, bias) + b"\x01\x07" + layer(b"affine_", scale, shift) for f, bias, scale, shift in layers]
    return b"\x01\x02" + b"\x01\x00".join(parts) + b"\x01\x01fc_2"


def dlib_forward(layers, x: Tensor) -> Tensor:
    """Return the mean of the last map, computed from the arrays as dlib's layers do."""
    rest = iter([[torch.from_numpy(value).double() for value in layer] for layer in layers])

    def convolve(x: Tensor, stride: int) -> Tensor:
        filters, bias, scale, shift = next(rest)
        y = F.conv2d(x, filters, bias, stride, filters.shape[-1] // 2)
        return y * scale[:, None, None] + shift[:, None, None]

    x = F.max_pool2d(convolve(x, 2).relu(), 3, 2, 1)
    for _, stride in BLOCKS:
        deep = convolve(convolve(x, stride).relu(), 1)
        short = torch.zeros_like(deep)
        short[:, : x.shape[1]] = F.avg_pool2d(x, 2, ceil_mode=True) if stride == 2 else x
        x = (deep + short).relu()
    return x.mean((2, 3))


def test_it_has_dlibs_29_convolutions(convert):
    model = create_model("dlib_resnet")
    assert sum(p.numel() for p in model.parameters()) == 5_580_071
    assert len(list(convert._pairs(model))) == 29


def test_a_converted_file_computes_what_dlibs_layers_do(convert, script, layers):
    model = create_model("dlib_resnet").eval().double()
    pairs = list(convert._pairs(model))
    convert.load(pairs, as_dlib_writes(layers))
    x = torch.rand(3, 3, 80, 72, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = dlib_forward(layers, x)
    torch.testing.assert_close(model.forward_features(x).mean((2, 3)), expected, rtol=1e-6, atol=1e-6)

    restore_norms(model, script("conversion").norm_names(model), [x[:1], x[1:]])
    torch.testing.assert_close(model.forward_features(x).mean((2, 3)), expected, rtol=1e-5, atol=1e-5)
    model.train()  # the norms now hold what this batch has, so training begins where the file ends
    torch.testing.assert_close(model.forward_features(x).mean((2, 3)), expected, rtol=1e-4, atol=1e-4)


def test_a_file_with_layers_missing_is_refused(convert, layers):
    model = create_model("dlib_resnet")
    with pytest.raises(SystemExit, match="expected 29 convolutions and as many affine layers, found 56 layers"):
        convert.load(list(convert._pairs(model)), as_dlib_writes(layers[:-1]))


def test_a_shortcut_is_averaged_and_filled_with_zeros():
    block = Block(2, 3, 2).eval()
    for parameter in block.parameters():
        parameter.data.zero_()
    x = torch.arange(2 * 3 * 4.0).reshape(1, 2, 3, 4)
    expected = torch.tensor([[[2.5, 4.5], [8.5, 10.5]], [[14.5, 16.5], [20.5, 22.5]], [[0, 0], [0, 0]]])
    torch.testing.assert_close(block(x)[0], expected)


def test_fewer_blocks_take_smaller_images():
    for depth, side in ((14, 33), (10, 9), (3, 3)):
        model = create_model("dlib_resnet", in_channels=1, depth=depth)
        assert model(torch.rand(2, 1, side, side)).shape == (2, 7)
        with pytest.raises(MienError, match=f"resize to {side}x{side} or more"):
            model(torch.rand(2, 1, side, side - 1))


def test_its_first_blocks_start_from_the_whole_network(tmp_path: Path):
    whole, first = (
        create_model("dlib_resnet", in_channels=1).eval(),
        create_model("dlib_resnet", in_channels=1, depth=10).eval(),
    )
    assert sum(p.numel() for p in first.parameters()) == 1_148_263
    save_file(whole.state_dict(), tmp_path / "whole.safetensors")
    report = start_from(first, tmp_path / "whole.safetensors")
    assert report.fresh == ["classifier.weight"]  # of 128 channels where the whole has 256
    x = torch.rand(2, 1, 56, 56, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(first.forward_features(x), whole.blocks[:10](whole.stem(x)))
    with pytest.raises(MienError, match="1 to 14, got 15"):
        create_model("dlib_resnet", depth=15)
