"""`mien doctor`: check the installation."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

import typer

from mien.text import printable

DISTRIBUTIONS = ("numpy", "onnxruntime", "pillow", "av", "typer", "rich", "mtcnn", "lapx")
"""Packages of the base install whose versions are shown."""


class Finding(NamedTuple):
    """One line of the report."""

    subject: str
    ok: bool | None  # None: neither good nor bad
    text: str


def doctor() -> None:
    """Check the installation: versions, extras, GPU, models, face detector.

    The exit status is 1 if something is broken.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    sheet = Table(box=None, show_header=False, pad_edge=False)
    findings = list(report())
    for finding in findings:
        mark, style = {True: ("ok", "green"), False: ("broken", "bold red"), None: ("-", "dim")}[finding.ok]
        sheet.add_row(Text(mark, style), Text(printable(finding.subject), "bold"), Text(printable(finding.text)))
    Console(highlight=False).print(sheet)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def report() -> Iterator[Finding]:
    """Yield one finding per line of the report."""
    import platform
    import sys

    from mien import __version__

    yield Finding("mien", True, f"{__version__} on Python {platform.python_version()}, {platform.platform(terse=True)}")
    yield Finding("python", True, sys.executable)
    yield from (_version(name) for name in DISTRIBUTIONS)
    yield _checked("providers", _providers)
    yield _checked("GPU", _gpu)._replace(ok=None)
    yield _checked("models", _models)
    yield _checked("detector", _detector)
    yield from _extras()


def _checked(subject: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(subject, True, check())
    except Exception as error:  # any failure is a finding
        return Finding(subject, False, f"{type(error).__name__}: {error}")


def _version(distribution: str) -> Finding:
    from importlib.metadata import PackageNotFoundError, version

    for suffix in ("", "-gpu", "-openvino", "-directml"):  # one of which may be installed instead of onnxruntime
        name = f"{distribution}{suffix}"
        with suppress(PackageNotFoundError):
            return Finding(name, True, version(name))
    return Finding(distribution, False, "is missing; run: pip install --force-reinstall mien")


def _providers() -> str:
    """Return the execution providers a model runs on, without those that are installed but cannot start."""
    from mien import weights
    from mien.predict.onnx_backend import OnnxBackend
    from mien.provenance import available_cores

    return f"{', '.join(OnnxBackend(weights.default_weights(), threads=1).providers)}; {available_cores()} cores"


def _gpu() -> str:
    import shutil
    import subprocess

    program = shutil.which("nvidia-smi")
    if program is None:
        return "none found; a CPU is enough"
    try:
        command = [program, "--query-gpu=name,memory.total", "--format=csv,noheader"]
        names = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.split("\n")
    except (OSError, subprocess.SubprocessError):
        return "none found: nvidia-smi is installed but fails"
    advice = "not used; run: pip uninstall onnxruntime, then: pip install onnxruntime-gpu"
    used = "CUDAExecutionProvider" in _providers()
    return "; ".join(filter(None, names)) + ("" if used else f" ({advice})")


def _models() -> str:
    from mien import weights
    from mien.predict.ensemble import EnsembleBackend
    from mien.predict.onnx_backend import OnnxBackend

    weights.default_weights()
    for path in weights.bundled().values():
        weights.verify(path)
        OnnxBackend(path, threads=1)
    if weights.ensemble_file().is_file():
        EnsembleBackend(threads=1)
    return f"{', '.join(weights.bundled())}: intact"


def _detector() -> str:
    import numpy as np

    from mien.faces import create_detector

    create_detector().detect(np.zeros((64, 64, 3), np.uint8))
    return "centerface loads and runs"


def _extras() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, metadata, requires

    try:
        lines = requires("mien") or []
    except PackageNotFoundError:
        yield Finding("extras", None, "unknown: mien runs from its sources without being installed; run: pip install .")
        return
    for extra in metadata("mien").get_all("Provides-Extra") or []:
        wanted = [line for line in lines if re.search(rf"extra == ['\"]{re.escape(extra)}['\"]", line)]
        packages = [re.split(r"[^A-Za-z0-9_.-]", line, maxsplit=1)[0] for line in wanted]
        missing = [name for name in packages if name != "mien" and not _version(name).ok]
        text = f"missing {', '.join(missing)}; run: pip install 'mien[{extra}]'" if missing else "installed"
        yield Finding(f"extra {extra}", None if missing else True, text)
