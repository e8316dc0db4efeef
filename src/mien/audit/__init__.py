"""`mien audit`: twins, leaks between splits, conflicting labels, blank images and class balance."""

from __future__ import annotations

from mien.audit.report import KINDS, Audit, audit, findings, twins_path, write_audit

__all__ = ["KINDS", "Audit", "audit", "findings", "twins_path", "write_audit"]
