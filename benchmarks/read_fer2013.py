"""How long FER2013's table takes to become arrays, the first time and later, next to pandas; needs `pip install pandas`.

    python -m benchmarks.read_fer2013 --data fer2013.csv

The first opening reads the table, checks every row and writes the cache; later ones map the cache into memory. For comparison,
what research code does: `pandas.read_csv`, then each string of pixels is split and converted; the same with `numpy.fromstring`.
All take turns. The file is in the system's cache, and mien's own cache is new every time. Processor seconds of all threads are
recorded too, because other processes change them less.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import interleaved, milliseconds, ratio
from mien.datasets import Corpus, load_corpus

ROWS, QUICK_ROWS = 35_887, 3_000


def write_noise(path: Path, rows: int) -> Path:
    """Write a table of noise in the shape of FER2013's; a row has 8.2 kB, in FER2013 8.4."""
    random = np.random.default_rng(0)
    words = np.array([str(value) for value in range(256)])
    with path.open("w") as file:
        file.write("emotion,pixels,Usage\n")
        for row in range(rows):
            usage = "Training" if row < 0.8 * rows else "PublicTest" if row < 0.9 * rows else "PrivateTest"
            file.write(f"{row % 7},{' '.join(words[random.integers(0, 256, 48 * 48)])},{usage}\n")
    return path


def first(path: Path, folder: Path, numbers: count[int]) -> Corpus:
    """Open a table with an empty cache."""
    return load_corpus("fer2013", path, folder / f"cache-{next(numbers)}")


def again(path: Path, folder: Path) -> Corpus:
    """Open a table that is in the cache, and read an image."""
    corpus = load_corpus("fer2013", path, folder / "cache")
    corpus.images[len(corpus.images) // 2].sum()
    return corpus


def split_strings(path: Path) -> np.ndarray:
    table = pd.read_csv(path)
    return np.stack([np.array(text.split(), dtype=np.uint8) for text in table["pixels"]])


def from_strings(path: Path) -> np.ndarray:
    table = pd.read_csv(path)
    return np.stack([np.fromstring(text, dtype=np.uint8, sep=" ") for text in table["pixels"]])


def processor_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return round(time.process_time() - start, 3)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, help="fer2013.csv; by default noise of its shape")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = arguments.data or write_noise(folder / "fer2013.csv", QUICK_ROWS if arguments.quick else ROWS)
        corpus = again(path, folder)
        if not np.array_equal(corpus.images.reshape(len(corpus.images), -1), split_strings(path)):
            raise SystemExit("mien and pandas read different pixels")
        calls = {
            "mien, first opening": partial(first, path, folder, count()),
            "pandas, split and numpy.array": partial(split_strings, path),
            "pandas, numpy.fromstring": partial(from_strings, path),
        }
        seconds = interleaved(calls, 1 if arguments.quick else 3)
        processor = {what: processor_seconds(call) for what, call in calls.items()}
        cached = interleaved({"mien, cached": partial(again, path, folder)}, 20)["mien, cached"]
        megabytes = round(path.stat().st_size / 1e6, 1)
    base = seconds["mien, first opening"]
    rows: list[Row] = [
        (f"{what}, median", f"{np.median(times):.2f} s, {ratio(times, base):.1f}x", "at least 2x" if "split" in what else "")
        for what, times in seconds.items()
    ]
    faster = processor["pandas, split and numpy.array"] / processor["mien, first opening"]
    rows.append(("processor time, pandas and split / mien", f"{faster:.1f}x", ""))
    rows.append(("mien, later openings, median", f"{np.median(cached) * 1000:.1f} ms", ""))
    found = {
        "pandas": pd.__version__,
        "rows": len(corpus.images),
        "megabytes": megabytes,
        "seconds": {what: times.round(3).ravel().tolist() for what, times in seconds.items()},
        "processor_seconds": processor,
        "cached_ms": milliseconds(cached),
    }
    write_run("read_fer2013", found, rows, arguments)


if __name__ == "__main__":
    main()
