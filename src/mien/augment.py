"""Training augmentation: a batch of uint8 images in, a batch of network inputs out, on whatever device the batch lies.

The random part is kornia's, drawn anew for every image; the end (antialiased resize, scaling, normalisation) is the batched
twin of `mien.preprocess.preprocess`, which evaluation uses instead.
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
    """Random changes, resize and normalisation of a batch.

    Args:
        part: What to draw, from the recipe.
        spec: The network's preprocessing.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, part: AugmentPart, spec: PreprocessSpec) -> None:
        super().__init__()
        self.spec = spec
        self.change = K.AugmentationSequential(*_changes(part)) if _changes(part) else nn.Identity()
        self.erase = K.RandomErasing(scale=part.erase_area, p=part.erase) if part.erase else nn.Identity()
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, -1, 1, 1))

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return float32 inputs (N, C, h, w) from grey images, uint8 (N, H, W)."""
        x = images.unsqueeze(1).float() / 255  # (N, 1, H, W)
        x = self.change(x).clamp(0, 1)
        if x.shape[-2:] != self.spec.size:
            x = F.interpolate(x, self.spec.size, mode="bilinear", align_corners=False, antialias=True)
        x = (x.expand(-1, self.spec.channels, -1, -1) - self.mean) / self.std
        return self.erase(x)


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
    return changes
