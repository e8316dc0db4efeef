import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.models import create_model

BLOCKS = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *[(512, 1)] * 5, (1024, 2), (1024, 1)]
"""Output channels and stride of MobileNetV1's blocks (Howard et al. 2017, Table 1)."""


@pytest.fixture(scope="module")
def convert(script):
    return script("convert_faceres")


@pytest.fixture(scope="module")
def written() -> dict[str, np.ndarray]:
    """The arrays of the file, in its order, drawn at random."""
    generator, inputs = np.random.default_rng(0), 32

    def draw(*shape: int, deviation: float = 0.2, mean: float = 0.0) -> np.ndarray:
        return generator.normal(mean, deviation, shape).astype("<f4")

    found = {
        "gender_pred/kernel": draw(256, 1),
        "conv1/convolution/merged_input": draw(3, 3, 3, 32),
        "conv1_bn/batchnorm_1/sub": draw(32),
        "conv1_relu/Cast": np.array(6, "<f4"),
    }
    for number, (outputs, _) in enumerate(BLOCKS, start=1):
        found[f"conv_dw_{number}/depthwise_kernel"] = draw(3, 3, inputs, 1, deviation=0.3)
        found[f"conv_dw_{number}_bn/batchnorm_1/mul"] = draw(inputs, mean=1)
        found[f"conv_dw_{number}_bn/batchnorm_1/sub"] = draw(inputs)
        found[f"conv_pw_{number}/convolution/merged_input"] = draw(1, 1, inputs, outputs, deviation=inputs**-0.5)
        found[f"conv_pw_{number}_bn/batchnorm_1/sub"] = draw(outputs)
        inputs = outputs
    return found


def tensorflow_forward(found: dict[str, np.ndarray], x: Tensor) -> Tensor:
    """Return the last map, computed from the arrays as the graph says; `same` padding puts an odd pixel below and right."""
    arrays = {name: torch.from_numpy(value).double() for name, value in found.items()}

    def convolve(x: Tensor, kernel: Tensor, stride: int, depthwise: bool = False) -> Tensor:
        filters = kernel.permute(2, 3, 0, 1) if depthwise else kernel.permute(3, 2, 0, 1)
        padding = []
        for length in (x.shape[3], x.shape[2]):
            more = max((-(-length // stride) - 1) * stride + len(kernel) - length, 0)
            padding += [more // 2, more - more // 2]
        return F.conv2d(F.pad(x, padding), filters, stride=stride, groups=x.shape[1] if depthwise else 1)

    x = convolve(x, arrays["conv1/convolution/merged_input"], 2) + arrays["conv1_bn/batchnorm_1/sub"][:, None, None]
    x = x.clamp(0, 6)
    for number, (_, stride) in enumerate(BLOCKS, start=1):
        x = convolve(x, arrays[f"conv_dw_{number}/depthwise_kernel"], stride, depthwise=True)
        x = x * arrays[f"conv_dw_{number}_bn/batchnorm_1/mul"][:, None, None]
        x = (x + arrays[f"conv_dw_{number}_bn/batchnorm_1/sub"][:, None, None]).clamp(0, 6)
        x = convolve(x, arrays[f"conv_pw_{number}/convolution/merged_input"], 1)
        x = (x + arrays[f"conv_pw_{number}_bn/batchnorm_1/sub"][:, None, None]).clamp(0, 6)
    return x


@pytest.mark.parametrize("size", [96, 75])
def test_the_network_computes_what_the_file_says(script, convert, written, size):
    manifest = [{"weights": [{"name": name, "shape": list(a.shape), "dtype": "float32"} for name, a in written.items()]}]
    model = create_model(convert.MODEL, **convert.ARGUMENTS).eval().double()
    convert.load(model, script("conversion").arrays(manifest, b"".join(array.tobytes() for array in written.values())))
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        features = model.forward_features(x)
    expected = tensorflow_forward(written, x)
    assert expected.std() > 0.1
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
