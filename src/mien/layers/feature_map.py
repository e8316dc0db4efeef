"""Feature maps as the layers take them: the check of their shape, and the change of their size.

Both are shared by the layers of vgg16_gcca. Its paper (Chen and Chen, "A Framework for Facial Expression Recognition Combining
Contextual Information and Attention Mechanism") names an upsampling U in eq. 4 and no method: here bilinear, as is usual for
partial decoders and reverse attention; maps shrink by averaging, so that no position goes unread.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def require_map(x: Tensor, channels: int, what: str) -> None:
    """Check that a layer got a feature map of its own width.

    Args:
        x: What it got.
        channels: Channels it was built for.
        what: What `x` is, for the message.

    Raises:
        ValueError: `x` is not (N, channels, H, W), or has no position.
    """
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"{what} must be (N, {channels}, H, W) with H and W at least 1, got {tuple(x.shape)}")


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Return a map at the size of another: averaged where it shrinks, bilinear where it grows.

    Args:
        x: The map, (N, C, H, W).
        like: The map (N, D, h, w) whose size is wanted.

    Returns:
        The map, (N, C, h, w).
    """
    size = (like.shape[2], like.shape[3])
    if x.shape[2:] == size:
        return x
    if x.shape[2] >= size[0] and x.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
