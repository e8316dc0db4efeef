"""The edge path: one map of edges from a low-level feature map, by a convolution with a single kernel.

Paper: Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention Mechanism",
section 2.1 and Fig. 1 ("these features pass through a convolutional layer with a single kernel"). The paper gives no kernel
size: here 3x3, as in VGG, the smallest that can detect an edge. The edge map has no target of its own, so it is unbounded and
learns from the classification loss alone.

Checked against a convolution written out in float64.
"""

from __future__ import annotations

from torch import Tensor, nn

from mien.layers.feature_map import require_map


class EdgePath(nn.Module):
    """Compute one map of edges from a low-level feature map.

    Args:
        channels: Channels of the input.
        kernel_size: Side of the kernel, odd, px of the feature map.

    Raises:
        ValueError: No channel, or an even kernel.
    """

    def __init__(self, channels: int, kernel_size: int = 3) -> None:
        super().__init__()
        if channels < 1 or kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(
                f"an edge path needs at least one channel and an odd kernel, got channels={channels}, {kernel_size=}"
            )
        self.channels = channels
        self.conv = nn.Conv2d(channels, 1, kernel_size, padding=kernel_size // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the edge map, (N, 1, H, W), unbounded, for a feature map (N, C, H, W).

        Raises:
            ValueError: `x` has another number of channels.
        """
        require_map(x, self.channels, "the input of the edge path")
        return self.conv(x)
