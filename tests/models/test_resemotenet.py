import torch

from mien.models import create_model
from mien.models.resemotenet import ResidualBlock


def test_parameters_are_those_of_the_authors_code():
    with torch.device("meta"):
        model = create_model("resemotenet")
    assert sum(p.numel() for p in model.parameters()) == 80_238_599
    assert sum(p.numel() for p in model.squeeze_excite.parameters()) == 2 * 256 * 16
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    assert len(convolutions) == 3 + 3 * 3
    assert all(conv.bias is not None for conv in convolutions)


def test_dropout_stands_where_the_authors_code_has_it():
    with torch.device("meta"):
        model = create_model("resemotenet")
    assert [stage[-1].p for stage in model.stages] == [0.2, 0.2, 0]
    assert [layer[-1].p for layer in model.head] == [0.5, 0.5, 0.5]


def test_shapes_at_64_px():
    with torch.device("meta"):
        model = create_model("resemotenet").eval()
        x = torch.zeros(2, 3, 64, 64)
        stages = model.stages(x)
        assert stages.shape == (2, 256, 8, 8)
        assert [tuple(model.blocks[: i + 1](stages).shape[1:]) for i in range(3)] == [(512, 4, 4), (1024, 2, 2), (2048, 1, 1)]
        assert model.attention_maps(x)["squeeze_excite"].shape == (2, 8, 8)


def test_a_residual_block_adds_its_two_paths():
    torch.manual_seed(0)
    block = ResidualBlock(4, 6).double().eval()
    x = torch.randn(2, 4, 5, 5, dtype=torch.float64)
    a, norm_a, _, b, norm_b = block.residual
    conv, norm = block.shortcut
    expected = torch.clamp(norm_b(b(torch.clamp(norm_a(a(x)), min=0))) + norm(conv(x)), min=0)
    torch.testing.assert_close(block(x), expected)
    assert block(x).shape == (2, 6, 3, 3)
