import pytest
import torch
from torch import nn

from mien.models import create_model

ROWS = [88, 19, 1260, 5204, 12864, 85068, 430884, 1076588, 262144, 32263]
TABLE_2 = [
    {"spatial_attention": False, "channel_attention": False, "groups": None},
    {"spatial_attention": False, "channel_attention": False, "groups": 1},
    {"spatial_attention": False, "channel_attention": False, "groups": 2},
    {"spatial_attention": False, "channel_attention": False, "groups": 4},
    {"spatial_attention": False, "channel_attention": False, "groups": 8},
    {"groups": None},
    {"groups": 4},
]
GOLDEN = [0.0126056071, 0.0200132224, -0.0056565085, 0.026071356, 0.0670161634, 0.0136162002, -0.0477027556]


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def test_every_row_of_table_1_has_its_parameters():
    model = create_model("sa_csp_ca")
    rows = [model.stem, model.spatial_attention, *model.blocks, model.channel_attention, model.classifier]
    assert [count(row) for row in rows] == ROWS
    assert count(model) == sum(ROWS) == 1_906_382


def test_shapes_are_those_of_table_1():
    model = create_model("sa_csp_ca").eval()
    x = model.spatial_attention(model.stem(torch.zeros(1, 1, 40, 40)))
    shapes = [tuple(x.shape[1:])]
    for block in model.blocks:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    expected = [(8, 40, 40), (24, 40, 40), (32, 20, 20), (72, 10, 10), (216, 5, 5), (360, 3, 3), (512, 2, 2)]
    assert shapes == expected
    assert model.classifier(model.channel_attention(x)).shape == (1, 7, 2, 2)


def test_forward_backward_pass_size_is_near_the_papers():
    """torchsummary's figure: outputs of every module but containers, times two, in MiB of float32; the paper prints 9.46."""
    model, outputs = create_model("sa_csp_ca").eval(), []
    for module in model.modules():
        if module is not model and not isinstance(module, nn.Sequential):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output.numel()))
    model(torch.zeros(1, 1, 40, 40))
    assert sum(outputs) * 2 * 4 / 2**20 == pytest.approx(9.46, abs=0.01)


@pytest.mark.parametrize("arguments", TABLE_2, ids=str)
def test_every_row_of_table_2_is_one_call(arguments: dict):
    with torch.device("meta"):
        model = create_model("sa_csp_ca", **arguments)
    attention = (19 if arguments.get("spatial_attention", True) else 0) + (
        262144 if arguments.get("channel_attention", True) else 0
    )
    assert count(model) == 1_906_382 - 262_163 + attention
    assert model(torch.zeros(2, 1, 40, 40, device="meta")).shape == (2, 7)


def test_groups_change_the_answer_but_no_parameter():
    outputs = []
    for groups in (None, 2, 4, 8):
        torch.manual_seed(0)
        outputs.append(create_model("sa_csp_ca", groups=groups)(torch.linspace(-1, 1, 3200).reshape(2, 1, 40, 40)).detach())
    assert all((a - b).abs().max() > 1e-4 for i, a in enumerate(outputs) for b in outputs[:i])


def test_golden_logits():
    torch.manual_seed(0)
    model = create_model("sa_csp_ca").double()
    x = torch.linspace(-1, 1, 3200, dtype=torch.float64).reshape(2, 1, 40, 40)
    torch.testing.assert_close(model(x)[0].detach(), torch.tensor(GOLDEN, dtype=torch.float64), rtol=1e-5, atol=1e-9)
