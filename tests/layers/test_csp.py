import pytest
import torch

from mien.layers.csp import BLOCKS, ChannelShuffle, CSPBlock

ROWS = [
    (8, 24, 1, 1260),
    (24, 32, 2, 5204),
    (32, 72, 2, 12864),
    (72, 216, 2, 85068),
    (216, 360, 2, 430884),
    (360, 512, 2, 1076588),
]


def test_shuffle_interleaves_the_groups():
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert ChannelShuffle(6, 2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert ChannelShuffle(6, 1)(x) is x


def test_shuffles_of_g_and_c_over_g_groups_undo_each_other():
    x = torch.randn(2, 24, 3, 3)
    assert torch.equal(ChannelShuffle(24, 6)(ChannelShuffle(24, 4)(x)), x)


def test_shuffle_refuses_channels_the_groups_do_not_divide():
    with pytest.raises(ValueError, match="10 channels cannot be shuffled in 4 groups"):
        ChannelShuffle(10, 4)


@pytest.mark.parametrize(("inputs", "outputs", "stride", "count"), ROWS)
@pytest.mark.parametrize("groups", [None, 1, 2, 4, 8])
@pytest.mark.parametrize("kind", BLOCKS)
def test_parameters_are_those_of_table_1(inputs: int, outputs: int, stride: int, count: int, groups: int | None, kind: str):
    block = CSPBlock(inputs, outputs, stride, groups, kind)
    formula = 11 * inputs**2 / 2 + inputs * outputs / 2 + outputs**2 + 47 * inputs / 2 + 2 * outputs
    assert sum(p.numel() for p in block.parameters()) == count == formula


@pytest.mark.parametrize("size", [(5, 5), (3, 3), (2, 2), (7, 4)])
@pytest.mark.parametrize("kind", BLOCKS)
def test_odd_sizes_round_up(size: tuple[int, int], kind: str):
    x = torch.randn(2, 8, *size)
    assert CSPBlock(8, 12, 2, 4, kind)(x).shape == (2, 12, (size[0] + 1) // 2, (size[1] + 1) // 2)


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_parameter_and_every_channel_takes_part(kind: str):
    torch.manual_seed(0)
    block = CSPBlock(8, 12, 2, 4, kind)
    x = torch.randn(4, 8, 6, 6, requires_grad=True)
    block(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
    assert (x.grad.abs().sum((0, 2, 3)) > 0).all()


@pytest.mark.parametrize("groups", [None, 1, 2, 4])
def test_folding_the_shuffle_changes_no_output(groups: int | None):
    torch.manual_seed(0)
    block = CSPBlock(8, 12, 2, groups).double().eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    before = block(x)
    block.fold_shuffle()
    assert isinstance(block.shuffle, torch.nn.Identity)
    torch.testing.assert_close(block(x), before)


@pytest.mark.parametrize(
    ("kind", "groups", "reached"),
    [*(("fuse", groups, 16) for groups in (None, 2, 4, 8)), ("gate", None, 8), ("gate", 1, 8)]
    + [("gate", groups, 16) for groups in (2, 4, 8)],
)
def test_groups_decide_whether_the_halves_of_gated_blocks_meet(kind: str, groups: int | None, reached: int):
    """Count the outputs of two blocks that the first half of the input reaches while the gates are constant.

    Permuting channels or weights cannot change the count, so with a gate no weights make the two kinds of network equal.
    """
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(CSPBlock(16, 16, 1, groups, kind), CSPBlock(16, 16, 1, groups, kind)).double().eval()
    for name, parameter in blocks.named_parameters():
        parameter.data = torch.zeros_like(parameter) if "gate" in name else parameter.abs()  # positive, so that no ReLU is off
    x = torch.rand(1, 16, 4, 4, dtype=torch.float64, requires_grad=True)
    sums = blocks(x).sum((0, 2, 3))
    gradients = [torch.autograd.grad(value, x, retain_graph=True)[0][:, :8] for value in sums]
    assert sum(bool(gradient.any()) for gradient in gradients) == reached


def test_a_gate_scales_channels_and_the_shuffle_follows():
    torch.manual_seed(0)
    block = CSPBlock(8, 12, 2, 4, "gate").double().eval()
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    light, deep = block.activate(x).chunk(2, dim=1)
    joined = torch.cat([block.light(light), block.deep(deep + block.residual(deep))], dim=1)
    first, second = block.gate.squeeze.weight, block.gate.excite.weight
    weights = torch.sigmoid(torch.clamp(joined.flatten(2).mean(2) @ first.T, min=0) @ second.T)
    order = [j * 3 + i for i in range(3) for j in range(4)]
    torch.testing.assert_close(block(x), (joined * weights[:, :, None, None])[:, order])
    block.fold_shuffle()
    assert isinstance(block.shuffle, ChannelShuffle), "a gate has no convolution to fold the shuffle into"


def test_an_unknown_block_is_refused():
    with pytest.raises(ValueError, match="block must be 'fuse' or 'gate', got 'other'"):
        CSPBlock(8, 12, 2, 4, "other")


@pytest.mark.parametrize("kind", BLOCKS)
def test_gradients_are_exact(kind: str):
    torch.manual_seed(0)
    block = CSPBlock(4, 4, 2, 2, kind).double().eval()
    x = torch.randn(1, 4, 4, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (x,))
