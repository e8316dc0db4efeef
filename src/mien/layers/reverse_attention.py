"""Reverse attention: look where the coarser prediction has not looked yet.

Paper: Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
section 2.5; the idea is that of Chen et al., "Reverse Attention for Salient Object Detection" (ECCV 2018):

    R_i = C_i * A_i                      (3)
    A_i = 1 - sigmoid(U(C_{i+1}))        (4)

Eq. 4 writes C_{i+1} for what the text calls the prediction of the (i+1)-th lateral output: a map of one channel, which every
channel of C_i is multiplied by. A map of as many channels as C_i is accepted as well, as eq. 4 reads to the letter. U is
`mien.layers.feature_map.resize`; the cascade from coarse to fine belongs to the network.

Checked against eqs. 3 and 4 in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.layers.feature_map import resize


class ReverseAttention(nn.Module):
    """Erase from a feature map what a prediction marks already; no parameters."""

    def attention(self, features: Tensor, prediction: Tensor) -> Tensor:
        """Return A_i of eq. 4, (N, 1 or C, H, W) in (0, 1).

        Args:
            features: C_i, (N, C, H, W).
            prediction: The next coarser prediction, (N, 1 or C, h, w), unbounded.

        Raises:
            ValueError: The two do not fit.
        """
        if features.ndim != 4 or prediction.ndim != 4 or prediction.shape[1] not in (1, features.shape[1]):
            shapes = f"{tuple(features.shape)} and {tuple(prediction.shape)}"
            raise ValueError(f"reverse attention takes features (N, C, H, W) and a prediction (N, 1 or C, h, w), got {shapes}")
        return torch.sigmoid(-resize(prediction, features))  # 1 - sigmoid(z), without its cancellation for large z

    def forward(self, features: Tensor, prediction: Tensor) -> Tensor:
        """Return R_i of eq. 3, same shape as `features`."""
        return features * self.attention(features, prediction)
