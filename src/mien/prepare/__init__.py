"""Photos in, a corpus of faces out; `mien prepare`."""

from __future__ import annotations

from mien.prepare.run import Report, Settings, prepare

__all__ = ["Report", "Settings", "prepare"]
