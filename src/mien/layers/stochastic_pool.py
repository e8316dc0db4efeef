"""Stochastic pooling over all positions of a channel: one position sampled in training, the expectation in evaluation.

Paper: Zeiler and Fergus, "Stochastic Pooling for Regularization of Deep Convolutional Neural Networks" (2013), eqs. 4-6: the
probability of a position is its activation over the sum of the region's, the training output is the activation of one sampled
position, the output at test time is the activations weighted by their probabilities. Deviations: the region is the whole
channel (the *random pooling* of vgg16_gcca's attention). Where the paper is silent, a negative activation has probability 0,
and if no activation is positive, all positions are equally likely.

Checked against a loop in float64, and the sampled frequencies against the probabilities.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StochasticPool2d(nn.Module):
    """Pool every channel to one value: random in training, from torch's generator, and deterministic in evaluation.

    In training, only the sampled position gets a gradient, as in max pooling.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return one value per channel, (N, C, 1, 1), for a feature map (N, C, H, W).

        Raises:
            ValueError: `x` is not (N, C, H, W), or H or W is 0.
        """
        if x.ndim != 4 or 0 in x.shape[2:]:
            raise ValueError(f"a feature map must be (N, C, H, W) with H and W at least 1, got {tuple(x.shape)}")
        values = x.flatten(2).to(torch.promote_types(x.dtype, torch.float32))  # (N, C, HW); a sum of 50,176 needs float32
        weights = values.relu()
        weights = torch.where(weights.amax(2, keepdim=True) > 0, weights, torch.ones_like(weights))
        pooled = _sample(values, weights) if self.training else _expect(values, weights)
        return pooled.unsqueeze(3).to(x.dtype)


def _sample(values: Tensor, weights: Tensor) -> Tensor:
    """Return one value per channel, its position drawn by weight."""
    with torch.no_grad():
        sums = weights.cumsum(2)
        drawn = (1 - torch.rand_like(sums[..., :1])) * sums[..., -1:]  # above 0, so that no position of weight 0 is drawn
        position = torch.searchsorted(sums, drawn).clamp(max=sums.shape[2] - 1)  # (N, C, 1); beyond the end if NaN
    return values.gather(2, position)


def _expect(values: Tensor, weights: Tensor) -> Tensor:
    return (weights / weights.sum(2, keepdim=True) * values).sum(2, keepdim=True)  # (N, C, 1)
