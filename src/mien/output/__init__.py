"""Write results: tables, summaries, annotated pictures and videos, timelines."""
