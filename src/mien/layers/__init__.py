"""Attention and fusion layers, one per file, each usable alone."""
