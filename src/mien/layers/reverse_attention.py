"""Reverse attention: attend to what the coarser prediction does not mark.

Paper: Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
section 2.5; the idea is that of Chen et al., "Reverse Attention for Salient Object Detection" (ECCV 2018):

    R_i = C_i * A_i                      (3)
    A_i = 1 - sigmoid(U(C_{i+1}))        (4)

Eq. 4 writes C_{i+1}, but the text calls it the prediction of the (i+1)-th lateral output: a map of one channel that multiplies
every channel of C_i. A map with the channels of C_i, as eq. 4 literally says, works as well. U is
`mien.layers.feature_map.resize`; the cascade from coarse to fine is in the network.

Checked against eqs. 3 and 4 in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mien.layers.feature_map import resize


class ReverseAttention(nn.Module):
    """Erase from a feature map what a prediction marks; no parameters."""

    def attention(self, features: Tensor, prediction: Tensor) -> Tensor:
        """Return A_i of eq. 4, (N, 1 or C, H, W) in (0, 1).

        Args:
            features: C_i, (N, C, H, W).
            prediction: The next coarser prediction, (N, 1 or C, h, w), unbounded.

        Raises:
            ValueError: The shapes do not fit.
        """
        if features.ndim != 4 or prediction.ndim != 4 or prediction.shape[1] not in (1, features.shape[1]):
            shapes = f"{tuple(features.shape)} and {tuple(prediction.shape)}"
            raise ValueError(f"reverse attention takes features (N, C, H, W) and a prediction (N, 1 or C, h, w), got {shapes}")
        return torch.sigmoid(-resize(prediction, features))  # 1 - sigmoid(z), without its cancellation for large z

    def forward(self, features: Tensor, prediction: Tensor) -> Tensor:
        """Return R_i of eq. 3, same shape as `features`."""
        return features * self.attention(features, prediction)
