"""Serf, a smooth activation with small negative values below zero.

Papers: Nag et al. 2023 (Serf); Shang, "Facial Expression Recognition method based on residual network and attention
mechanism", eq. 2: `f(x) = x erf(ln(1 + e^x))`. Computed with softplus, which neither overflows nor loses precision.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def serf(x: Tensor) -> Tensor:
    """Return `x erf(ln(1 + e^x))`, same shape.

    >>> serf(torch.tensor([0.0, 100.0]))
    tensor([  0., 100.])
    """
    return x * torch.erf(F.softplus(x))
