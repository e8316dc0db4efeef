"""What one should know about a corpus before trusting it: twins, leaks, conflicting labels, blanks, balance; `mien audit`."""

from __future__ import annotations

from mien.audit.report import KINDS, Audit, audit, findings, write_audit

__all__ = ["KINDS", "Audit", "audit", "findings", "write_audit"]
