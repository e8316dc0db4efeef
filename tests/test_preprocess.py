from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mien.errors import CheckpointError, InputError
from mien.preprocess import PreprocessSpec, preprocess

GREY = PreprocessSpec(size=(40, 40), channels=1, mean=(0.5,), std=(0.25,))
RGB = PreprocessSpec(size=(32, 24), channels=3, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@given(st.integers(0, 255))
def test_values_are_scaled_and_normalised(value: int) -> None:
    batch = preprocess([np.full((50, 50), value, np.uint8)], GREY)
    np.testing.assert_allclose(batch, (value / 255 - 0.5) / 0.25, atol=1e-5)


def test_rgb_keeps_the_order_of_its_channels() -> None:
    red = np.zeros((32, 24, 3), np.uint8)
    red[..., 0] = 255
    channels = preprocess([red], RGB)[0, :, 0, 0]
    np.testing.assert_allclose(channels, [0.9 / 0.5, -0.2 / 0.25, -0.3], atol=1e-6)


def test_colour_becomes_grey_by_luma() -> None:
    green = np.zeros((40, 40, 3), np.uint8)
    green[..., 1] = 255
    assert preprocess([green], GREY)[0, 0, 0, 0] == pytest.approx((150 / 255 - 0.5) / 0.25, abs=1e-5)


def test_a_grey_crop_is_repeated_for_a_colour_network() -> None:
    grey = noise(40, 40)
    np.testing.assert_array_equal(preprocess([grey], RGB), preprocess([np.stack([grey] * 3, axis=2)], RGB))


def test_the_right_size_is_not_resampled() -> None:
    crop = noise(40, 40)
    np.testing.assert_allclose(preprocess([crop], GREY)[0, 0], (crop / 255 - 0.5) / 0.25, atol=1e-5)


def test_mixed_sizes_equal_single_ones() -> None:
    crops = [noise(48, 48), noise(200, 120, 3), noise(1, 1), noise(40, 40, 3)]
    batch = preprocess(crops, RGB)
    assert batch.shape == (4, 3, 32, 24)
    assert batch.dtype == np.float32
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, np.concatenate([preprocess([crop], RGB) for crop in crops]))


@pytest.mark.parametrize("spec", [GREY, RGB, replace(GREY, size=(64, 64))])
@pytest.mark.parametrize("shape", [(48, 48), (48, 48, 3), (64, 48, 3), (40, 40), (1, 1), (64, 64, 3), (200, 200)])
def test_many_alike_equal_single_ones(shape: tuple[int, ...], spec: PreprocessSpec) -> None:
    crops = list(noise(5, *shape))
    np.testing.assert_array_equal(preprocess(crops, spec), np.concatenate([preprocess([crop], spec) for crop in crops]))


@pytest.mark.parametrize("sigma", [0.2, 0.5, 0.7])
def test_smoothing_blurs_by_its_deviation(sigma: float) -> None:
    """A bright point spreads with variance sigma^2 on each axis; the border repeats, so an even picture stays."""
    spec = PreprocessSpec(size=(9, 9), channels=1, mean=(0.0,), std=(1.0,), smooth=sigma)
    point = np.zeros((9, 9), np.uint8)
    point[4, 5] = 255
    spread = preprocess([point], spec)[0, 0]
    assert spread.sum() == pytest.approx(1, abs=1e-5)
    for axis, centre in ((0, 4), (1, 5)):
        assert (spread.sum(1 - axis) * (np.arange(9) - centre) ** 2).sum() == pytest.approx(sigma**2, abs=1e-5)
    np.testing.assert_allclose(preprocess([np.full((20, 20), 77, np.uint8)], spec), 77 / 255, atol=1e-6)


def test_a_dark_or_pale_crop_gets_the_least_contrast() -> None:
    spec = PreprocessSpec(size=(48, 48), channels=1, mean=(0.0,), std=(1.0,), min_contrast=0.1)
    face = np.random.default_rng(0).normal(120, 40, (48, 48)).clip(0, 255)
    for crop in (face * 0.2, 100 + 0.1 * (face - 120)):
        found = preprocess([crop.round().astype(np.uint8)], spec)
        assert found.std() == pytest.approx(0.1, abs=1e-4)
        assert np.corrcoef(found.ravel(), face.ravel())[0, 1] > 0.99
    blank, enough = np.full((48, 48), 3, np.uint8), face.astype(np.uint8)
    for crop in (blank, enough):
        np.testing.assert_array_equal(preprocess([crop], spec), preprocess([crop], replace(spec, min_contrast=0.0)))


