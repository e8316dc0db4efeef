"""`mien observe`: events and stimulus windows from a table that `mien predict` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mien.cli import options
from mien.cli.options import FILES, option
from mien.cli.terminal import echo
from mien.errors import InputError

WINDOWS = "Windows"


def observe(
    table: Annotated[Path, typer.Argument(metavar="TABLE", help="What mien predict --out wrote: .csv, .parquet or .jsonl.")],
    events: options.EventsFile = None,
    out: Annotated[
        Path | None, option("Write a row per window and person: .csv. Needs --windows.", "FILE", FILES, "--out", "-o")
    ] = None,
    windows: Annotated[
        Path | None,
        option(
            "CSV with the columns name, start, end (seconds) and, if wanted, source, person and others, which are copied.",
            "FILE",
            WINDOWS,
        ),
    ] = None,
    baseline: Annotated[
        str | None,
        option(
            "Also give the change from this window of the same person, or from auto: the most neutral 5 seconds.",
            "NAME|auto",
            WINDOWS,
        ),
    ] = None,
    baseline_seconds: Annotated[
        tuple[float, float] | None, option("Also give the change from these seconds of each video.", "A B", WINDOWS)
    ] = None,
    one_person: Annotated[
        bool, option("Each video shows one person: treat all its tracks as person 1.", None, WINDOWS, "--one-person")
    ] = False,
    min_seconds: options.MinSeconds = 0.3,
    merge_gap: options.MergeGap = 0.3,
    events_format: options.EventFormat = "csv",
) -> None:
    """Turn a table into events for ELAN, Praat, BORIS or BIDS, and into measures of each stimulus window."""
    from mien.atomic import check_outputs
    from mien.output.events import EventOptions, EventWriter, first_gap_of
    from mien.output.observe import Baseline, WindowTable, check_window_table, read_windows, write_window_table
    from mien.output.read_table import read_rows

    if events is None and windows is None:
        raise InputError("name what to write: --events FILE, or --windows FILE with --out FILE")
    if (windows is None) != (out is None):
        raise InputError("--windows names the windows and --out the table to write; give both")
    has_baseline = baseline is not None or baseline_seconds is not None
    if has_baseline and windows is None:
        raise InputError("a baseline needs --windows")
    if baseline is not None and baseline_seconds is not None:
        raise InputError("--baseline and --baseline-seconds name two baselines; choose one of them")
    check_outputs([events, out], [table, *([windows] if windows is not None else [])])
    read = read_rows(table, one_person)
    event_writer = window_table = None
    if events is not None:
        event_options = EventOptions(min_seconds, merge_gap, events_format)
        first_gap = first_gap_of(read_rows(table, one_person).rows)
        event_writer = EventWriter(events, read.classes, event_options, others=[table, windows, out], first_gap=first_gap)
    if windows is not None and out is not None:
        check_window_table(out)
        compared = Baseline(None if baseline == "auto" else baseline, baseline_seconds) if has_baseline else None
        window_table = WindowTable(read.classes, read_windows(windows), compared)
    for row in read.rows:
        if event_writer is not None:
            event_writer.events.add(row)
        if window_table is not None:
            window_table.add(row)
    written = []
    if window_table is not None and out is not None:
        write_window_table(out, window_table, read.all_frames)
        written.append(out)
    if event_writer is not None:
        written += event_writer.write()
    for note in window_table.notes if window_table is not None else []:
        echo(note, err=True)
    for path in written:
        echo(f"wrote {path}")
