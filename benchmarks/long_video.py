"""Memory of `mien predict` over an hour of video: how much is resident, and whether it grows.

    python -m benchmarks.long_video            # the whole hour, 36,000 frames at 10 per second
    python -m benchmarks.long_video --minutes 6

The command runs in its own process on a 640x480 H.264 video of one moving face, and writes a table. Its resident memory is
read from the system once per second.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import Row, argument_parser, write_run
from benchmarks.videos import repeat_video, write_video

FPS, CLIP = 10, 10
"""Frames per second, and the seconds of video that are drawn; the rest repeats them."""

AIM = 400
"""Resident memory to stay below, MB."""


def resident(pid: int, key: str) -> float:
    """Return `VmRSS` (now) or `VmHWM` (the peak so far) of a process, MB of 10^6 bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key))) * 1024 / 1e6


def watch(path: Path, table: Path) -> tuple[list[float], float, float]:
    """Return the memory of `mien predict` second by second and its peak, MB, and how long it ran, seconds."""
    command = [sys.executable, "-m", "mien", "predict", str(path), "--out", str(table), "--quiet"]
    start, samples, peak = time.perf_counter(), list[float](), 0.0
    with subprocess.Popen(command) as process:
        while process.poll() is None:
            try:
                samples.append(resident(process.pid, "VmRSS"))
                peak = resident(process.pid, "VmHWM")
            except (OSError, StopIteration):
                break  # it has just ended
            time.sleep(1)
    if process.returncode:
        raise SystemExit(f"mien predict ended with {process.returncode}")
    return samples, peak, time.perf_counter() - start


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=int, default=60, help="length of the video")
    arguments = parser.parse_args()
    minutes = 1 if arguments.quick else arguments.minutes
    with tempfile.TemporaryDirectory() as folder:
        clip, video, table = (Path(folder) / name for name in ("clip.mp4", "long.mp4", "faces.csv"))
        write_video(clip, FPS * CLIP, fps=FPS)
        repeat_video(clip, video, minutes * 60 // CLIP)
        samples, peak, seconds = watch(video, table)
        faces = sum(1 for _ in table.open()) - 1
    frames = minutes * 60 * FPS
    fifth = max(1, len(samples) // 5)
    early, late = max(samples[fifth : 2 * fifth], default=peak), max(samples[-fifth:], default=peak)
    rows: list[Row] = [
        ("minutes of video, frames, rows", f"{minutes}, {frames}, {faces}", ""),
        ("frames per second", f"{frames / seconds:.1f}", ""),
        ("peak resident, MB", f"{peak:.0f}", f"{AIM} at most"),
        ("second fifth, last fifth, MB", f"{early:.0f}, {late:.0f}", "flat"),
    ]
    figures = {
        "peak_mb": round(peak, 1),
        "second_fifth_mb": round(early, 1),
        "last_fifth_mb": round(late, 1),
        "seconds": round(seconds, 1),
        "frames": frames,
        "rows": faces,
    }
    write_run("long_video", figures, rows, arguments)


if __name__ == "__main__":
    main()
