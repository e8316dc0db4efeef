"""From photos to a corpus of faces; `mien prepare`."""

from __future__ import annotations

from mien.prepare.run import Report, Settings, prepare

__all__ = ["Report", "Settings", "prepare"]
