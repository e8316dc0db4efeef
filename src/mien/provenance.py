"""Where a result or a file comes from: the commit, the hardware and the versions of packages."""

from __future__ import annotations

import math
import os
import platform
import subprocess
import sys
from contextlib import suppress
from itertools import product
from pathlib import Path, PurePosixPath


def current_commit() -> str:
    """Return the commit this package runs from, with `-dirty` if its sources were changed; empty outside a git checkout."""
    here = Path(__file__).parent
    try:
        _git(
            here, "ls-files", "--error-unmatch", Path(__file__).name
        )  # an installed copy may be inside another project's checkout
        commit = _git(here, "rev-parse", "HEAD")
        return commit + ("-dirty" if _git(here, "status", "--porcelain", "--", ".") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


def available_cores() -> int:
    """Return how many cores this process may use, by its affinity and by the quota of its container, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([cores, *map(math.ceil, core_quotas())]))


def core_quotas(root: Path = Path("/")) -> list[float]:
    """Return the quotas of processor time, in cores, of the control groups of this process, of Linux's version 1 or 2.

    A group has the quotas of its parents too. The list is empty if there is none.

    Args:
        root: Where the folders `proc` and `sys` are.
    """
    quotas = []
    with suppress(OSError):  # other systems have no such file
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "cpu" not in controllers.split(","):
                continue
            group = PurePosixPath(path.lstrip("/"))
            for mount, part in product(("", "unified", "cpu"), (group, *group.parents)):
                folder = root / "sys/fs/cgroup" / mount / part
                with suppress(OSError, ValueError):  # no such file, or "max"
                    quota, period = (folder / "cpu.max").read_text().split()
                    quotas.append(int(quota) / int(period))
                with suppress(OSError, ValueError):
                    quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
                    quotas += [int(quota) / int(period)] if int(quota) > 0 else []
    return quotas


def hardware() -> dict[str, str | int]:
    """Return the processor's name, the number of cores, the system and the Python version."""
    return {
        "processor": _processor(),
        "cores": available_cores(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown"


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that measured figures depend on; None for one not installed."""
    return {name: _version(name) for name in ("torch", "timm", "numpy", "onnxruntime")} | {"python": platform.python_version()}


def _version(package: str) -> str | None:
    from importlib import metadata  # only here, because it takes 20 ms

    if package in sys.modules:  # onnxruntime may be installed as onnxruntime-gpu, which metadata knows by that name only
        return str(sys.modules[package].__version__)
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
