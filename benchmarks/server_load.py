"""`mien serve` under load on this machine: start-up, throughput, latency, memory, and whether every request is answered.

    python -m benchmarks.server_load --photos DIR    # photos of people; by default the one in docs/assets

Four parts; what is compared takes turns, round after round:

- start: from the command to the first answer of `/ready`.
- faces: ready 48x48 faces per second, one per request, from 1, 8 and 32 clients. The same server without batches computes two
  requests at a time, or one at a time. Then 32 faces in each request.
- photos: photos per second, one per request, against `Recognizer.stream` on the same photos.
- steady: 32 clients for two minutes; one request in eight has a photo, the others a ready face. Every answer is compared with
  the one that a lone client got.

The clients run in a process of their own, on the same cores as the server.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp
import numpy as np
from PIL import Image

from benchmarks.long_video import resident
from benchmarks.networks import grey_crops
from benchmarks.record import Row, argument_parser, write_run
from mien.predict.recognizer import Recognizer

ROOT = Path(__file__).resolve().parent.parent

CLIENTS = (1, 8, 32)

STEADY_CLIENTS = 32

MEMORY = 500
"""Resident memory to stay below, MB."""

ALONE = "from mien.server import batching; batching.MAX_BATCH = 1; "

SERVERS = {
    "batches": "",
    "two at a time": ALONE,
    "one at a time": f"{ALONE}batching.Batcher.__init__.__defaults__ = (1,); ",
}
"""What is changed in mien before a server starts."""

Request = tuple[str, str, bytes]
"""Its route, the type of its body, and the body."""


@dataclass
class Load:
    """What many clients saw: the seconds of every answered request, and how many were answered with what."""

    seconds: list[float] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    elapsed: float = 0.0

    @property
    def rate(self) -> float:
        """Requests answered per second."""
        return len(self.seconds) / self.elapsed


async def _send(address: str, requests: Sequence[Request], clients: int, seconds: float) -> Load:
    """Send the requests again and again from so many clients, each waiting for its answer before it sends the next."""
    load, expected = Load(), dict[int, list[Any]]()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def ask(number: int) -> None:
            route, kind, body = requests[number]
            start = time.perf_counter()
            try:
                async with session.post(address + route, data=body, headers={"Content-Type": kind}) as response:
                    answer = await response.json()
            except (aiohttp.ClientError, ValueError) as error:
                load.answers[f"lost: {type(error).__name__}"] += 1
                return
            if response.status != 200:
                load.answers[f"lost: status {response.status}"] += 1
                return
            load.seconds.append(time.perf_counter() - start)
            labels = [face["label"] for picture in answer["pictures"] for face in picture["faces"]]
            load.answers["same" if expected.setdefault(number, labels) == labels else "different"] += 1

        for number in range(len(requests)):
            await ask(number)
        load.seconds.clear()
        load.answers.clear()
        start = time.perf_counter()

        async def client(first: int) -> None:
            number = first
            while time.perf_counter() < start + seconds:
                await ask(number % len(requests))
                number += clients

        await asyncio.gather(*map(client, range(clients)))
        load.elapsed = time.perf_counter() - start
    return load


def send(address: str, requests: Sequence[Request], clients: int, seconds: float) -> Load:
    """Return what so many clients saw; runs in the clients' process."""
    return asyncio.run(_send(address, requests, clients, seconds))


