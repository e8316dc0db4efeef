"""What every benchmark writes: figures, date, commit, versions and hardware, in `benchmarks/runs/<date>-<commit>-<name>.json`.

`others_cores` tells how far to trust a time: the average number of cores that other processes kept busy meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

from mien.provenance import current_commit, hardware

RUNS = Path(__file__).parent / "runs"

PACKAGES = ("mien", "numpy", "pillow", "onnxruntime", "onnxruntime-openvino", "av", "torch", "torchvision", "kornia")
"""Packages whose versions a run states, those that are installed."""

Row = tuple[str, str, str]
"""A line of the summary: what, its figure, the aim (may be empty)."""


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options all benchmarks share: `--quick` and `--out`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few rounds only, to see that it runs; the figures are rough")
    parser.add_argument("--out", type=Path, default=RUNS, metavar="DIR", help="where the JSON goes (benchmarks/runs)")
    return parser


def write_run(name: str, figures: Mapping[str, Any], summary: Sequence[Row], arguments: argparse.Namespace) -> Path:
    """Write a run, print its summary and return its path.

    Args:
        name: The benchmark's name.
        figures: What was measured, plain JSON types.
        summary: The lines worth reading first.
        arguments: What `argument_parser` parsed; the options given are kept with the run.
    """
    commit = current_commit() or "unknown"
    given = [(key, value) for key, value in vars(arguments).items() if key != "out" and value is not None]
    run = {
        "name": name,
        "date": date.today().isoformat(),
        "commit": commit,
        "hardware": hardware(),
        "others_cores": _others_cores(),
        "versions": _versions(),
        "environment": {key: value for key, value in os.environ.items() if key.startswith(("OMP_", "MKL_", "KMP_"))},
        "options": {key: value.name if isinstance(value, Path) else str(value) for key, value in given},
        "summary": [dict(zip(("what", "measured", "aim"), row, strict=True)) for row in summary],
        **figures,
    }
    short = commit[:7] + ("-dirty" if commit.endswith("-dirty") else "")
    path = arguments.out / f"{run['date']}-{short}-{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    print(f"\n{name} (others kept {run['others_cores']} cores busy)\n{table(summary)}\n{path.name}", flush=True)
    return path


def table(rows: Sequence[Row]) -> str:
    """Return summary lines as aligned text."""
    wide = [max((len(row[i]) for row in rows), default=0) for i in (0, 1)]
    lines = (f"  {what:<{wide[0]}}  {measured:>{wide[1]}}  {aim and f'(aim {aim})'}" for what, measured, aim in rows)
    return "\n".join(line.rstrip() for line in lines)


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _busy_seconds() -> tuple[float, float]:
    """Return the processor seconds the machine has spent, and those of this process and its children that have ended."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]  # user nice system idle iowait irq softirq steal
    busy = sum(int(fields[i]) for i in (0, 1, 2, 5, 6, 7)) / os.sysconf("SC_CLK_TCK")
    return busy, sum(os.times()[:4])


def _others_cores() -> float | None:
    if _AT_START is None:
        return None
    (busy, own), (busy_before, own_before, clock_before) = _busy_seconds(), _AT_START
    return round(max(0.0, busy - busy_before - own + own_before) / (time.perf_counter() - clock_before), 2)


def _at_start() -> tuple[float, float, float] | None:
    try:
        return (*_busy_seconds(), time.perf_counter())
    except (OSError, ValueError):  # not Linux
        return None


_AT_START = _at_start()
