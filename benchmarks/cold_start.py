"""Time of a fresh process: `import mien`, `mien --help` and `mien predict photo.jpg`, against a Python that does nothing.

    python -m benchmarks.cold_start

The processes take turns, round after round. Files are in the system's cache and bytecode is compiled, as after a first use.
`--python` names the Python of another environment, for example one with the base install only. By default it is this one, where
some packages import optional ones. The run also lists the slowest imports and the time of each step of a prediction.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
from PIL import Image

from benchmarks.networks import find_pair
from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import Seconds, interleaved, ratio

STEPS = """
import json, sys, time
steps = {}
def step(name, since=[time.perf_counter()]):
    now = time.perf_counter()
    steps[name] = round((now - since[0]) * 1000, 2)
    since[0] = now
from mien.predict.recognizer import Recognizer
step("import")
recognizer = Recognizer(sys.argv[2], detector=None)
step("open the network")
from mien.faces import create_detector
recognizer.detector = create_detector()
step("open the detector")
from mien.image import read_image
image = read_image(sys.argv[1])
step("read the picture")
faces = recognizer.find_faces(image)
step("find the faces")
recognizer.probabilities([image])
step("run the network")
print(json.dumps(steps))
"""
"""Times the steps of `mien predict PHOTO MODEL` from inside; an argument of the picture, then the model."""


@dataclass(frozen=True)
class Fresh:
    """Starts processes of a Python."""

    python: str
    environment: dict[str, str]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python to its end; its output is kept, a failure is raised."""
        command = [self.python, *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True)


def commands(photo: Path, model: Path) -> dict[str, list[str]]:
    return {
        "python -c pass": ["-c", "pass"],
        "import numpy": ["-c", "import numpy"],
        "import mien": ["-c", "import mien"],
        "mien --help": ["-m", "mien", "--help"],
        "mien predict photo.jpg": ["-m", "mien", "predict", str(photo), "--model", str(model)],
    }


def imports(fresh: Fresh, arguments: list[str]) -> dict[str, Any]:
    """Return the imports that cost most: by package, and by module; ms spent in the module itself."""
    listing = fresh.run("-X", "importtime", *arguments).stderr.splitlines()
    modules: dict[str, float] = {}
    for line in listing:
        own, _, name = line.removeprefix("import time:").partition("|")
        if own.strip().isdigit():
            modules[name.rpartition("|")[2].strip()] = int(own) / 1000
    packages: dict[str, float] = defaultdict(float)
    for module, cost in modules.items():
        packages[module.split(".")[0]] += cost
    return {
        "all_ms": round(sum(modules.values()), 1),
        "modules": len(modules),
        "torch": "torch" in modules,
        "packages_ms": _largest(packages, 12),
        "modules_ms": _largest(modules, 12),
    }


def _largest(costs: dict[str, float], number: int) -> dict[str, float]:
    ranked = sorted(costs.items(), key=lambda item: -item[1])
    return {name: round(cost, 1) for name, cost in ranked[:number]}


def steps(fresh: Fresh, photo: Path, model: Path, times: int) -> dict[str, float]:
    """Return the median of each step of a prediction in a fresh process, ms."""
    found = [json.loads(fresh.run("-c", STEPS, str(photo), str(model)).stdout) for _ in range(times)]
    return {name: round(float(np.median([one[name] for one in found])), 2) for name in found[0]}


def summary(seconds: dict[str, Seconds]) -> list[Row]:
    base = seconds["python -c pass"]
    aims = {"import mien": "0.15 s", "mien predict photo.jpg": "1.5 s"}
    return [
        (
            f"{name}, least / median",
            f"{times.min():.3f} / {np.median(times):.3f} s, {ratio(times, base):.1f}x",
            aims.get(name, ""),
        )
        for name, times in seconds.items()
    ]


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--model", help="a bundled name or an .onnx file")
    parser.add_argument("--python", type=Path, help="the Python to start, mien installed in it; by default this one")
    parser.add_argument("--photo", type=Path, help="a picture with a face; by default NASA's portrait of Eileen Collins")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 20
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = find_pair(arguments.model, arguments.model, folder)
        photo = arguments.photo or folder / "photo.jpg"
        if arguments.photo is None:
            Image.fromarray(skimage.data.astronaut()).save(photo, quality=90)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")  # compiled once, as an installed package is
        fresh = Fresh(str(arguments.python or sys.executable), environment)
        wanted = commands(photo, model.fp32)
        seconds = interleaved({k: partial(fresh.run, *v) for k, v in wanted.items()}, rounds)
        found = {
            "model": model.origin,
            "rounds": rounds,
            "seconds": {k: {"min": round(v.min(), 4), "median": round(float(np.median(v)), 4)} for k, v in seconds.items()},
            "times_python": {k: ratio(v, seconds["python -c pass"]) for k, v in seconds.items()},
            "steps_ms": steps(fresh, photo, model.fp32, times=rounds // 2 or 1),
            "imports": {k: imports(fresh, wanted[k]) for k in ("import mien", "mien --help", "mien predict photo.jpg")},
        }
    write_run("cold_start", found, summary(seconds), arguments)


if __name__ == "__main__":
    main()
