"""Write results (tables, summaries, drawings, timelines), and resume a run that was interrupted."""
