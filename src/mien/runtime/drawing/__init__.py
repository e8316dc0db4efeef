"""Predictions drawn: boxes and bars on pictures and videos, timelines."""
