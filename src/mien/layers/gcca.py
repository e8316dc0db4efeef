"""Group convolutional channel attention (GCCA): channel weights from three pooled descriptors fused channel by channel.

Paper: Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
section 2.3, Fig. 3:

    P(F) = sigmoid(W2(relu(W1(relu(G(F_avg; F_max; F_rdm))))))     (1)
    F'   = P(F) * F + F                                            (2)

with G a 1x1 convolution of one group per channel, W1 from C to C/16 and W2 from C/16 to C channels. Where the paper
is silent, we chose: the random pooling is stochastic pooling (`mien.layers.stochastic_pool`); the three convolutions have a
bias; G starts as the mean of its three inputs. They are not negative after a ReLU, so with a random start one channel in eight
would be stuck at zero.

Checked against eqs. 1 and 2 in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.layers.feature_map import require_map
from mien.layers.stochastic_pool import StochasticPool2d


class GCCA(nn.Module):
    """Scale every channel of a feature map by one weight in (1, 2); random in training, fixed in evaluation.

    Args:
        channels: Channels C of the input, a multiple of `reduction`.
        reduction: Ratio of the channels to the hidden layer; the paper's is 16.

    Raises:
        ValueError: `reduction` does not divide `channels`.
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        if reduction < 1 or channels < reduction or channels % reduction:
            raise ValueError(f"{channels} channels cannot be reduced by {reduction}; choose a divisor of {channels}")
        self.channels = channels
        self.random_pool = StochasticPool2d()
        self.group = nn.Conv2d(3 * channels, channels, 1, groups=channels)
        self.squeeze = nn.Conv2d(channels, channels // reduction, 1)
        self.excite = nn.Conv2d(channels // reduction, channels, 1)
        nn.init.constant_(self.group.weight, 1 / 3)
        nn.init.zeros_(self.group.get_parameter("bias"))

    def descriptors(self, x: Tensor) -> Tensor:
        """Return average, maximum and random pooling of each channel, (N, 3C, 1, 1), the three of a channel in a row."""
        average, maximum = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        return torch.stack([average, maximum, self.random_pool(x)], dim=2).flatten(1, 2)

    def attention(self, x: Tensor) -> Tensor:
        """Return the weights of eq. 1, (N, C, 1, 1) in (0, 1), for a feature map (N, C, H, W)."""
        require_map(x, self.channels, "the input of GCCA")
        fused = torch.relu(self.group(self.descriptors(x)))  # (N, C, 1, 1)
        return torch.sigmoid(self.excite(torch.relu(self.squeeze(fused))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the feature map of eq. 2, same shape as `x` (N, C, H, W).

        Raises:
            ValueError: `x` has another number of channels.
        """
        return self.attention(x) * x + x
