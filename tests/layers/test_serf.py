import math

import torch

from mien.layers.serf import serf


def by_the_equation(x: float) -> float:
    return x * math.erf(math.log1p(math.exp(x)))


def slope_by_the_equation(x: float) -> float:
    s = math.log1p(math.exp(x))
    return math.erf(s) + x * 2 / math.sqrt(math.pi) * math.exp(-s * s) / (1 + math.exp(-x))


def test_value_and_gradient_follow_the_equation():
    x = torch.linspace(-100, 100, 4001, dtype=torch.float64, requires_grad=True)
    y = serf(x)
    y.sum().backward()
    values = torch.tensor([by_the_equation(point) for point in x.tolist()], dtype=torch.float64)
    slopes = torch.tensor([slope_by_the_equation(point) for point in x.tolist()], dtype=torch.float64)
    torch.testing.assert_close(y.detach(), values, rtol=1e-7, atol=1e-12)
    torch.testing.assert_close(x.grad, slopes, rtol=1e-7, atol=1e-12)


def test_float32_and_bfloat16_have_no_nan():
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.linspace(-100, 100, 4001).to(dtype).requires_grad_()
        y = serf(x)
        y.sum().backward()
        assert torch.isfinite(y).all()
        assert torch.isfinite(x.grad).all()
        torch.testing.assert_close(y.double(), serf(x.double()), rtol=0.02, atol=0.02)


def test_gradient_is_exact():
    x = torch.linspace(-4, 4, 17, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(serf, (x,))


def test_a_little_passes_below_zero():
    assert -0.4 < serf(torch.tensor(-1.0)) < 0