@contextmanager
def server(*options: str, change: str = "") -> Iterator[tuple[str, int, float]]:
    """Start a server; yield its address, its process and the seconds until it was ready."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        program = f"import sys; from mien.server import app; {change}from mien import cli; sys.exit(cli.main())"
        command = ["-c", program] if change else ["-m", "mien"]
        start = time.perf_counter()
        with log.open("wb") as file:
            process = subprocess.Popen([sys.executable, *command, "serve", "--port", "0", *options], stdout=file, stderr=file)
        try:
            while (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())) is None:
                if process.poll() is not None:
                    raise SystemExit(log.read_text())
                time.sleep(0.005)
            with urllib.request.urlopen(f"{found[0]}/ready") as answer:
                answer.read()
            yield found[0], process.pid, time.perf_counter() - start
        finally:
            process.terminate()
            process.wait()


def face_requests(number: int = 64) -> list[Request]:
    """Return requests with one ready face each."""
    requests = []
    for crop in grey_crops(number):
        stream = io.BytesIO()
        Image.fromarray(crop).save(stream, "PNG")
        requests.append(("/v1/faces", "image/png", stream.getvalue()))
    return requests


def joined(requests: Sequence[Request]) -> Request:
    """Return one request with the pictures of several."""
    pictures = [{"data": base64.b64encode(body).decode()} for _, _, body in requests]
    return requests[0][0], "application/json", json.dumps({"pictures": pictures}).encode()


def read_photos(folder: Path | None) -> list[bytes]:
    """Return the files of the photos."""
    if folder is None:
        return [(ROOT / "docs/assets/astronaut.jpg").read_bytes()]
    return [path.read_bytes() for path in sorted(folder.rglob("*")) if path.suffix.lower() in (".jpg", ".jpeg", ".png")]


def start_up(rounds: int) -> list[float]:
    """Return the seconds until a server is ready, start after start."""
    found = []
    for _ in range(rounds):
        with server() as (_, _, seconds):
            found.append(seconds)
    return found


def faces(send_: Callable[..., Load], rounds: int, seconds: float) -> dict[str, Any]:
    """Return faces per second, and how many times as many as one at a time, by server and number of clients."""
    requests, several = face_requests(), [joined(face_requests(32))]
    rates: dict[str, list[float]] = {}
    with ExitStack() as stack:
        addresses = {name: stack.enter_context(server(change=change))[0] for name, change in SERVERS.items()}
        for _ in range(rounds):
            for clients in CLIENTS:
                for name, address in addresses.items():
                    load = send_(address, requests, clients, seconds)
                    rates.setdefault(f"{name}, {clients} clients", []).append(load.rate)
            load = send_(addresses["batches"], several, 1, seconds)
            rates.setdefault("32 faces in a request, 1 clients", []).append(32 * load.rate)

    def times(name: str, clients: int) -> float:
        pairs = zip(rates[f"{name}, {clients} clients"], rates[f"one at a time, {clients} clients"], strict=True)
        return round(median(a / b for a, b in pairs), 2)

    ratios = {
        f"{name}, {clients} clients": times(name, clients) for name in ("batches", "two at a time") for clients in CLIENTS
    }
    ratios["32 faces in a request, 1 clients"] = times("32 faces in a request", 1)
    return {"faces_per_second": {name: round(median(found)) for name, found in rates.items()}, "times_one_at_a_time": ratios}


def photos(send_: Callable[..., Load], files: Sequence[bytes], rounds: int, seconds: float) -> dict[str, Any]:
    """Return photos per second of the server and of `Recognizer.stream`."""
    recognizer, requests = Recognizer(max_faces=100), [("/v1/pictures", "image/jpeg", file) for file in files]
    list(recognizer.stream(files[:8]))
    served, streamed = list[float](), list[float]()
    with server() as (address, _, _):
        for _ in range(rounds):
            start, count = time.perf_counter(), 0
            while time.perf_counter() < start + seconds:
                count += sum(reading.error is None for reading in recognizer.stream(files))
            streamed.append(count / (time.perf_counter() - start))
            served.append(send_(address, requests, 8, seconds).rate)
    return {
        "server_per_second": round(median(served), 1),
        "stream_per_second": round(median(streamed), 1),
        "server_of_stream": round(median(a / b for a, b in zip(served, streamed, strict=True)), 3),
    }


def steady(pool: ProcessPoolExecutor, files: Sequence[bytes], seconds: float) -> dict[str, Any]:
    """Return what 32 clients saw and the server's memory meanwhile."""
    small, requests = face_requests(7 * len(files)), list[Request]()
    for i, file in enumerate(files):
        requests += [("/v1/pictures", "image/jpeg", file), *small[7 * i : 7 * i + 7]]
    with server() as (address, pid, _):
        future, memory = pool.submit(send, address, requests, STEADY_CLIENTS, seconds), list[float]()
        while not future.done():
            memory.append(resident(pid, "VmRSS"))
            time.sleep(1)
        load, peak = future.result(), resident(pid, "VmHWM")
    memory = memory[-int(seconds) :]  # without the lone client
    fifth = max(1, len(memory) // 5)
    p50, p95, p99 = np.percentile(np.array(load.seconds) * 1000, [50, 95, 99]).round(1).tolist()
    return {
        "requests": sum(load.answers.values()),
        "answers": dict(load.answers),
        "per_second": round(load.rate, 1),
        "ms": {"p50": p50, "p95": p95, "p99": p99},
        "peak_mb": round(peak, 1),
        "second_fifth_mb": round(max(memory[fifth : 2 * fifth], default=peak), 1),
        "last_fifth_mb": round(max(memory[-fifth:], default=peak), 1),
    }


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--photos", type=Path, metavar="DIR", help="photos of people")
    parser.add_argument("--minutes", type=float, default=2, help="how long the steady load lasts")
    arguments = parser.parse_args()
    rounds, seconds, minutes = (1, 1.0, 0.1) if arguments.quick else (5, 2.0, arguments.minutes)
    files = read_photos(arguments.photos)
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        send_ = lambda *given: pool.submit(send, *given).result()  # noqa: E731
        start, found = start_up(rounds), faces(send_, rounds, seconds)
        print(found, flush=True)
        photo = photos(send_, files, rounds, seconds)
        print(photo, flush=True)
        load = steady(pool, files[:: max(1, len(files) // 24)], 60 * minutes)
    times, ms, lost = found["times_one_at_a_time"], load["ms"], load["requests"] - load["answers"].get("same", 0)
    rows: list[Row] = [("seconds until ready, median of starts", f"{median(start):.2f}", "under 2")]
    for name, ratio in times.items():
        rows.append((f"faces/s, {name} / one at a time", f"{ratio:.2f}x", "1.5x" if name.startswith("batches, 32") else ""))
    rows += [
        ("photos/s, server / Recognizer.stream", f"{photo['server_of_stream']:.0%}", "80 %"),
        (f"{STEADY_CLIENTS} clients, requests, per second", f"{load['requests']:,}, {load['per_second']}", ""),
        ("p50 / p95 / p99, ms", f"{ms['p50']} / {ms['p95']} / {ms['p99']}", ""),
        ("lost or other answers", f"{lost}", "0"),
        ("peak resident, MB", f"{load['peak_mb']:.0f}", f"under {MEMORY}"),
        ("second fifth, last fifth, MB", f"{load['second_fifth_mb']:.0f}, {load['last_fifth_mb']:.0f}", "flat"),
    ]
    figures = {"start_seconds": [round(each, 3) for each in start], "faces": found, "photos": photo, "steady": load}
    write_run("server_load", {"photos_sent": len(files), **figures}, rows, arguments)


if __name__ == "__main__":
    main()
