"""What every layer must do, whichever it is: odd sizes, bfloat16, torch.compile, ONNX."""

import io
import warnings
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from mien.layers.cbam import CBAM
from mien.layers.cbam_erf import CBAMERF
from mien.layers.channel_attention import ChannelAttention
from mien.layers.hierarchical_shortcut import HierarchicalShortcut
from mien.layers.serf import Serf
from mien.layers.spatial_attention import SpatialAttention
from mien.layers.spatial_transformer import SpatialTransformer
from mien.layers.squeeze_excite import SqueezeExcite

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "channel_attention": lambda: ChannelAttention(8, 4),
    "spatial_attention": lambda: SpatialAttention(7),
    "squeeze_excite": lambda: SqueezeExcite(8, 4),
    "cbam": lambda: CBAM(8, 4),
    "cbam_erf": lambda: CBAMERF(8, 4),
    "serf": Serf,
    "hierarchical_shortcut": lambda: HierarchicalShortcut(8, 12, 2),
    "spatial_transformer": lambda: tilted(SpatialTransformer(8, width=4)),
}
SIZES = [(5, 5), (3, 3), (2, 2), (7, 4), (1, 1)]


def tilted(transformer: SpatialTransformer) -> SpatialTransformer:
    """Move a transformer off the identity."""
    with torch.no_grad():
        transformer.regression.bias.copy_(torch.tensor([-20.0, 10, 5, -10, -30, 10]))
        transformer.regression.weight.normal_(std=10.0)
    return transformer


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[request.param]().eval()


def test_odd_sizes(layer: nn.Module):
    for height, width in SIZES:
        y = layer(torch.randn(2, 8, height, width))
        expected = (
            (2, 12, -(-height // 2), -(-width // 2)) if isinstance(layer, HierarchicalShortcut) else (2, 8, height, width)
        )
        assert y.shape == expected
        assert torch.isfinite(y).all()


def test_bfloat16_stays_near_float32(layer: nn.Module):
    x = torch.randn(2, 8, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
    torch.testing.assert_close(y.float(), layer(x), atol=0.1, rtol=0.1)


def test_compiles_in_one_graph(layer: nn.Module):
    torch._dynamo.reset()
    x = torch.randn(2, 8, 6, 6)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="eager")(x), layer(x))


def test_onnx_runtime_says_the_same(layer: nn.Module):
    x = torch.randn(2, 8, 5, 5)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(layer, (x,), dynamo=True, opset_version=18, dynamic_shapes=shapes, verbose=False)
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue())
    for batch in (x, torch.randn(3, 8, 5, 5)):
        (y,) = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        np.testing.assert_allclose(y, layer(batch).detach().numpy(), atol=1e-5)
