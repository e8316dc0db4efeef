import pytest
import torch

from mien.layers.stochastic_pool import StochasticPool2d


def by_hand(channel: list[float]) -> float:
    """Zeiler and Fergus, eq. 6, over one channel."""
    positive = [max(a, 0.0) for a in channel]
    total = sum(positive)
    if total == 0:
        return sum(channel) / len(channel)
    return sum(p / total * a for p, a in zip(positive, channel, strict=True))


@pytest.mark.parametrize("size", [(5, 5), (3, 3), (2, 2), (1, 1), (3, 4)])
def test_evaluation_is_the_expectation(size: tuple[int, int]):
    torch.manual_seed(0)
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    x[0, 0], x[0, 1] = 0, -x[0, 1].abs()
    expected = [[by_hand(x[n, c].flatten().tolist()) for c in range(3)] for n in range(2)]
    pooled = StochasticPool2d().eval()(x)
    assert pooled.shape == (2, 3, 1, 1)
    torch.testing.assert_close(pooled[:, :, 0, 0], torch.tensor(expected, dtype=torch.float64))


def test_training_draws_positions_by_their_activation():
    torch.manual_seed(0)
    channel = torch.tensor([4.0, 0.0, 1.0, 3.0, -2.0, 2.0])
    drawn = StochasticPool2d()(channel.reshape(1, 1, 2, 3).expand(1, 20_000, 2, 3)).flatten()
    for value, share in ((4.0, 0.4), (3.0, 0.3), (2.0, 0.2), (1.0, 0.1), (0.0, 0.0), (-2.0, 0.0)):
        assert (drawn == value).float().mean().item() == pytest.approx(share, abs=0.015)  # four standard errors


def test_training_never_draws_a_position_of_probability_0():
    torch.manual_seed(0)
    channel = torch.zeros(40, 40)
    channel[20, 20], channel[30, 30] = 1e-3, 1e-3
    drawn = StochasticPool2d()(channel.expand(1, 5_000, 40, 40))
    assert drawn.unique().tolist() == [channel[20, 20].item()]


def test_training_passes_nan_on():
    assert StochasticPool2d()(torch.full((1, 2, 3, 3), torch.nan)).isnan().all()


def test_training_is_repeated_by_its_seed():
    x, pool = torch.rand(2, 8, 5, 5), StochasticPool2d()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(pool(x))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_the_gradient_of_training_reaches_the_sampled_position():
    x = torch.rand(2, 4, 3, 3, requires_grad=True)
    pooled = StochasticPool2d()(x)
    pooled.sum().backward()
    assert x.grad.sum((2, 3)).tolist() == [[1.0] * 4] * 2
    assert torch.equal(x[x.grad == 1], pooled.flatten())


def test_the_gradient_of_evaluation_is_exact():
    torch.manual_seed(0)
    x = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(StochasticPool2d().eval(), (x,))


def test_half_precision_is_summed_in_float32():
    x = torch.full((1, 1, 256, 256), 300.0, dtype=torch.float16)  # both the sum and the squares are beyond float16
    assert StochasticPool2d().eval()(x).item() == 300


@pytest.mark.parametrize("shape", [(3, 4, 4), (1, 3, 0, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"must be \(N, C, H, W\)"):
        StochasticPool2d()(torch.zeros(shape))
