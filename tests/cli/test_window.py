import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mien.cli.window import Window, mirrored, wait_for
from mien.errors import InputError, OutputError
from mien.output.annotate import annotate
from mien.structures import Face, Frame, Prediction, Reading
from mien.video.live import Newest

CLASSES = ("happy", "sad")
PICTURE = np.random.default_rng(0).integers(60, 200, (240, 320, 3), dtype=np.uint8)
FACE = Prediction(CLASSES, np.array([0.8, 0.2], np.float32), Face(np.array([40, 60, 120, 160], np.float32), 0.9), track=1)


def reading(number: int = 0) -> Reading:
    return Reading("camera:0", Frame(PICTURE, number, number / 30), (FACE,))


@pytest.fixture
def pygame(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """The library, drawing on a screen that is not there."""
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")
    monkeypatch.setenv("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    return pytest.importorskip("pygame", reason="the window needs pygame-ce")


def shown(pygame) -> np.ndarray:  # type: ignore[no-untyped-def]
    return pygame.surfarray.array3d(pygame.display.get_surface()).swapaxes(0, 1)


def press(pygame, key: str) -> None:  # type: ignore[no-untyped-def]
    pygame.event.post(pygame.event.Event(pygame.KEYDOWN, key=pygame.key.key_code(key)))


class Watched(Window):
    """A window that tells what it last showed, and presses keys."""

    def __init__(self, *arguments, keys: dict[int, str], **named) -> None:  # type: ignore[no-untyped-def]
        super().__init__(*arguments, **named)
        self.keys_to_press, self.views, self.states = keys, [], []  # type: ignore[var-annotated]

    def _refresh(self, feed: Newest[Reading]) -> None:
        super()._refresh(feed)
        self.views.append(shown(self._pygame))
        self.states.append((self.mirror, self.paused, self.keys, self._note))
        key = self.keys_to_press.pop(len(self.views), None)
        if key is not None:
            press(self._pygame, key)


def endless() -> Iterator[Reading]:
    number = 0
    while True:
        yield reading(number)
        number += 1


def watch(keys: dict[int, str], **named) -> Watched:  # type: ignore[no-untyped-def]
    feed = Newest(endless())
    window = Watched(keys=keys, **named)
    try:
        window.show(feed)
    finally:
        feed.close()
    return window


def test_the_picture_is_shown_with_its_boxes_and_q_closes_it(pygame) -> None:  # type: ignore[no-untyped-def]
    window = watch({2: "h", 4: "q"})
    drawn = annotate(PICTURE, [FACE])
    height, width = window.views[-1].shape[:2]
    assert (height, width) == (480, 640)
    expected = np.asarray(Image.fromarray(drawn).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    below = slice(height // 5, None)  # the rate stands above
    assert np.abs(window.views[-1][below] - expected[below]).mean() < 6
    assert not pygame.display.get_init()


@pytest.mark.parametrize("way", ["q", "escape"])
def test_keys_that_close_it(pygame, way: str) -> None:  # type: ignore[no-untyped-def]
    assert len(watch({1: way}).views) < 20


def test_the_close_button(pygame) -> None:  # type: ignore[no-untyped-def]
    window = Window()
    feed = Newest(endless())
    pygame.event.post(pygame.event.Event(pygame.QUIT))
    window.show(feed)
    feed.close()


def test_the_mirror_turns_the_picture_and_not_its_text(pygame) -> None:  # type: ignore[no-untyped-def]
    window = watch({2: "h", 4: "m", 6: "q"})
    plain, turned = window.views[3], window.views[-1]
    assert [state[0] for state in (window.states[3], window.states[-1])] == [False, True]
    frame, (face,) = mirrored(*[reading().frame, (FACE,)])  # type: ignore[arg-type]
    expected = np.asarray(Image.fromarray(annotate(frame.image, [face])).resize((640, 480), Image.Resampling.BILINEAR))
    below = slice(96, None)
    right, turned_text = (np.abs(view.astype(int) - expected[below]).mean() for view in (turned[below], plain[below, ::-1]))
    assert right < 6
    assert turned_text > right + 0.5


def test_mirrored_twice_is_what_it_was() -> None:
    frame = reading().frame
    assert frame is not None
    once, faces = mirrored(frame, (FACE,))
    np.testing.assert_array_equal(once.image, PICTURE[:, ::-1])
    assert faces[0].face is not None
    assert faces[0].face.box_xyxy.tolist() == [200, 60, 280, 160]
    twice, faces = mirrored(once, faces)
    np.testing.assert_array_equal(twice.image, PICTURE)
    assert faces[0].face is not None
    assert faces[0].face.box_xyxy.tolist() == [40, 60, 120, 160]
    assert FACE.face is not None
    assert FACE.face.box_xyxy.tolist() == [40, 60, 120, 160]


def test_a_snapshot_is_the_picture_with_its_boxes(pygame, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    window = watch({1: "s", 3: "s", 5: "q"}, snapshots=tmp_path / "new")
    first, second = sorted((tmp_path / "new").iterdir())
    assert first.name.startswith("mien-2")
    with Image.open(first) as saved:
        np.testing.assert_array_equal(np.asarray(saved), annotate(PICTURE, [FACE]))
    assert any(note == f"saved {second.name}" for *_, note in window.states)


def test_a_snapshot_that_cannot_be_saved_is_said_and_ends_nothing(pygame, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "file").write_text("")
    window = watch({1: "s", 4: "q"}, snapshots=tmp_path / "file")
    assert any("cannot be written" in note for *_, note in window.states)


def test_a_pause_keeps_the_picture(pygame) -> None:  # type: ignore[no-untyped-def]
    window = watch({1: "space", 3: "space", 5: "q"})
    assert {paused for _, paused, *_ in window.states} == {False, True}


def test_the_window_ends_with_its_readings(pygame) -> None:  # type: ignore[no-untyped-def]
    window = Window()
    window.show(Newest([reading()]))
    assert not pygame.display.get_init()


def test_a_source_that_fails_is_an_error_after_the_window_is_closed(pygame) -> None:  # type: ignore[no-untyped-def]
    error = InputError("camera:0: the stream stopped")
    with pytest.raises(InputError, match="stopped"):
        Window().show(Newest([reading(), Reading("camera:0", None, (), error)]))
    assert not pygame.display.get_init()
    with pytest.raises(InputError, match="stopped"):
        wait_for(Newest([Reading("camera:0", None, (), error)]))
    wait_for(Newest([reading()]))


@pytest.mark.parametrize(("width", "height"), [(160, 120), (1920, 1080), (320, 1800)])
def test_the_window_suits_the_picture_and_the_screen(pygame, width: int, height: int) -> None:  # type: ignore[no-untyped-def]
    window = Watched(keys={1: "q"})
    feed = Newest(Reading("a", Frame(np.zeros((height, width, 3), np.uint8), i, 0.0)) for i in range(10**6))
    window.show(feed)
    feed.close()
    pygame.display.init()
    wide, high = pygame.display.get_desktop_sizes()[0]
    pygame.display.quit()
    shown_high, shown_wide = window.views[-1].shape[:2]
    assert shown_wide <= wide
    assert shown_high <= high
    assert shown_wide / shown_high == pytest.approx(width / height, rel=0.02)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has machines without a display")
def test_without_a_display(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pygame", reason="the window needs pygame-ce")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match=r"no display to open a window on; .*--out clip\.mp4"):
        Window()
    monkeypatch.setenv("SDL_VIDEODRIVER", "none-such")
    with pytest.raises(OutputError, match=r"the window cannot be opened .*--out clip\.mp4"):
        Window()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux has machines without a display")
def test_a_display_that_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As over ssh, from a session that had one: SDL would draw for nobody."""
    pytest.importorskip("pygame", reason="the window needs pygame-ce")
    for name in ("WAYLAND_DISPLAY", "SDL_VIDEODRIVER"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":977")
    with pytest.raises(OutputError, match=r"window|display .*--out clip\.mp4"):
        Window()


def test_without_pygame_it_names_the_extra() -> None:
    code = """
import sys
sys.modules["pygame"] = None
from mien.errors import MissingExtraError
from mien.cli.window import Window
try:
    Window()
except MissingExtraError as error:
    print(error)
"""
    environment = {**os.environ, "SDL_VIDEODRIVER": "dummy"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, env=environment)
    assert "pip install 'mien[camera]'" in done.stdout, done.stderr
