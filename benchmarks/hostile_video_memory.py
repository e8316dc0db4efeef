"""Peak memory of opening an MP4 whose header claims 67 million frames, with and without mien's limit on ffmpeg's allocations.

    python -m benchmarks.hostile_video_memory

ffmpeg allocates an index for the frames that a header claims, before it looks for them. mien limits what it may allocate at
once (`MAX_ALLOCATION` in `mien.video.container`). The file is opened in fresh processes that take turns: with the limit, and
with ffmpeg's own limit of 2 GiB. The same file with its true header is opened too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import av
import numpy as np

from benchmarks.record import Row, argument_parser, write_run

CLAIMED = 2**26
"""Frames that the header claims; the file has `FRAMES`."""

FRAMES = 60

AIM = 10
"""Percent of the peak that the limit must save, to be worth a call into a library's own function."""

OPEN = """
import json, sys
from pathlib import Path
from mien.errors import InputError
from mien.video import container, reader
if len(sys.argv) > 2:
    container.MAX_ALLOCATION = int(sys.argv[2])
try:
    with reader.open_video(sys.argv[1]) as video:
        outcome = f"{sum(1 for _ in video)} frames"
except InputError as error:
    outcome = str(error).removeprefix(sys.argv[1])
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps([int(status["VmHWM"].split()[0]) * 1024 / 1e6, outcome]))
"""
"""Opens a video and reads it, and prints the peak in MB and the outcome; arguments: the path, and a limit to use, bytes."""


def write_videos(folder: Path) -> tuple[Path, Path]:
    """Write a fragmented MP4 and a copy whose first fragment claims `CLAIMED` frames; return both paths."""
    whole, hostile = folder / "whole.mp4", folder / "hostile.mp4"
    with av.open(str(whole), "w", options={"movflags": "frag_keyframe+empty_moov"}) as out:
        stream = out.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(FRAMES):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 4 * i, np.uint8), format="rgb24")))
        out.mux(stream.encode())
    data = bytearray(whole.read_bytes())
    count = data.index(b"trun") + 8  # of the frames in the fragment, after version and flags
    data[count : count + 4] = CLAIMED.to_bytes(4, "big")
    hostile.write_bytes(data)
    return whole, hostile


def main() -> None:
    arguments = argument_parser(__doc__).parse_args()
    rounds = 2 if arguments.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        whole, hostile = write_videos(Path(folder))
        ways = {"true header": [whole], "limit": [hostile], "no limit": [hostile, 2**31 - 1]}
        peaks: dict[str, list[float]] = {way: [] for way in ways}
        outcomes: dict[str, str] = {}
        for _ in range(rounds):
            for way, given in ways.items():
                command = [sys.executable, "-c", OPEN, *map(str, given)]
                peak, outcomes[way] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                peaks[way].append(peak)
    middle = {way: round(median(values), 1) for way, values in peaks.items()}
    ratio = middle["no limit"] / middle["limit"]
    rows: list[Row] = [
        *((f"peak resident, {way}, MB", f"{peak:,.0f}", "") for way, peak in middle.items()),
        ("peak without the limit / with it", f"{ratio:.1f}", ""),
        ("saved by the limit", f"{100 - 100 / ratio:.0f} %", f"{AIM} % at least"),
    ]
    figures = {
        "rounds": rounds,
        "claimed_frames": CLAIMED,
        "peak_mb": middle,
        "outcomes": outcomes,
        "ratio": round(ratio, 2),
        "saved_percent": round(100 - 100 / ratio, 1),
    }
    write_run("hostile_video_memory", figures, rows, arguments)


if __name__ == "__main__":
    main()
