"""Peak memory of a corpus of eight 99-megapixel pictures in a zip of a few kilobytes, with and without mien's budget.

    python -m benchmarks.hostile_picture_memory

mien decodes in as many threads as there are cores. The header says how much a picture will take, and the threads share a budget
of bytes (`BUDGET_BYTES` in `mien.image`). The corpus is built in fresh processes that take turns: with the budget, and with one
that never makes a thread wait. Two threads and eight are measured. An animated WebP of 9990 x 9990 px is read too, with and
without the limit for one picture (`MAX_BYTES`).
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from statistics import median

from PIL import Image

from benchmarks.record import Row, argument_parser, write_run

SIDE = 9_950
"""Side of a picture, px: 99 megapixels."""

AIM = 1_000
"""MB that a corpus of such pictures may take."""

READ = """
import json, sys
from pathlib import Path
from mien import image
from mien.datasets import cache
from mien.errors import InputError
path, threads, limited = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "limited"
cache.available_cores = lambda: threads
if not limited:
    image.MAX_BYTES = 2**62
    image._trim = lambda: None
    image.share_budget(image.Budget(10**11))
try:
    if path.endswith(".zip"):
        outcome = f"{len(cache.load_corpus('folder', path, sys.argv[4]).target)} pictures"
    else:
        outcome = "x".join(map(str, image.read_image(path).shape))
except InputError as error:
    outcome = str(error).removeprefix(path)
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps([int(status["VmHWM"].split()[0]) * 1024 / 1e6, outcome]))
"""
"""Reads a zip or a picture, and prints the peak in MB and the outcome; arguments: path, threads, limited or not, cache."""


def write_files(folder: Path) -> tuple[Path, Path]:
    """Write the zip and the animated WebP; return both paths."""
    packed, animated, stream = folder / "eight.zip", folder / "animated.webp", io.BytesIO()
    Image.new("1", (SIDE, SIDE)).save(stream, "PNG")
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for i in range(8):
            archive.writestr(f"{('happy', 'sad')[i % 2]}/{i}.png", stream.getvalue())
    first, second = (Image.new("RGB", (9_990, 9_990), colour) for colour in ("black", "red"))
    first.save(animated, save_all=True, append_images=[second])
    return packed, animated


def main() -> None:
    arguments = argument_parser(__doc__).parse_args()
    peaks: dict[str, list[float]] = {}
    outcomes: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        packed, animated = write_files(Path(folder))
        sizes = {path.name: path.stat().st_size for path in (packed, animated)}
        for turn in range(1 if arguments.quick else 3):
            for what, path, threads in (("zip, 2 threads", packed, 2), ("zip, 8 threads", packed, 8), ("WebP", animated, 1)):
                for way in ("limited", "unlimited"):
                    given = [str(path), str(threads), way, f"{folder}/{turn}-{threads}-{way}"]
                    done = subprocess.run([sys.executable, "-c", READ, *given], check=True, capture_output=True)
                    peak, outcomes[f"{what}, {way}"] = json.loads(done.stdout)
                    peaks.setdefault(f"{what}, {way}", []).append(peak)
    middle = {way: round(median(values), 1) for way, values in peaks.items()}
    rows: list[Row] = [
        (f"peak resident, {way}, MB", f"{peak:,.0f}", "" if way.endswith("unlimited") else f"{AIM:,} at most")
        for way, peak in middle.items()
    ]
    write_run("hostile_picture_memory", {"bytes": sizes, "peak_mb": middle, "outcomes": outcomes}, rows, arguments)


if __name__ == "__main__":
    main()
