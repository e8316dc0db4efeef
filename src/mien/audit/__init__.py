"""What to know of a corpus before trusting it: twins, leaks, conflicting labels, blanks, balance; `mien audit`."""

from __future__ import annotations

from mien.audit.report import Audit, audit, write_audit

__all__ = ["Audit", "audit", "write_audit"]
