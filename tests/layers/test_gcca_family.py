"""What all layers of vgg16_gcca must stand: half precision, one graph, export."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from mien.layers.edge import EdgePath
from mien.layers.feature_map import resize
from mien.layers.gcca import GCCA
from mien.layers.partial_decoder import PartialDecoder
from mien.layers.reverse_attention import ReverseAttention


class Family(nn.Module):
    """All of them, one after the other, at odd sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.gcca = GCCA(8, 4)
        self.edge = EdgePath(8)
        self.decoder = PartialDecoder((8, 8, 8), 4)
        self.reverse = ReverseAttention()

    def forward(self, x: Tensor) -> Tensor:
        x = self.gcca(x)
        c4 = nn.functional.max_pool2d(x, 2)
        global_map, features = self.decoder(x, c4, nn.functional.max_pool2d(c4, 2))
        erased = self.reverse(c4, global_map)
        return torch.cat([erased, resize(self.edge(x), c4), resize(features, c4)], dim=1)


@pytest.fixture
def family() -> Family:
    torch.manual_seed(0)
    return Family().eval()


@pytest.mark.parametrize("training", [False, True])
def test_half_precision_stays_near_float32(family: Family, training: bool):
    x = torch.rand(2, 8, 10, 10)
    expected = family(x)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(family(x).float(), expected, rtol=0.1, atol=0.1)
        assert torch.isfinite(family.train(training)(x)).all()


@pytest.mark.parametrize("training", [False, True])
def test_one_graph(family: Family, training: bool):
    x = torch.rand(2, 8, 10, 10)
    family.train(training)
    compiled = torch.compile(family, fullgraph=True, backend="eager")
    torch.manual_seed(1)
    expected = family(x)
    torch.manual_seed(1)
    torch.testing.assert_close(compiled(x), expected)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the exporter's own deprecations
def test_onnx_agrees(family: Family, tmp_path: Path):
    path, x = tmp_path / "family.onnx", torch.rand(3, 8, 12, 12)
    shapes = ({0: torch.export.Dim("batch", min=1)},)
    torch.onnx.export(
        family, (x[:2],), str(path), input_names=["x"], dynamic_shapes=shapes, opset_version=18, dynamo=True, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"x": x.numpy()})[0], family(x).detach().numpy(), rtol=1e-4, atol=1e-5)
