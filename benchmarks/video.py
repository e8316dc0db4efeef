"""Frames per second of a video, from file to table: decode, detect, track, predict, smooth, write.

    python -m benchmarks.video

640x480 H.264 of one moving face and of four, with the defaults of `mien predict`. For comparison, in turns, the same video
with a detection in every frame, and only decoded.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import interleaved, ratio
from benchmarks.videos import write_video
from mien.output.table import write_table
from mien.predict.recognizer import Recognizer, VideoOptions
from mien.video.reader import open_video

AIMS = {1: 60, 4: 30}
"""Frames per second to reach, by number of faces."""


def decode(path: Path) -> int:
    with open_video(path) as video:
        return sum(1 for _ in video)


def predict(recognizer: Recognizer, path: Path, options: VideoOptions) -> int:
    """Write the table of a video and return its number of rows."""
    predictions = (prediction for reading in recognizer.stream([path], options) for prediction in reading.predictions)
    table = path.with_suffix(".csv")
    write_table(table, predictions, recognizer.classes)
    return table.read_text().count("\n") - 1


def measure(folder: Path, faces: int, count: int, rounds: int) -> tuple[dict[str, object], list[Row]]:
    path = folder / f"{faces}.mp4"
    write_video(path, count, faces)
    recognizer = Recognizer()
    found = predict(recognizer, path, VideoOptions())
    seconds = interleaved(
        {
            "mien predict": partial(predict, recognizer, path, VideoOptions()),
            "a detection in every frame": partial(predict, recognizer, path, VideoOptions(detect_every=1)),
            "decode only": partial(decode, path),
        },
        rounds,
    )
    rates = {name: round(count / float(np.median(times)), 1) for name, times in seconds.items()}
    share = round(found / (count * faces), 4)
    aims = {"mien predict": str(AIMS[faces])}
    rows: list[Row] = [(f"frames/s, faces: {faces}, {name}", f"{rate}", aims.get(name, "")) for name, rate in rates.items()]
    gain = ratio(seconds["a detection in every frame"], seconds["mien predict"])
    rows += [
        (f"gain by tracking, faces: {faces}", f"{gain}x", ""),
        (f"faces found, of {faces}", f"{share:.1%}", ""),
    ]
    return {"frames_per_second": rates, "following_gain": gain, "faces_found": share}, rows


def main() -> None:
    arguments = argument_parser(__doc__).parse_args()
    count, rounds = (90, 1) if arguments.quick else (300, 5)
    figures: dict[str, object] = {"frames": count}
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for faces in AIMS:
            figures[f"faces_{faces}"], more = measure(Path(folder), faces, count, rounds)
            rows += more
    write_run("video", figures, rows, arguments)


if __name__ == "__main__":
    main()
