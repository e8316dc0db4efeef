"""Disk space of `pip install mien`: megabytes, packages, and the largest of them.

    python -m benchmarks.install_size

Builds the wheel, installs it into a fresh virtual environment and adds up the files of every installed package with their
compiled bytecode, without pip. Needs a package index. The install includes reading video.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from benchmarks.record import argument_parser, write_run

ROOT = Path(__file__).resolve().parent.parent

LIST = """
import importlib.metadata, json
found = {}
for package in importlib.metadata.distributions():
    files = [package.locate_file(file) for file in package.files or ()]
    sizes = {str(file): file.stat().st_size for file in files if file.is_file()}
    bytecode = sum(size for file, size in sizes.items() if file.endswith(".pyc"))
    found[package.name + " " + package.version] = [sum(sizes.values()), bytecode]
print(json.dumps(found))
"""
"""Prints the bytes of each installed package, and those of its bytecode."""


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this checkout into a folder."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(pip, check=True)
    return next(folder.glob("mien-*.whl"))


def install(wheel: Path, folder: Path) -> dict[str, list[float]]:
    """Install a wheel into a fresh environment and return each package's MB, and those of its bytecode, largest first."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True)
    listing = subprocess.run([python, "-c", LIST], check=True, capture_output=True, text=True).stdout
    sizes = {name: size for name, size in json.loads(listing).items() if name.split()[0] not in ("pip", "setuptools")}
    ranked = sorted(sizes.items(), key=lambda item: -item[1][0])
    return {name: [round(size / 1e6, 2) for size in pair] for name, pair in ranked}


def main() -> None:
    arguments = argument_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        wheel = build_wheel(Path(name))
        wheel_mb = wheel.stat().st_size / 1e6
        both = install(wheel, Path(name) / "venv")
    sizes = {package: size for package, (size, _) in both.items()}
    total, bytecode = (round(sum(pair[i] for pair in both.values()), 1) for i in (0, 1))
    torch = any(package.split()[0].lower() == "torch" for package in sizes)
    largest = ", ".join(f"{package} {size:.0f}" for package, size in list(sizes.items())[:4])
    rows = [
        ("base install, MB of 1,000,000 bytes", f"{total:.0f}", "under 300"),
        ("of these bytecode, MB", f"{bytecode:.0f}", ""),
        ("packages", str(len(sizes)), ""),
        ("largest, MB", largest, ""),
        ("mien's own wheel", f"{wheel_mb:.1f} MB", ""),
    ]
    found = {
        "megabytes": total,
        "bytecode_megabytes": bytecode,
        "packages": len(sizes),
        "torch": torch,
        "wheel_megabytes": round(wheel_mb, 2),
        "sizes_mb": sizes,
    }
    write_run("install_size", found, rows, arguments)


if __name__ == "__main__":
    main()
