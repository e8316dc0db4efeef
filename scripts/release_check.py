"""Check that a release is named alike everywhere, and print its section of CHANGELOG.md.

    python scripts/release_check.py v0.2.0

The version is in `src/mien/__init__.py`, in `CITATION.cff` and in the first heading of `CHANGELOG.md`, there with the day of
the release. The workflow that publishes runs this first. It needs nothing but Python.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = {
    "src/mien/__init__.py": r'__version__ = "(.+)"',
    "CITATION.cff": r"version: (.+)",
    "CHANGELOG.md": r"## (.+) \(\d{4}-\d\d-\d\d\)",
}
"""The line of each file that has the version."""


def main(tag: str, root: Path = ROOT) -> None:
    """Print the notes of the release, or end with what is wrong."""
    for name, pattern in VERSIONS.items():
        start = pattern.partition("(")[0]
        lines = (root / name).read_text(encoding="utf-8").splitlines()
        line = next(line for line in lines if line.startswith(start))
        found = re.fullmatch(pattern, line)
        if found is None or f"v{found[1]}" != tag:
            sys.exit(f"{name}: says {line!r}, which does not fit the tag {tag}; correct it and tag again")
    notes = lines[lines.index(line) + 1 :]
    ends = [number for number, line in enumerate(notes) if line.startswith("## ")]
    print("\n".join(notes[: min(ends, default=None)]).strip())


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/release_check.py v0.2.0")
    main(sys.argv[1])
