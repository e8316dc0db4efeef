import numpy as np
import pytest
from PIL import Image

from mien.output.paint import Box, Tile, fill, outline, paste, text_tile


def grey(height: int = 60, width: int = 80) -> np.ndarray:
    return np.full((height, width, 3), 90, np.uint8)


def test_tiles_are_blended_like_in_pillow() -> None:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (20, 30, 4), dtype=np.uint8)
    ground = random.integers(0, 256, (60, 80, 3), dtype=np.uint8)
    alpha = pixels[..., 3:].astype(np.uint16)
    alpha += alpha >> 7
    drawn = ground.copy()
    paste(drawn, Tile(pixels[..., :3] * alpha, 256 - alpha), 7, 11)
    expected = Image.fromarray(ground)
    over = Image.fromarray(pixels)
    expected.paste(over, (7, 11), over)
    assert np.abs(drawn.astype(int) - np.asarray(expected)).max() <= 2


@pytest.mark.parametrize(("left", "top"), [(-10, -5), (70, 50), (-500, 3), (3, 500), (79.6, -4.4)])
def test_only_the_part_inside_the_picture_is_drawn(left: float, top: float) -> None:
    whole = np.full((1200, 1200, 3), 90, np.uint8)
    tile = text_tile("happy 90%", 12, (0, 0, 0), (240, 228, 66))
    paste(whole, tile, 560 + left, 560 + top)
    drawn = grey()
    paste(drawn, tile, left, top)
    np.testing.assert_array_equal(drawn, whole[560:620, 560:640])


def test_a_translucent_fill_mixes_the_colours() -> None:
    drawn = grey()
    fill(drawn, Box(10, 10, 20, 20), (255, 255, 255), 128)
    assert (drawn[10:20, 10:20] == 172).all()
    assert (drawn[20:] == 90).all()
    light = np.full((8, 8, 3), 200, np.uint8)  # 200 * 106 is beyond eight bits
    fill(light, Box(0, 0, 8, 8), (0, 0, 0), 150)
    assert (light == 200 * 106 // 256).all()


@pytest.mark.parametrize("dash", [0, 6])
def test_an_outline_has_its_width_and_stays_inside_its_box(dash: float) -> None:
    drawn = grey()
    outline(drawn, Box(10, 10, 70, 50), 3, (255, 0, 0), dash=dash)
    red = (drawn == (255, 0, 0)).all(axis=2)
    assert red[10:13, 10:13].all()  # corners are drawn, dashed or not
    assert red[47:50, 67:70].all()
    assert not red[13:47, 13:67].any()
    assert red[10, 10:70].mean() == (1 if not dash else pytest.approx(0.5, abs=0.1))
    assert not red[:10].any()
    assert not red[50:].any()


def test_a_changing_number_does_not_change_the_width() -> None:
    widths = {text_tile(f"sad {share}%", 14, (0, 0, 0), (9, 9, 9), "sad 100%").transparency.shape for share in (1, 38, 100)}
    assert len(widths) == 1
