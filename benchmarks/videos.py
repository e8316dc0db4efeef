"""Synthetic H.264 videos for the benchmarks: faces that move over a still picture.

The face is NASA's portrait of Eileen Collins (`skimage.data.astronaut`, public domain), the background a photo of a cat.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image

HEAD = (150, 10, 300, 220)
"""Box of the astronaut's head, px of that picture."""


def frames(count: int, faces: int = 1, size: tuple[int, int] = (640, 480), fps: float = 30) -> Iterator[NDArray[np.uint8]]:
    """Yield frames, RGB uint8 (H, W, 3), in which heads about a third of the height tall move from side to side."""
    width, height = size
    background = Image.fromarray(skimage.data.chelsea()).resize(size)
    head_height = round(height / (2.4 if faces < 4 else 3))
    head = Image.fromarray(skimage.data.astronaut()).crop(HEAD)
    head = head.resize((round(head_height * head.width / head.height), head_height), Image.Resampling.LANCZOS)
    heads = [head if i % 2 == 0 else head.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for i in range(faces)]
    for number in range(count):
        picture = background.copy()
        for i, each in enumerate(heads):
            column, row = i % 2, i // 2
            swing = np.sin(2 * np.pi * (number / fps / 4 + i / 7))
            centre = width * (0.5 if faces == 1 else 0.25 + 0.5 * column) + swing * width * 0.1
            middle = height * (0.5 if faces < 3 else 0.27 + 0.46 * row)
            picture.paste(each, (round(centre - each.width / 2), round(middle - each.height / 2)))
        yield np.asarray(picture)


def write_video(path: Path, count: int, faces: int = 1, size: tuple[int, int] = (640, 480), fps: int = 30) -> None:
    """Write a video of these frames."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "20"}
        for image in frames(count, faces, size, fps):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())


def repeat_video(source: Path, path: Path, times: int) -> None:
    """Write a video that shows another one several times, by copying its packets."""
    with av.open(str(path), "w") as out:
        stream, shift = None, 0
        for _ in range(times):
            with av.open(str(source)) as container:
                old = container.streams.video[0]
                stream = stream or out.add_stream_from_template(old)
                end = 0
                for packet in container.demux(old):
                    if packet.dts is None:
                        continue
                    base = packet.time_base
                    step = packet.duration or round(Fraction(1, 30) / base)
                    end = max(end, packet.pts + step)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
                shift += end
