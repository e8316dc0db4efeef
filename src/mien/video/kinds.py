"""Whether a file is a picture or a video: by its ending, else by its content."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from mien.image import ENDINGS, is_picture
from mien.video.container import is_video

Kind = Literal["picture", "video", "live", "error"]

VIDEOS = frozenset(
    (".mp4", ".m4v", ".mov", ".qt", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".wmv",
     ".asf", ".flv", ".f4v", ".ogv", ".3gp", ".3g2", ".mxf", ".dv", ".mjpeg", ".mjpg", ".h264", ".264", ".h265", ".265",
     ".hevc", ".ivf", ".y4m", ".rm", ".rmvb", ".nut", ".divx")
)  # fmt: skip
"""Endings of videos."""


def by_ending(name: str) -> Kind | None:
    """Return what a file is by its ending; None if unknown.

    >>> by_ending("holiday.JPG"), by_ending("talk.mp4"), by_ending("notes.txt")
    ('picture', 'video', None)
    """
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 -- pathlib is slow where names are many
    return "picture" if suffix in ENDINGS else "video" if suffix in VIDEOS else None


def by_content(name: str) -> Kind | None:
    """Return what a file is by its content; None if mien does not read it.

    Raises:
        OSError: It cannot be opened.
    """
    with Path(name).open("rb") as stream:
        if is_picture(stream):
            return "picture"
    return "video" if is_video(name) else None
