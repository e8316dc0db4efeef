"""Peak memory of building and reading the cache of a corpus, for two numbers of pictures.

    python -m benchmarks.corpus_memory 3000

Memory must not grow with the pixels. The benchmark writes a folder of random 224x224 JPEGs and builds the cache of N of them
and of N / 4, each in a process of its own. What mien keeps of each picture (file, class, split) does grow, by bytes; that is
measured apart, on many pictures of one pixel, and both are extrapolated to the size of AffectNet.

The larger cache is then read in random batches in two ways: by reads, as training does, and through the memory map, whose pages
count as memory of the process. Last, both caches are trained on for an epoch, and as many small pictures as AffectNet has for
some steps.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.record import Row, argument_parser, write_run

SIDE = 224
CLASSES = ("angry", "happy", "neutral", "sad")
DIFFERENT = 64
"""Pictures that differ; the others are links to their bytes, so that writing them takes no time."""

AFFECTNET = 287_401
"""Pictures of AffectNet's seven classes."""

START = """
import json, sys
from pathlib import Path
def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith(key))) * 1024
import numpy as np
from mien.datasets import load_corpus
figures = {"start": resident("VmHWM")}
"""
"""Begins a measurement; not by `getrusage`, whose peak a process inherits from the one that started it."""

BUILD = """
corpus = load_corpus("folder", sys.argv[1], options=json.loads(sys.argv[2]))
"""

READ = """
import torch
from mien.engine import loader
loader.RESIDENT_BYTES = 0  # as if it did not fit
corpus = load_corpus("folder", sys.argv[1])
images = loader.Loader(corpus, np.arange(len(corpus.images)), torch.device("cpu"))
figures |= {"start": resident("VmHWM"), "start_own": resident("RssAnon"), "start_files": resident("RssFile")}
order = torch.from_numpy(np.random.default_rng(0).permutation(len(corpus.images)))
for batch, _ in images.batches(order.split(64)):
    batch.max()
"""

MAP = """
corpus = load_corpus("folder", sys.argv[1])
for rows in np.array_split(np.random.default_rng(0).permutation(len(corpus.images)), len(corpus.images) // 64):
    corpus.images[rows].max()
"""

TRAIN = """
from dataclasses import replace
from mien.engine import loader, train
from mien.recipe import load_recipe
loader.RESIDENT_BYTES = 0
options = json.loads(sys.argv[4])
corpus = load_corpus("folder", sys.argv[1], options=options)
split = (np.arange(len(corpus.images)) % 10 == 0).astype(np.int8)
corpus = replace(corpus, rows=replace(corpus.rows, split=split, splits=("train", "val")))
changes = {"data.corpus": "folder", "data.options": options, "data.select": "val", "train.epochs": 1}
changes |= {"train.batch_size": int(sys.argv[3]), "train.compile": False, "optim.warmup_epochs": 0}
figures |= {"start": resident("VmHWM"), "start_own": resident("RssAnon"), "start_files": resident("RssFile")}

class Enough(Exception):
    pass

def stop(epoch, step, steps):
    if step == int(sys.argv[5]):
        raise Enough

try:
    train(load_recipe("sa_csp_ca/fer2013", changes), corpus, Path(sys.argv[2]), on_step=stop)
except Enough:
    pass
"""
"""Trains on a corpus, by argument: into which folder, how many images a step, with which options, at most how many steps."""

END = """
figures |= {"pictures": len(corpus.images), "peak": resident("VmHWM"), "own": resident("RssAnon"), "files": resident("RssFile")}
print(json.dumps(figures))
"""


