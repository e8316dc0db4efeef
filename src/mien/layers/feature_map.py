"""Shape check and resizing of feature maps, shared by the layers of vgg16_gcca.

Its paper (Chen and Chen, "A Framework for Facial Expression Recognition Combining Contextual Information and Attention
Mechanism") has an upsampling U in eq. 4 but gives no method. Here it is bilinear, as is usual for partial decoders and reverse
attention. Maps are made smaller by averaging, so that every position counts.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def require_map(x: Tensor, channels: int, what: str) -> None:
    """Check that a feature map has the channels a layer was built for.

    Args:
        x: The feature map.
        channels: The layer's channels.
        what: Description of `x` for the error message.

    Raises:
        ValueError: `x` is not (N, channels, H, W), or H or W is 0.
    """
    if x.ndim != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"{what} must be (N, {channels}, H, W) with H and W at least 1, got {tuple(x.shape)}")


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Return a map resized to the size of another: by averaging to a smaller size, bilinearly to a larger one.

    Args:
        x: The map, (N, C, H, W).
        like: A map of the wanted size, (N, D, h, w).

    Returns:
        The map, (N, C, h, w).
    """
    size = (like.shape[2], like.shape[3])
    if x.shape[2:] == size:
        return x
    if x.shape[2] >= size[0] and x.shape[3] >= size[1]:
        return F.adaptive_avg_pool2d(x, size)
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
