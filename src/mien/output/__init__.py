"""Where readings go: tables, summaries, annotated pictures and videos, timelines."""
