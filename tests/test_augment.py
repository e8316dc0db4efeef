import numpy as np
import pytest
import torch
from PIL import Image

from mien.augment import Augment, Degrade, Normalize, Views
from mien.datasets.crops import views
from mien.preprocess import PreprocessSpec, preprocess
from mien.recipe_parts import AugmentPart

GREY = PreprocessSpec(size=(40, 40), channels=1, mean=(0.508,), std=(0.255,))
RGB = PreprocessSpec(size=(64, 56), channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))


def augment(part: AugmentPart, spec: PreprocessSpec, images: torch.Tensor) -> torch.Tensor:
    return Normalize(spec)(Augment(part)(images))


FACES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (6, 48, 48), dtype=np.uint8))


@pytest.mark.parametrize("spec", [GREY, RGB], ids=["grey", "rgb"])
def test_without_changes_it_is_the_preprocessing_of_evaluation(spec: PreprocessSpec):
    augmented = augment(AugmentPart(flip=0), spec, FACES)
    expected = preprocess(list(FACES.numpy()), spec)
    assert augmented.shape == expected.shape
    # Pillow rounds to whole grey values, torch does not
    assert np.abs(augmented.numpy() - expected).max() <= 1.01 / 255 / min(spec.std)


def test_a_certain_flip_mirrors_every_image():
    plain = augment(AugmentPart(flip=0), GREY, FACES)
    torch.testing.assert_close(augment(AugmentPart(flip=1), GREY, FACES), plain.flip(-1), atol=1e-5, rtol=0)


def test_every_image_is_changed_in_its_own_way():
    part = AugmentPart(flip=0, degrees=10, translate=0.1, scale=(0.9, 1.1), brightness=0.2, contrast=0.2, erase=1.0)
    torch.manual_seed(0)
    same = FACES[:1].expand(8, -1, -1)
    changed = augment(part, GREY, same)
    assert torch.isfinite(changed).all()
    assert all((changed[i] - changed[j]).abs().max() > 0.1 for i in range(8) for j in range(i))


def test_the_seed_decides():
    part = AugmentPart(degrees=10, erase=0.5)
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(augment(part, GREY, FACES))
    assert torch.equal(*drawn)


def test_brightness_is_added_and_contrast_multiplies():
    torch.manual_seed(0)
    black, grey = (torch.full((64, 48, 48), value, dtype=torch.uint8) for value in (0, 102))  # 102 is 0.4
    added = Augment(AugmentPart(flip=0, brightness=0.2))
    levels = added(grey).amax((1, 2, 3))
    assert 0.2 <= levels.min() < 0.24 < 0.56 < levels.max() <= 0.6
    assert added(black).max() > 0.15
    multiplied = Augment(AugmentPart(flip=0, contrast=0.2))
    levels = multiplied(grey).amax((1, 2, 3))
    assert 0.32 <= levels.min() < 0.34 < 0.46 < levels.max() <= 0.4801
    assert multiplied(black).max() == 0


def test_rotation_stays_within_its_range():
    line = torch.zeros(1, 48, 48, dtype=torch.uint8)
    line[:, 22:26, :] = 255  # a level bar
    torch.manual_seed(0)
    turned = augment(AugmentPart(flip=0, degrees=10), GREY, line.expand(64, -1, -1))
    weight = (turned - turned.min()).squeeze(1).double()
    rows = torch.arange(40.0, dtype=torch.float64)
    height = (weight * rows[:, None]).sum(1) / weight.sum(1)  # (N, 40): the bar's height in each column
    slope = (height[:, 30] - height[:, 10]) / 20
    degrees = torch.atan(slope) * 180 / torch.pi
    assert degrees.abs().max() <= 11
    assert degrees.abs().max() > 6


@pytest.mark.parametrize("shape", [(48, 48), (40, 64), (48, 48, 3)], ids=["square", "wide", "colour"])
def test_views_are_those_of_pillow(shape: tuple[int, ...]):
    """Exactly for flips; within rounding for rotations, away from the corners, which Pillow fills with black."""
    image = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    made = Views(15)(torch.from_numpy(image).expand(15, *shape), torch.arange(15)).numpy()
    assert (made.dtype, made.shape) == (np.uint8, (15, *shape))
    for found, (flip, degrees) in zip(made, views(15), strict=True):
        expected = Image.fromarray(image).rotate(degrees, Image.Resampling.BILINEAR)
        if flip != "n":
            expected = expected.transpose({"h": Image.Transpose.FLIP_LEFT_RIGHT, "v": Image.Transpose.FLIP_TOP_BOTTOM}[flip])
        difference = np.abs(found.astype(int) - np.asarray(expected))
        assert difference[12:-12, 12:-12].max() <= (1 if degrees else 0), (flip, degrees)
        assert degrees or difference.max() == 0


def test_views_repeat_the_border_and_are_fixed():
    bright = torch.full((15, 48, 48), 200, dtype=torch.uint8)
    assert (Views(15)(bright, torch.arange(15)) == 200).all()
    numbers = torch.tensor([14, 3, 3, 0, 7, 1])
    assert torch.equal(Views(15)(FACES, numbers), Views(15)(FACES, numbers))


def test_damage_is_nothing_unless_asked_for():
    x = FACES.unsqueeze(1) / 255
    assert torch.equal(Degrade(AugmentPart())(x), x)


def test_noise_has_a_level_of_its_own_for_every_image_up_to_the_recipes():
    grey = torch.full((200, 1, 48, 48), 0.5)
    torch.manual_seed(0)
    changed = Degrade(AugmentPart(noise=0.1))(grey)
    levels = changed.std((1, 2, 3))
    assert levels.max() <= 0.105
    assert levels.min() < 0.01
    assert levels.mean() == pytest.approx(0.05, abs=0.01)
    assert changed.mean() == pytest.approx(0.5, abs=1e-3)


def test_dimming_takes_light_from_every_image_by_a_factor():
    x = FACES[:1, None].expand(200, -1, -1, -1) / 255
    torch.manual_seed(0)
    left = Degrade(AugmentPart(dim=0.8))(x).mean((1, 2, 3)) / x.mean((1, 2, 3))
    assert left.min() == pytest.approx(0.2, abs=0.02)
    assert left.max() == pytest.approx(1, abs=0.01)
    assert left.median() == pytest.approx(0.8, abs=0.05)  # 1 - 0.8 * 0.5 squared


def test_a_blur_smooths_and_keeps_the_mean():
    x = FACES.unsqueeze(1) / 255
    torch.manual_seed(0)
    changed = Degrade(AugmentPart(blur=1.0))(x)
    steps = [(image[..., 1:] - image[..., :-1]).abs().mean((1, 2, 3)) for image in (changed, x)]
    assert (steps[0] < steps[1] + 1e-6).all()
    assert steps[0].mean() < 0.8 * steps[1].mean()
    assert changed.mean() == pytest.approx(x.mean().item(), abs=0.01)


def test_the_slightest_blur_is_one():
    x = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert (Degrade(AugmentPart(blur=0.01))(x) - x).abs().max() < 1e-3
