import functools

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mien.errors import MienError
from mien.models import Model, create_model, names
from mien.models.cost import layer_costs, model_cost

TABLE_1 = [  # of sa_csp_ca: operator, input, output, parameters
    ("Conv2d BatchNorm2d ReLU", (1, 40, 40), (8, 40, 40), 88),
    ("SpatialAttention", (8, 40, 40), (8, 40, 40), 19),
    ("CSPBlock", (8, 40, 40), (24, 40, 40), 1260),
    ("CSPBlock", (24, 40, 40), (32, 20, 20), 5204),
    ("CSPBlock", (32, 20, 20), (72, 10, 10), 12864),
    ("CSPBlock", (72, 10, 10), (216, 5, 5), 85068),
    ("CSPBlock", (216, 5, 5), (360, 3, 3), 430884),
    ("CSPBlock", (360, 3, 3), (512, 2, 2), 1076588),
    ("ChannelAttention", (512, 2, 2), (512, 2, 2), 262144),
    ("Conv2d", (512, 2, 2), (7, 2, 2), 32263),
]


@functools.cache
def build(name: str, **arguments) -> Model:
    with torch.device("meta"):
        return create_model(name, **arguments)


@pytest.mark.parametrize("name", names())
def test_macs_are_half_the_flops_torch_counts_and_layers_add_up(name: str):
    model = build(name)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, model.in_channels, *model.input_size, device="meta"))
    model.train()
    layers, whole = layer_costs(model), model_cost(model)
    assert whole.macs == counter.get_total_flops() / 2
    assert sum(layer.parameters for layer in layers) == whole.parameters == sum(p.numel() for p in model.parameters())
    assert sum(layer.macs for layer in layers) == whole.macs > 0
    assert layers[0].input_shape == whole.input_shape == (model.in_channels, *model.input_size)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("block", ["fuse", "gate"])
def test_layers_of_sa_csp_ca_are_the_rows_of_its_table_1(block: str):
    layers = layer_costs(build("sa_csp_ca", block=block))
    assert [(row.operator, row.input_shape, row.output_shape, row.parameters) for row in layers] == TABLE_1


def test_a_row_of_each_bottleneck_and_of_each_attention_outside_one():
    layers = {row.name: row.operator for row in layer_costs(build("resnet50_cbam_erf", placement="after"))}
    assert (layers["backbone.layer1.0.0"], layers["backbone.layer1.0.1"]) == ("Bottleneck", "CBAMERF")


def test_another_size_costs_more():
    model = build("vanilla_cnn")
    small, large = model_cost(model), model_cost(model, (96, 96))
    assert large.macs == pytest.approx(4 * small.macs, rel=0.001)
    assert large.input_shape == (1, 96, 96)
    with pytest.raises(MienError, match="too small"):
        model_cost(model, (4, 4))
