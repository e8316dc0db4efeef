"""`mien label`: pictures per second and core, against one process of `mien predict` on the same files; and memory per worker.

    python -m benchmarks.label                 # copies of the photo in docs/assets; ten minutes on two idle cores
    python -m benchmarks.label --photos DIR    # your own photos
    python -m benchmarks.label --ray           # also with Ray

The commands take turns, round after round. Each gets as many cores as it has workers. Rates are without the start: that of a
run over two pictures, each a unit, is subtracted. Processor time is given next to the time on the clock, because other load on
the machine changes it less. The bound is what one core does if it only reads and decodes: from the disk, or from a local S3
server.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from statistics import median
from typing import NamedTuple

from PIL import Image

from benchmarks.long_video import resident
from benchmarks.record import Row, argument_parser, write_run
from mien.image import read_image

ROOT = Path(__file__).resolve().parent.parent

MEMORY = 600
"""Resident memory of a worker to stay below, MB."""

NAMES = {
    "predict": "mien predict, one thread",
    "label_1": "mien label, 1 worker",
    "label_2": "mien label, 2 workers",
    "ray_1": "mien label on Ray, 1 worker",
}

SERVER = """
import os
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer(port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
input()
"""


class Took(NamedTuple):
    """How long a command took on the clock and of the processor, seconds, and the peak memory of its workers, MB."""

    clock: float
    processor: float
    memory: float


def run(cores: int, *arguments: object) -> Took:
    """Run mien on so many cores."""
    allowed = sorted(os.sched_getaffinity(0))[:cores]
    command = [sys.executable, "-m", "mien", *map(str, arguments)]
    before, start, peaks = os.times(), time.perf_counter(), dict[int, float]()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, preexec_fn=partial(os.sched_setaffinity, 0, allowed)) as process:
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, peaks, done))
        watcher.start()
        process.wait()
        done.set()
        watcher.join()
    clock, after = time.perf_counter() - start, os.times()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    processor = after.children_user + after.children_system - before.children_user - before.children_system
    return Took(clock, processor, max(peaks.values(), default=0.0))


def watch(parent: int, peaks: dict[int, float], done: threading.Event) -> None:
    """Note the peak memory of each worker process of a command, MB."""
    while not done.wait(0.2):
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            with suppress(OSError, StopIteration):
                for pid in map(int, task.read_text().split()):
                    if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                        peaks[pid] = resident(pid, "VmHWM")


def make_photos(folder: Path, count: int) -> None:
    """Write copies of the photo, each cut elsewhere."""
    folder.mkdir()
    with Image.open(ROOT / "docs/assets/astronaut.jpg") as photo:
        for i in range(count):
            left, top = i % 20, i // 20 % 20
            photo.crop((left, top, left + 490, top + 490)).save(folder / f"{i:05d}.jpg", quality=90)


def decode_rate(files: list[Path]) -> float:
    """Return how many pictures this process decodes per second of the processor."""
    start = time.process_time()
    for file in files:
        read_image(file)
    return len(files) / (time.process_time() - start)


def store_rate(files: list[Path]) -> dict[str, float]:
    """Return pictures per second of the clock from a local S3 server: only read, read and decoded, and labelled on one core."""
    import fsspec

    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", SERVER], **pipes, text=True) as server:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        os.environ |= {"AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
        store = fsspec.filesystem("s3")
        store.mkdir("photos")
        names = [f"photos/{file.name}" for file in files]
        store.put([str(file) for file in files], names)
        with ThreadPoolExecutor(8) as pool:
            start = time.perf_counter()
            contents = list(pool.map(lambda name: store.cat_file(name, start=0, end=10**7), names))
            read = time.perf_counter() - start
        start = time.perf_counter()
        for content in contents:
            read_image(content)
        decode = time.perf_counter() - start
        with tempfile.TemporaryDirectory() as folder:
            begun = run(1, "label", f"s3://{names[0]}", "--out", f"{folder}/start", "--workers", 1).clock
            labelled = run(1, "label", "s3://photos", "--out", f"{folder}/out", "--workers", 1).clock - begun
        server.communicate("\n")
    seconds = {"read": read, "read_and_decode": max(read, decode), "label": labelled}
    return {key: round(len(files) / value, 1) for key, value in seconds.items()}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a folder of photos (copies of the one in docs/assets)")
    parser.add_argument("--pictures", type=int, default=1000, help="number of those copies (1,000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all commands (5)")
    parser.add_argument("--ray", action="store_true", help="also measure Ray, with one worker on one core")
    arguments = parser.parse_args()
    pictures, rounds = (64, 1) if arguments.quick else (arguments.pictures, arguments.rounds)
    with tempfile.TemporaryDirectory() as scratch:
        folder, two, out = (Path(scratch, name) for name in ("photos", "two", "out"))
        if arguments.photos is None:
            make_photos(folder, pictures)
        else:
            shutil.copytree(arguments.photos, folder)
        files = sorted(file for file in folder.rglob("*") if file.is_file())
        picture_bytes = round(sum(file.stat().st_size for file in files) / len(files))
        two.mkdir()
        for file in files[:2]:
            shutil.copy(file, two)
        unit = max(1, min(512, len(files) // 8))
        jobs = {
            "predict": (1, ["predict", "--out", Path(scratch, "table.parquet"), "--quiet"]),
            "label_1": (1, ["label", "--out", out, "--workers", 1]),
            "label_2": (2, ["label", "--out", out, "--workers", 2]),
        }
        if arguments.ray:
            jobs["ray_1"] = (1, ["label", "--out", out, "--workers", 1, "--engine", "ray"])
        took: dict[str, list[dict[str, float]]] = {name: [] for name in jobs}
        for _ in range(rounds):
            for name, (cores, (command, *options)) in jobs.items():
                runs = []
                for source, size in ((two, 1), (folder, unit)):
                    shutil.rmtree(out, ignore_errors=True)
                    sized = [*options, "--unit-size", size] if command == "label" else options
                    runs.append(run(cores, command, source, *sized))
                start, whole = runs
                clock, processor = whole.clock - start.clock, whole.processor - start.processor
                rate = {"per_second": len(files) / clock, "per_processor_second": len(files) / max(processor, 1e-9)}
                took[name].append(
                    {key: round(value, 2) for key, value in (rate | {"start": start.clock, "memory": whole.memory}).items()}
                )
                print(name, took[name][-1], flush=True)
        parts = [file.stat().st_size for file in out.glob("faces/*.parquet")]
        decoded = decode_rate(files)
        stored = store_rate(files)

    def ratio(new: str, old: str, key: str) -> float:
        return round(median(a[key] / b[key] for a, b in zip(took[new], took[old], strict=True)), 3)

    def middle(name: str, key: str) -> float:
        return median(each[key] for each in took[name])

    memory = max(each["memory"] for name in ("label_1", "label_2") for each in took[name])
    shares = {key: ratio("label_1", "predict", key) for key in ("per_second", "per_processor_second")}
    twice = ratio("label_2", "label_1", "per_second")
    rows: list[Row] = [
        ("pictures, rounds, pictures per unit", f"{len(files)}, {rounds}, {unit}", ""),
        *(
            (
                f"{NAMES[name]}: pictures/s, pictures/s of the processor",
                f"{middle(name, 'per_second'):.1f}, {middle(name, 'per_processor_second'):.1f}",
                "",
            )
            for name in jobs
        ),
        ("label with 1 worker / predict, clock", f"{shares['per_second']:.0%}", "80 % at least"),
        ("label with 1 worker / predict, processor", f"{shares['per_processor_second']:.0%}", "80 % at least"),
        ("label with 2 workers / 1 worker", f"{twice:.2f}x", "1.8x at least"),
        ("peak memory of a worker, MB", f"{memory:.0f}", f"{MEMORY} at most"),
        ("only decoding, pictures/s of the processor", f"{decoded:.0f}", ""),
        ("from S3, 1 worker: pictures/s", f"{stored['label']:.1f}", ""),
        ("from S3, only reading; reading and decoding", f"{stored['read']:.0f}; {stored['read_and_decode']:.0f}", ""),
        ("label from S3 / reading and decoding", f"{stored['label'] / stored['read_and_decode']:.0%}", ""),
    ]
    figures = {
        "rounds": took,
        "share_of_predict": shares,
        "two_workers": twice,
        "memory_mb": round(memory, 1),
        "decode_per_processor_second": round(decoded, 1),
        "store_per_second": stored,
        "pictures": len(files),
        "picture_bytes": picture_bytes,
        "result_bytes": round(sum(parts) / len(files)),
    }
    write_run("label", figures, rows, arguments)


if __name__ == "__main__":
    main()