def write_pictures(root: Path, count: int, side: int, suffix: str) -> Path:
    """Write a corpus of random pictures, sorted by class."""
    random = np.random.default_rng(0)
    different = root.with_name(f"{root.name}-different")
    different.mkdir()
    for i in range(DIFFERENT):
        coarse = Image.fromarray(random.integers(0, 256, (14, 14, 3), np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(different / f"{i}{suffix}")
    for name in CLASSES:
        (root / name).mkdir(parents=True)
    for i in range(count):
        (root / CLASSES[i % len(CLASSES)] / f"{i:06}{suffix}").hardlink_to(different / f"{i % DIFFERENT}{suffix}")
    return root


def measured(code: str, root: Path, cache: Path, *arguments: str) -> dict[str, int]:
    """Run a measurement in a fresh process; bytes."""
    command = [sys.executable, "-c", START + code + END, str(root), *arguments]
    return json.loads(
        subprocess.run(command, env=os.environ | {"MIEN_CACHE": str(cache)}, check=True, capture_output=True).stdout
    )


def growth(small: dict[str, int], large: dict[str, int]) -> float:
    """Return the bytes that the peak grows by for a picture more."""
    return round((large["peak"] - small["peak"]) / (large["pictures"] - small["pictures"]), 1)


def measure(place: Path, number: int, many: int) -> dict[str, Any]:
    """Return every figure: `number` large pictures, `many` of one pixel."""
    large = [write_pictures(place / f"large{n}", n, SIDE, ".jpg") for n in (number // 4, number)]
    small = [write_pictures(place / f"small{n}", n, 1, ".png") for n in (many // 4, many)]
    cache = place / "cache"
    build = [measured(BUILD, root, cache, "{}") for root in large]
    tiny = [measured(BUILD, root, cache, '{"size": 1}') for root in small]
    return {
        "build": build,
        "build_bytes_a_picture": growth(*build),
        "stored_bytes_a_picture": SIDE * SIDE * 3,
        "build_tiny": tiny,
        "row_bytes_a_picture": growth(*tiny),
        "affectnet_bytes": round(build[1]["peak"] + growth(*tiny) * (AFFECTNET - number)),
        "read": measured(READ, large[1], cache),
        "map": measured(MAP, large[1], cache),
        "train": {
            f"{batch} a step": [
                measured(TRAIN, root, cache, str(place / f"run{batch}{root.name}"), str(batch), "{}", "0") for root in large
            ]
            for batch in (32, 8)
        },
        "train_many": measured(TRAIN, small[1], cache, str(place / "many"), "8", '{"size": 1}', "400"),
    }


def mebibytes(size: float) -> str:
    return f"{size / 2**20:,.0f} MiB"


def summary(figures: dict[str, Any]) -> list[Row]:
    lines: list[Row] = []
    for run in figures["build"]:
        stored = mebibytes(run["pictures"] * figures["stored_bytes_a_picture"])
        lines.append((f"build, {run['pictures']:,} pictures ({stored} in the cache), peak", mebibytes(run["peak"]), ""))
    for run in figures["build_tiny"]:
        lines.append((f"build, {run['pictures']:,} pictures of one pixel, peak", mebibytes(run["peak"]), ""))
    read, mapped = figures["read"], figures["map"]
    return [
        *lines,
        ("  by which it grows, bytes a picture", f"{figures['row_bytes_a_picture']:,.0f}", ""),
        (f"build, {AFFECTNET:,} pictures, peak by these figures", mebibytes(figures["affectnet_bytes"]), "under 1,024 MiB"),
        ("trainer before it reads, peak", mebibytes(read["start"]), ""),
        ("  of it the libraries' files, which are shared", mebibytes(read["start_files"]), ""),
        ("  added by a pass in random order, read", mebibytes(read["peak"] - read["start"]), ""),
        ("  added by the same through the map", mebibytes(mapped["peak"] - mapped["start"]), ""),
        *(
            (f"an epoch of sa_csp_ca, {batch}, {run['pictures']:,} pictures, peak", mebibytes(run["peak"]), "1,024 MiB")
            for batch, runs in figures["train"].items()
            for run in runs
        ),
        (
            f"400 steps of 8, {figures['train_many']['pictures']:,} pictures of one pixel, peak",
            mebibytes(figures["train_many"]["peak"]),
            "1,024 MiB",
        ),
    ]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("number", nargs="?", type=int, default=3000, help="large pictures of the larger corpus")
    arguments = parser.parse_args()
    number, many = (1200, 8_000) if arguments.quick else (arguments.number, AFFECTNET)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), number, many)
    write_run("corpus_memory", figures, summary(figures), arguments)


if __name__ == "__main__":
    main()