def test_the_least_contrast_begins_without_a_jump_and_keeps_colours() -> None:
    grey = PreprocessSpec(size=(48, 48), channels=1, mean=(0.0,), std=(1.0,), min_contrast=0.1)
    crop = (120 + 25 * np.sign(np.random.default_rng(0).normal(size=(48, 48)))).astype(np.uint8)  # just below 0.1
    np.testing.assert_allclose(preprocess([crop], grey)[0, 0] * 255, crop, atol=1)
    colours = replace(grey, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    red, green, blue = preprocess([np.stack([crop // 5 + 4, crop // 5 + 2, crop // 5], axis=-1)], colours)[0]
    np.testing.assert_allclose(red - green, green - blue, atol=1e-5)
    assert (green - blue).min() > 2 / 255  # spread like the other differences


def test_smoothed_alike_alone_and_together() -> None:
    spec = replace(GREY, smooth=0.4)
    crops = [*noise(5, 48, 48), noise(100, 90, 3)]
    np.testing.assert_array_equal(preprocess(crops, spec), np.concatenate([preprocess([crop], spec) for crop in crops]))
    assert np.abs(preprocess(crops, spec) - preprocess(crops, GREY)).max() > 0.1


def test_no_crops_make_an_empty_batch() -> None:
    assert preprocess([], GREY).shape == (0, 1, 40, 40)


@pytest.mark.parametrize(
    "crop",
    [np.zeros((40, 40)), np.zeros((40, 40, 4), np.uint8), np.zeros((0, 40), np.uint8), np.zeros(40, np.uint8)],
)
def test_a_bad_crop_is_named(crop: np.ndarray) -> None:
    with pytest.raises(InputError, match="crop 1 must be uint8"):
        preprocess([noise(40, 40), crop], GREY)


@pytest.mark.parametrize("crop", [np.full((40, 40), 255.0), np.full((3, 40, 40), 255.0), np.full((3, 40, 40), 255, np.uint8)])
def test_the_advice_makes_an_array_a_crop(crop: np.ndarray) -> None:
    with pytest.raises(InputError, match="convert it with ") as caught:
        preprocess([noise(40, 40), crop], GREY)
    made = eval(str(caught.value).partition("convert it with ")[2], {"crop": crop})
    np.testing.assert_array_equal(preprocess([made], GREY), preprocess([np.full((40, 40), 255, np.uint8)], GREY))


@pytest.mark.parametrize("crop", ["face.png", Image.new("L", (40, 40)), None])
def test_a_crop_that_is_no_array_is_named(crop: object) -> None:
    with pytest.raises(InputError, match=r"crop 1 must be a uint8 array, got \w+; mien.read_image gives one"):
        preprocess([noise(40, 40), crop], GREY)  # type: ignore[list-item]


def test_a_spec_survives_plain_types() -> None:
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in RGB.to_dict().items()}
    assert PreprocessSpec.from_dict(plain) == RGB


@pytest.mark.parametrize(
    "change",
    [
        {"channels": 2},
        {"mean": (0.5, 0.5)},
        {"std": (0.0,)},
        {"std": (np.nan,)},
        {"size": (0, 40)},
        {"size": ()},
        {"size": (40, 40, 40)},
        {"crop_scale": 0.0},
        {"smooth": -0.1},
        {"smooth": 0.8},
        {"min_contrast": -0.1},
        {"min_contrast": 0.4},
        {"colour": "BGR"},
        {"size": [48.0, 48.0]},
        {"size": [48, True]},
        {"size": [48, 10**6]},
        {"size": 48},
        {"channels": 1.0},
        {"mean": "5"},
        {"mean": ["0.5"]},
        {"mean": [127.5]},
        {"std": [1e-9]},
        {"crop_scale": 1e9},
        {"crop_shift": np.nan},
        {"crop_shift": 1e9},
        {"crop_shift": None},
        {"smooth": True},
    ],
)
def test_a_bad_spec_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(CheckpointError):
        PreprocessSpec.from_dict({**GREY.to_dict(), **change})
