import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from mien.models import create_model
from mien.transfer import restore_norms

BLOCKS = [(16, 16, 1)] * 2 + [(16, 32, 2), (32, 32, 1), (32, 32, 1), (32, 64, 2), (64, 64, 1), (64, 64, 1)]
BLOCKS += [(64, 128, 2), (128, 128, 1), (128, 128, 1), (128, 128, 2), (128, 128, 1), (128, 128, 1)]
"""Input channels, output channels and stride of the blocks in the published graph."""


@pytest.fixture(scope="module")
def convert(script):
    return script("convert_facemesh")


@pytest.fixture(scope="module")
def written() -> dict[str, np.ndarray]:
    """The trunk's arrays under the names of the published graph, in float16, drawn at random."""
    generator = np.random.default_rng(0)
    found = {"output_mesh/Const": np.array([-1, 1404], "<i4")}

    def draw(name: str, *shape: int, deviation: float = 0.2) -> None:
        found[name] = generator.normal(0, deviation, shape).astype("<f2")

    draw("conv2d_1/Conv2D_weights", 3, 3, 3, 16)
    draw("conv2d_1/Conv2D_bn_offset", 16)
    draw("p_re_lu_1/Neg", 1, 1, 16)
    for number, (inputs, outputs, _) in enumerate(BLOCKS, start=1):
        draw(f"depthwise_conv2d_{number}/depthwise/ReadVariableOp", 3, 3, inputs, 1, deviation=0.3)
        draw(f"conv2d_{number + 1}/Conv2D_weights", 1, 1, inputs, outputs, deviation=inputs**-0.5)
        draw(f"conv2d_{number + 1}/Conv2D_bn_offset", outputs)
        draw(f"p_re_lu_{number + 1}/Neg", 1, 1, outputs)
    return {f"StatefulPartitionedCall/model_1/{name}": value for name, value in found.items()}


def as_published(written: dict[str, np.ndarray]) -> tuple[list[dict[str, list[dict[str, object]]]], bytes]:
    """Return the list of weights and the file of weights, as TensorFlow.js has them."""
    weights = []
    for name, array in written.items():
        entry = {"name": name, "shape": list(array.shape), "dtype": "int32" if array.dtype.kind == "i" else "float32"}
        if array.dtype.kind == "f":
            entry["quantization"] = {"dtype": "float16", "original_dtype": "float32"}
        weights.append(entry)
    return [{"weights": weights}], b"".join(array.tobytes() for array in written.values())


def tensorflow_forward(written: dict[str, np.ndarray], x: Tensor) -> Tensor:
    """Return the last map, computed from the arrays as the graph says; `same` padding puts an odd pixel below and right."""
    arrays = {name.split("model_1/")[1]: torch.from_numpy(value).double() for name, value in written.items()}

    def convolve(x: Tensor, filters: Tensor, stride: int, groups: int = 1) -> Tensor:
        padding = []
        for length in (x.shape[3], x.shape[2]):
            more = max((-(-length // stride) - 1) * stride + filters.shape[2] - length, 0)
            padding += [more // 2, more - more // 2]
        return F.conv2d(F.pad(x, padding), filters, stride=stride, groups=groups)

    def activate(x: Tensor, number: int) -> Tensor:
        return x.clamp(min=0) + arrays[f"p_re_lu_{number}/Neg"].view(-1, 1, 1) * x.clamp(max=0)

    x = convolve(x, arrays["conv2d_1/Conv2D_weights"].permute(3, 2, 0, 1), 2)
    x = activate(x + arrays["conv2d_1/Conv2D_bn_offset"][:, None, None], 1)
    for number, (inputs, outputs, stride) in enumerate(BLOCKS, start=1):
        kernel = arrays[f"depthwise_conv2d_{number}/depthwise/ReadVariableOp"]
        deep = convolve(x, kernel.permute(2, 3, 0, 1), stride, groups=inputs)
        deep = convolve(deep, arrays[f"conv2d_{number + 1}/Conv2D_weights"].permute(3, 2, 0, 1), 1)
        deep += arrays[f"conv2d_{number + 1}/Conv2D_bn_offset"][:, None, None]
        short = F.max_pool2d(x, 2) if stride == 2 else x
        x = activate(deep + torch.cat([short, torch.zeros(len(x), outputs - inputs, *short.shape[2:])], dim=1), number + 1)
    return x


def test_a_converted_file_computes_what_the_graph_says(convert, script, written):
    model = create_model("facemesh").eval().double()
    convert.load(model, script("conversion").arrays(*as_published(written)))
    x = torch.rand(3, 3, 96, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = tensorflow_forward(written, x)
    assert expected.shape == (3, 128, 3, 2)
    assert expected.std() > 0.1
    torch.testing.assert_close(model.forward_features(x), expected, rtol=1e-6, atol=1e-6)

    restore_norms(model, script("conversion").norm_names(model), [x[:1], x[1:]])
    torch.testing.assert_close(model.forward_features(x), expected, rtol=1e-6, atol=1e-6)
    model.train()  # the norms now hold what this batch has, so training begins where the file ends
    torch.testing.assert_close(model.forward_features(x), expected, rtol=1e-4, atol=1e-4)


def test_it_has_the_trunks_parameters():
    # 15 convolutions have a bias in the graph, here a norm's; each adds a norm's weight
    model = create_model("facemesh", in_channels=3)
    trunk = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("classifier"))
    outputs = 16 + sum(outputs for _, outputs, _ in BLOCKS)
    assert trunk == 9 * 3 * 16 + sum(9 * i + i * o for i, o, _ in BLOCKS) + 3 * outputs


@pytest.mark.parametrize("size", [(32, 32), (75, 97)])
def test_a_size_that_is_no_multiple_of_32_is_rounded_down(size):
    model = create_model("facemesh").eval()
    with torch.no_grad():
        features = model.forward_features(torch.rand(1, 3, *size))
    assert features.shape == (1, 128, size[0] // 32, size[1] // 32)
