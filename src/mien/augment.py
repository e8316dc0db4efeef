"""Training augmentation: a batch of uint8 images in, a batch of network inputs out, on whatever device the batch lies.

The random part (`Augment`) is kornia's, drawn anew for every image. The end (`Finish`) is the preprocessing of one network, so
a student and its teacher see the same changed images, each in its own size. Between them `Damage` makes the student's images
worse than those its teacher sees.
"""

from __future__ import annotations

from typing import Any

import kornia.augmentation as K
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.preprocess import PreprocessSpec
from mien.recipe import AugmentPart


class Augment(nn.Module):
    """Random changes of a batch.

    Args:
        part: What to draw, from the recipe.
    """

    def __init__(self, part: AugmentPart) -> None:
        super().__init__()
        changes = _changes(part)
        self.change = K.AugmentationSequential(*changes) if changes else nn.Identity()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return float32 images (N, C, H, W) in [0, 1] from uint8 ones, grey (N, H, W) or RGB (N, H, W, 3)."""
        x = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return self.change(x.float() / 255).clamp(0, 1)


class Damage(nn.Module):
    """What bad light and bad cameras do, to a strength of its own for every image: blur, dimming, noise.

    Args:
        part: The strengths, from the recipe.
    """

    def __init__(self, part: AugmentPart) -> None:
        super().__init__()
        self.part = part
        side = 2 * max(1, round(3 * part.blur)) + 1
        self.blur = (
            K.RandomGaussianBlur((side, side), (min(0.05, part.blur / 2), part.blur), p=1.0) if part.blur else nn.Identity()
        )

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return damaged images from images (N, C, H, W) in [0, 1], of the same shape and range."""
        x = self.blur(x)
        if self.part.dim:
            x = x * (1 - self.part.dim * _strengths(x).square())
        if self.part.noise:
            x = x + self.part.noise * _strengths(x) * torch.randn_like(x)
        return x.clamp(0, 1)


def _strengths(x: Tensor) -> Tensor:
    """Return a number for every image of a batch, (N, 1, 1, 1), uniform in [0, 1)."""
    return torch.rand(len(x), 1, 1, 1, device=x.device)


class Finish(nn.Module):
    """The end of the way to a network: its channels, its size, its scale; the batched twin of `mien.preprocess.preprocess`.

    It does not smooth: what it gets was softened by augmentation.

    Args:
        spec: The network's preprocessing.
    """

    mean: Tensor
    std: Tensor
    luma: Tensor

    def __init__(self, spec: PreprocessSpec) -> None:
        super().__init__()
        self.spec = spec
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, -1, 1, 1))
        self.register_buffer("luma", torch.tensor([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1))  # ITU-R 601

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return float32 inputs (N, C, h, w) from images (N, 1 or 3, H, W) in [0, 1]."""
        if x.shape[1] == 3 and self.spec.channels == 1:
            x = (x * self.luma).sum(1, keepdim=True)
        if x.shape[-2:] != self.spec.size:
            x = F.interpolate(x, self.spec.size, mode="bilinear", align_corners=False, antialias=True)
        return (x.expand(-1, self.spec.channels, -1, -1) - self.mean) / self.std


def _changes(part: AugmentPart) -> list[Any]:
    """Return the random changes the recipe asks for, in order."""
    changes: list[Any] = []
    if part.flip:
        changes.append(K.RandomHorizontalFlip(p=part.flip))
    if part.degrees or part.translate or part.shear or part.scale != (1.0, 1.0):
        changes.append(
            K.RandomAffine(
                degrees=part.degrees,
                translate=(part.translate, part.translate),
                scale=part.scale,
                shear=part.shear or None,
                p=1.0,
                padding_mode="border",
            )
        )
    if part.brightness:
        changes.append(K.RandomBrightness((1 - part.brightness, 1 + part.brightness), p=1.0))
    if part.contrast:
        changes.append(K.RandomContrast((1 - part.contrast, 1 + part.contrast), p=1.0))
    if part.erase:
        changes.append(K.RandomErasing(scale=part.erase_area, value=0.5, p=part.erase))
    return changes
