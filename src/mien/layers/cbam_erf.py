"""CBAM-ERF: CBAM with Serf instead of ReLU in its channel attention.

Paper: Shang, "Facial Expression Recognition method based on residual network and attention mechanism", section 3.3 and eq. 2.
The paper gives neither reduction nor kernel size; here they are those of CBAM, 16 and 7x7.
"""

from __future__ import annotations

from mien.layers.cbam import CBAM
from mien.layers.serf import serf


class CBAMERF(CBAM):
    """CBAM with Serf in its channel attention.

    Args:
        channels: Channels of the input, a multiple of `reduction`.
        reduction: Ratio of the channels to the hidden layer of the channel attention.
        kernel_size: Side of the spatial attention's convolution, odd, px.
        channel_max_pool: Let the channel attention pool the maximum as well as the mean, as in CBAM. The paper's text mentions
            the mean alone.

    Raises:
        ValueError: `channels` is not divisible by `reduction`.
    """

    def __init__(self, channels: int, reduction: int = 16, kernel_size: int = 7, channel_max_pool: bool = True) -> None:
        super().__init__(channels, reduction, kernel_size, serf, channel_max_pool)
