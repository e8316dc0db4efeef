"""`mien prepare`: crop the faces from photos to make a corpus."""

from __future__ import annotations

from mien.prepare.run import Report, Settings, prepare

__all__ = ["Report", "Settings", "prepare"]
