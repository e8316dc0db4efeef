"""Write results (tables, summaries, drawings, timelines), and resume a run that was interrupted.

run        `RunWriter` takes the readings of a run one at a time and passes them to everything below; start here
table      what a row is, one per face, and how rows become CSV, Parquet, JSON lines or a DataFrame
journal    keeps the rows in a file next to the table until it is written, so that `--resume` can continue
summary    what each person of a video showed
events     turns rows into segments, and writes them for ELAN, Praat, BORIS and BIDS (`event_files`)
observe    what each person showed in each stimulus window; `read_table` reads a table again
anonymise  covers faces
annotate   draws boxes, labels and bars on pictures and frames; `paint` draws the pixels
timeline   plots the expressions in a video over time
paths      the file of each drawing
"""
