"""What every layer must do, whichever it is: odd sizes, bfloat16, one graph for torch.compile, ONNX."""

import io
import warnings
from collections.abc import Callable

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.layers.cbam import CBAM
from mien.layers.cbam_erf import CBAMERF
from mien.layers.channel_attention import ChannelAttention
from mien.layers.csp import CSPBlock
from mien.layers.edge import EdgePath
from mien.layers.feature_map import resize
from mien.layers.gcca import GCCA
from mien.layers.hierarchical_shortcut import HierarchicalShortcut
from mien.layers.partial_decoder import PartialDecoder
from mien.layers.reverse_attention import ReverseAttention
from mien.layers.spatial_attention import SpatialAttention
from mien.layers.spatial_transformer import SpatialTransformer
from mien.layers.squeeze_excite import SqueezeExcite


class Family(nn.Module):
    """The layers of vgg16_gcca, one after the other, at odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.gcca = GCCA(8, 4)
        self.edge = EdgePath(8)
        self.decoder = PartialDecoder((8, 8, 8), 4)
        self.reverse = ReverseAttention()

    def forward(self, x: Tensor) -> Tensor:
        x = self.gcca(x)
        c4 = F.max_pool2d(x, 2)
        global_map, features = self.decoder(x, c4, F.max_pool2d(c4, 2))
        erased = self.reverse(c4, global_map)
        return torch.cat([erased, resize(self.edge(x), c4), resize(features, c4)], dim=1)


def tilted(transformer: SpatialTransformer) -> SpatialTransformer:
    """Move a transformer off the identity."""
    with torch.no_grad():
        transformer.regression.bias.copy_(torch.tensor([-20.0, 10, 5, -10, -30, 10]))
        transformer.regression.weight.normal_(std=10.0)
    return transformer


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "channel_attention": lambda: ChannelAttention(8, 4),
    "spatial_attention": lambda: SpatialAttention(7),
    "squeeze_excite": lambda: SqueezeExcite(8, 4),
    "cbam": lambda: CBAM(8, 4),
    "cbam_erf": lambda: CBAMERF(8, 4),
    "csp_gate": lambda: CSPBlock(8, 8, 1, 4, "gate"),
    "hierarchical_shortcut": lambda: HierarchicalShortcut(8, 12, 2),
    "spatial_transformer": lambda: tilted(SpatialTransformer(8, width=4)),
    "vgg16_gcca": Family,
}
SIZES = [(5, 5), (3, 3), (2, 2), (7, 4), (1, 1)]


@pytest.fixture(params=LAYERS)
def layer(request: pytest.FixtureRequest) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[request.param]().eval()


class Together(nn.Module):
    """Every layer on the same input: compiled and exported at once, each output on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(create() for create in LAYERS.values())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [layer(x) for layer in self.layers]


@pytest.fixture
def together() -> Together:
    torch.manual_seed(0)
    return Together().eval()


def test_odd_sizes(layer: nn.Module):
    for height, width in SIZES if not isinstance(layer, Family) else [(5, 5), (7, 4), (10, 10)]:
        y = layer(torch.randn(2, 8, height, width))
        if isinstance(layer, HierarchicalShortcut):
            expected = (2, 12, -(-height // 2), -(-width // 2))
        else:
            expected = (2, 21, height // 2, width // 2) if isinstance(layer, Family) else (2, 8, height, width)
        assert y.shape == expected
        assert torch.isfinite(y).all()


@pytest.mark.parametrize("training", [False, True])
def test_bfloat16_stays_near_float32(layer: nn.Module, training: bool):
    x = torch.rand(2, 8, 10, 10)
    expected = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(layer(x).float(), expected, rtol=0.1, atol=0.1)
        assert torch.isfinite(layer.train(training)(x)).all()


@pytest.mark.parametrize("training", [False, True])
def test_each_compiles_in_one_graph(together: Together, training: bool):
    torch._dynamo.reset()
    x = torch.rand(2, 8, 10, 10)
    compiled = torch.compile(together.train(training), fullgraph=True, backend="eager")
    torch.manual_seed(1)
    expected = together(x)
    torch.manual_seed(1)
    for ours, theirs in zip(compiled(x), expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.slow
def test_onnx_runtime_says_the_same_of_each(together: Together):
    x = torch.randn(2, 8, 5, 5)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(together, (x,), dynamo=True, opset_version=18, dynamic_shapes=shapes, verbose=False)
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for batch in (x, torch.randn(3, 8, 5, 5)):
        outputs = session.run(None, {session.get_inputs()[0].name: batch.numpy()})
        assert len(outputs) == len(LAYERS)
        for name, ours, theirs in zip(LAYERS, outputs, together(batch), strict=True):
            np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-5, err_msg=name)
