"""Attention and fusion layers, one a file, each usable alone."""
