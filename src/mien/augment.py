"""Training augmentation of a batch, on its device: uint8 images in, network inputs out.

The parts run in this order. The loader applies the first, the others come between loader and network:

    Views       one of an image's fixed versions
    Augment     random flips, affine changes, brightness, contrast, erasing (kornia); each image gets its own
    Mixup       mixes pairs of images and their targets
    Degrade     blur, dimming and noise; only the student sees it, not its teachers
    Normalize   channels, size and scale of one network; student and teachers each have their own
"""

from __future__ import annotations

import math
from typing import Any

import kornia.augmentation as K
import torch
from timm.data import mixup as timm_mixup
from torch import Tensor, nn
from torch.nn import functional as F

from mien.datasets.crops import views
from mien.preprocess import PreprocessSpec
from mien.recipe_parts import AugmentPart


class Views(nn.Module):
    """The fixed versions of stored images that vgg16_gcca's paper trains on: rotated, then flipped.

    They are those of `mien.datasets.crops.views`, which `mien prepare` writes to files. Here they are computed when they are
    read. Rotation is about the centre, bilinear, and repeats the border in the corners.

    Args:
        number: 1, 5, 10 or 15.
    """

    maps: Tensor

    def __init__(self, number: int) -> None:
        super().__init__()
        self.register_buffer("maps", torch.tensor([_view_map(flip, degrees) for flip, degrees in views(number)]))

    def __len__(self) -> int:
        return len(self.maps)

    @torch.no_grad()
    def forward(self, images: Tensor, view: Tensor) -> Tensor:
        """Return one version of each image, same shape and dtype.

        Args:
            images: uint8, grey (N, H, W) or RGB (N, H, W, 3).
            view: Number of each version, int64 (N,).
        """
        x = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        height, width = x.shape[2:]
        aspect = torch.tensor([[1, height / width], [width / height, 1]], device=x.device)  # grids have both sides from -1 to 1
        theta = F.pad(self.maps.to(x.device)[view] * aspect, (0, 1))  # (N, 2, 3), without a shift
        grid = F.affine_grid(theta, list(x.shape), align_corners=False)
        x = F.grid_sample(x.float(), grid, padding_mode="border", align_corners=False).round().to(images.dtype)
        return x.squeeze(1) if images.ndim == 3 else x.permute(0, 2, 3, 1)


def _view_map(flip: str, degrees: float) -> list[list[float]]:
    """Return the map (2, 2) from positions in a version to positions in its image, both from the centre, x before y."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = -1 if flip == "h" else 1, -1 if flip == "v" else 1
    return [[x * cos, -y * sin], [x * sin, y * cos]]


class Augment(nn.Module):
    """Random changes of the images of a batch.

    Args:
        part: The recipe's ranges and probabilities.
    """

    def __init__(self, part: AugmentPart) -> None:
        super().__init__()
        changes: list[Any] = []
        if part.flip:
            changes.append(K.RandomHorizontalFlip(p=part.flip))
        if part.degrees or part.translate or part.shear or part.scale != (1.0, 1.0):
            shift, shear = (part.translate, part.translate), part.shear or None
            changes.append(K.RandomAffine(part.degrees, shift, part.scale, shear, p=1.0, padding_mode="border"))
        if part.brightness:
            changes.append(K.RandomBrightness((1 - part.brightness, 1 + part.brightness), p=1.0))
        if part.contrast:
            changes.append(K.RandomContrast((1 - part.contrast, 1 + part.contrast), p=1.0))
        if part.erase:
            changes.append(K.RandomErasing(scale=part.erase_area, value=0.5, p=part.erase))
        self.change = K.AugmentationSequential(*changes) if changes else nn.Identity()

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return float32 images (N, C, H, W) in [0, 1] from uint8 ones, grey (N, H, W) or RGB (N, H, W, 3)."""
        x = images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2)
        return self.change(x.float() / 255).clamp(0, 1)


class Mixup:
    """Mixup of a batch: each image becomes a weighted mean of two, and so do its target and its teachers' probabilities.

    Zhang et al. 2018, "mixup: Beyond Empirical Risk Minimization"; by timm, which draws from NumPy's global generator.

    Args:
        alpha: Parameter of the Beta distribution that the weights are drawn from.
        num_classes: Classes K.
    """

    def __init__(self, alpha: float, num_classes: int) -> None:
        self.alpha, self.num_classes = alpha, num_classes

    def __call__(self, x: Tensor, target: Tensor, teacher_probs: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor | None]:
        """Return mixed images, mixed targets (N, K) and mixed teacher probabilities (N, K).

        Args:
            x: Images (N, C, H, W), N even; changed in place.
            target: Class indices (N,), or probabilities (N, K).
            teacher_probs: Probabilities (N, K), or None.
        """
        mix = timm_mixup.Mixup(mixup_alpha=self.alpha, label_smoothing=0.0, num_classes=len(x))
        x, weights = mix(x, torch.arange(len(x), device=x.device))  # weights (N, N): of each image in each mixed image
        probs = target if target.ndim == 2 else F.one_hot(target, self.num_classes).float()
        return x, weights @ probs, None if teacher_probs is None else weights @ teacher_probs


class Degrade(nn.Module):
    """Effects of bad light and bad cameras, each of a random strength for every image: blur, dimming, noise.

    Args:
        part: The largest strengths, from the recipe.
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
        """Return degraded images from images (N, C, H, W) in [0, 1], same shape and range."""
        x = self.blur(x)
        if self.part.dim:
            x = x * (1 - self.part.dim * _strengths(x).square())
        if self.part.noise:
            x = x + self.part.noise * _strengths(x) * torch.randn_like(x)
        return x.clamp(0, 1)


def _strengths(x: Tensor) -> Tensor:
    """Return one number per image of a batch, (N, 1, 1, 1), uniform in [0, 1)."""
    return torch.rand(len(x), 1, 1, 1, device=x.device)


class Normalize(nn.Module):
    """Channels, size and scale of a network's input: `mien.preprocess.preprocess` for a batch of tensors.

    It leaves out `spec.smooth`: augmentation has already softened the images.

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
