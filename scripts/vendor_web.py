"""Copy the files of onnxruntime-web that the page needs to src/mien/server/page/device/ort/.

`npm pack` fetches the package from the registry that npm is set to. Its SHA-512 must be the one below. Git ignores the folder;
wheels and source archives include it. Run it once in a clone, from anywhere, or as `make web`:

    python scripts/vendor_web.py
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import distribution
from pathlib import Path

VERSION = "1.30.0"
SHA512 = "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""The SHA-512 of the package's archive in base64, as npm's lock files have it."""

FILES = (
    "ort.wasm.min.mjs",  # for the processor: 3.7 MB in the wheel
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.jspi.min.mjs",  # for WebGPU: 4.2 MB. The build for browsers without JSPI has 6.6 MB, and few have WebGPU without JSPI
    "ort-wasm-simd-threaded.jspi.mjs",
    "ort-wasm-simd-threaded.jspi.wasm",
)
"""What is copied from the package's `dist`."""

FOLDER = Path(__file__).parents[1] / "src" / "mien" / "server" / "page" / "device" / "ort"


def main(folder: Path = FOLDER) -> None:
    """Fetch the package, check it and copy the files."""
    npm = shutil.which("npm")
    if npm is None:
        sys.exit("npm was not found; install Node.js (on Debian or Ubuntu: apt install npm) and run this again")
    with tempfile.TemporaryDirectory() as name:
        packed = subprocess.run([npm, "pack", "--silent", f"onnxruntime-web@{VERSION}"], cwd=name, check=False)
        archives = list(Path(name).glob("*.tgz"))
        if packed.returncode or not archives:
            sys.exit("npm could not fetch onnxruntime-web; see its message above")
        found = base64.b64encode(hashlib.sha512(archives[0].read_bytes()).digest()).decode()
        if found != SHA512:
            sys.exit(f"onnxruntime-web {VERSION} has SHA-512 {found}, not the expected one; nothing was copied")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        with tarfile.open(archives[0]) as archive:
            for file in FILES:
                member = archive.extractfile(f"package/dist/{file}")
                assert member is not None
                (folder / file).write_bytes(member.read())
    # The package has no licence file. It is part of ONNX Runtime, whose Python package has that file.
    licence = next(path for path in distribution("onnxruntime").files or [] if path.name == "LICENSE")
    (folder / "LICENSE").write_bytes(Path(str(licence.locate())).read_bytes())
    (folder / "VERSION").write_text(VERSION + "\n")
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"onnxruntime-web {VERSION}: {len(FILES)} files, {size / 1e6:.1f} MB, in {folder}")


if __name__ == "__main__":
    main()
