"""A window that shows live readings: the picture with boxes and bars, the frame rate, and the list of keys.

The picture may be mirrored, because people know themselves from mirrors. Only the window is mirrored, never a file.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import MienError, OutputError, require
from mien.languages import translate
from mien.output.annotate import SHADE, WHITE, Annotator, write_picture
from mien.output.paint import paste, text_size, text_tile
from mien.structures import Face, Frame, Prediction, Reading
from mien.video.live import Newest

KEYS = "q quit    m mirror    s snapshot    space pause    h hide"

INSTEAD = "write a file instead: mien camera --out clip.mp4, or --out table.csv"


class Window:
    """Shows readings until the user closes it. The key S saves the picture in the folder `snapshots`.

    Raises:
        MissingExtraError: pygame is not installed.
        OutputError: There is no display.
    """

    def __init__(self, title: str = "mien", *, mirror: bool = False, snapshots: str | os.PathLike[str] = ".") -> None:
        self.title, self.mirror, self.snapshots = title, mirror, Path(snapshots)
        self.keys, self.paused = True, False
        self._pygame = _open_display()
        self._annotator = Annotator()
        self._screen: Any = None
        self._reading: Reading | None = None
        self._drawn: NDArray[np.uint8] | None = None
        self._note, self._note_until = "", 0.0
        self._rate, self._rate_until = 0.0, 0.0

    def show(self, feed: Newest[Reading]) -> None:
        """Show the newest reading until the user quits or the readings end; raise the error of a source that cannot be read."""
        try:
            while not feed.ended:
                reading = feed.take(1 / 60)  # seconds between two checks of the keyboard
                if reading is not None and reading.error is not None:
                    raise reading.error
                new = reading is not None and not self.paused
                if new:
                    self._reading, self._drawn = reading, None
                if not self._handle_events(feed):
                    return
                outdated = time.monotonic() > min(self._note_until if self._note else np.inf, self._rate_until)
                if self._reading is not None and (new or self._drawn is None or outdated):
                    self._refresh(feed)
        finally:
            self._pygame.display.quit()

    def _handle_events(self, feed: Newest[Reading]) -> bool:
        """Handle pressed keys and other events; return False to quit."""
        if self._screen is None:
            return True
        pygame = self._pygame
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                return False
            if event.type in (pygame.WINDOWSIZECHANGED, pygame.WINDOWEXPOSED):
                self._drawn = None
            if event.type != pygame.KEYDOWN:
                continue
            key = pygame.key.name(event.key)
            if key in ("q", "escape"):
                return False
            if key == "m":
                self.mirror, self._drawn = not self.mirror, None
                self._annotator = Annotator()  # it keeps positions, and left and right have changed
            elif key == "h":
                self.keys, self._drawn = not self.keys, None
            elif key == "space":
                self.paused, self._drawn = not self.paused, None
                feed.hold(self.paused)
            elif key == "s" and self._reading is not None:
                self._save()
        return True

    def _save(self) -> None:
        """Save the picture that is shown, without the lines of text."""
        path = self.snapshots / f"mien-{datetime.now():%Y%m%d-%H%M%S-%f}.png"
        try:
            write_picture(path, self._picture())
            self._note = translate("saved {file}", file=path.name)
        except MienError as error:  # not a reason to quit
            self._note = str(error)
        self._note_until, self._drawn = time.monotonic() + 3, None

    def _picture(self) -> NDArray[np.uint8]:
        assert self._reading is not None
        assert self._reading.frame is not None
        frame, predictions = self._reading.frame, self._reading.predictions
        if self.mirror:
            frame, predictions = mirrored(frame, predictions)
        return self._annotator.draw(frame.image, predictions)

    def _refresh(self, feed: Newest[Reading]) -> None:
        pygame, now = self._pygame, time.monotonic()
        if self._drawn is None:
            self._drawn = self._picture()
        height, width = self._drawn.shape[:2]
        if self._screen is None:
            self._screen = self._open(width, height)
        screen = self._screen = pygame.display.get_surface()
        factor = min(screen.get_width() / width, screen.get_height() / height)
        size = max(1, round(width * factor)), max(1, round(height * factor))
        picture = pygame.image.frombuffer(self._drawn, (width, height), "RGB")
        picture = picture if size == (width, height) else pygame.transform.smoothscale(picture, size)
        screen.fill((0, 0, 0))
        screen.blit(picture, ((screen.get_width() - size[0]) // 2, (screen.get_height() - size[1]) // 2))

        if now > self._rate_until:
            self._rate, self._rate_until = feed.rate, now + 0.5
        self._note = self._note if now < self._note_until else ""
        assert self._reading is not None
        faces = len(self._reading.predictions)
        state = translate("paused") if self.paused else translate("{rate} frames/s", rate=f"{self._rate:.0f}")
        count = translate("no face") if not faces else translate("{count} face" if faces == 1 else "{count} faces", count=faces)
        gap = 6
        pixels = pygame.surfarray.pixels3d(screen).swapaxes(0, 1)
        _line(pixels, f"{state}    {count}", gap)
        y = pixels.shape[0]
        for text in [translate(KEYS)] * self.keys + [self._note] * bool(self._note):  # from the bottom up
            y -= _line_size(pixels, text) * 3 // 2 + gap
            _line(pixels, text, y)
        del pixels  # it locks the screen
        pygame.display.flip()

    def _open(self, width: int, height: int) -> Any:
        pygame = self._pygame
        wide, high = pygame.display.get_desktop_sizes()[0]
        # At least 480 px high, at most 80 % of the screen.
        factor = min(max(1.0, 480 / height), 0.8 * wide / width, 0.8 * high / height)
        try:
            screen = pygame.display.set_mode((round(width * factor), round(height * factor)), pygame.RESIZABLE)
        except pygame.error as error:
            raise _no_display(error) from None
        pygame.display.set_caption(self.title)
        return screen


def mirrored(frame: Frame, predictions: tuple[Prediction, ...]) -> tuple[Frame, tuple[Prediction, ...]]:
    """Return a frame mirrored left to right, and its predictions with the faces moved to match."""
    width, moved = frame.image.shape[1], []
    for prediction in predictions:
        if prediction.face is not None:
            left, top, right, bottom = prediction.face.box_xyxy.tolist()
            box = np.array([width - right, top, width - left, bottom], np.float32)
            prediction = replace(prediction, face=Face(box, prediction.face.score))  # landmarks are not drawn
        moved.append(prediction)
    return replace(frame, image=np.ascontiguousarray(frame.image[:, ::-1])), tuple(moved)


def wait_for(feed: Newest[Reading]) -> None:
    """Wait without a window until the readings end; raise the error of a source that cannot be read."""
    while not feed.ended:
        reading = feed.take(0.2)  # a short wait, because on Windows Ctrl-C does not end a long one
        if reading is not None and reading.error is not None:
            raise reading.error


def _open_display() -> Any:
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    pygame = require("pygame", "camera")
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER"} & os.environ.keys():
        raise OutputError(f"there is no display to open a window on; {INSTEAD}")
    try:
        pygame.display.init()
    except pygame.error as error:
        raise _no_display(error) from None
    # SDL uses one of these drivers, which show nothing, when it cannot open a window.
    if "SDL_VIDEODRIVER" not in os.environ and pygame.display.get_driver() in ("offscreen", "dummy"):
        pygame.display.quit()
        raise OutputError(f"the display named by DISPLAY or WAYLAND_DISPLAY cannot be reached; {INSTEAD}")
    return pygame


def _no_display(error: Exception) -> OutputError:
    return OutputError(f"the window cannot be opened ({error}); {INSTEAD}")


def _line_size(pixels: NDArray[np.uint8], text: str) -> int:
    """Return the text size, px, that suits the window's height and lets the line fit its width."""
    height, width = pixels.shape[:2]
    size = max(13, round(height / 38))
    while size > 8 and text_size(text, size)[0] > width - 12:
        size -= 1
    return size


def _line(pixels: NDArray[np.uint8], text: str, top: float) -> None:
    paste(pixels, text_tile(text, _line_size(pixels, text), WHITE, SHADE), 6, top)
