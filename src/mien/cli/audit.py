"""`mien audit`: check a corpus before trusting it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli import options
from mien.cli.terminal import StepBar, echo, print_table
from mien.errors import InputError, OutputError, require

if TYPE_CHECKING:
    from mien.audit import Audit

SHOWN = 10
"""Most skipped entries that are listed in the terminal; the report lists all."""


def audit(
    data: options.CorpusData,
    corpus: options.CorpusName,
    option: options.CorpusOptions = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the report (.json) and a table of twins.")] = None,
    picture: Annotated[Path | None, typer.Option(metavar="FILE", help="Draw some of the twins (.png, .jpg).")] = None,
) -> None:
    """Find twins (copies of an image), conflicting labels, blank and broken images, and people who are in two splits."""
    require("imagehash", "train")
    from mien.atomic import check_kind, check_outputs
    from mien.audit import audit as run
    from mien.audit import twins_path, write_audit
    from mien.audit.picture import draw_twins
    from mien.datasets import load_corpus
    from mien.datasets.cache import files_outside
    from mien.datasets.corpus import CORPORA
    from mien.output.annotate import FORMATS, write_picture

    if out is not None and out.suffix != ".json":
        raise InputError(f"{out}: the report is JSON; name a .json file, for example --out report.json")
    if picture is not None and picture.suffix.lower() not in FORMATS:
        raise OutputError(f"{picture}: is not named like a picture; end the name with one of {', '.join(FORMATS)}")
    chosen = options.parse_pairs(option)
    check_outputs([out, out and twins_path(out), picture], [data, *files_outside(CORPORA.get(corpus), data, chosen)])
    if out is not None:
        check_kind(out, "data", "statistics")
    with StepBar() as progress:
        loaded = load_corpus(corpus, data, options=chosen, on_step=partial(progress.step, "decoding"))
        done = run(loaded, data, progress.step)
    _show(done)
    if out is not None:
        for path in write_audit(out, done):
            echo(f"wrote {path}")
    if picture is not None:
        write_picture(picture, draw_twins(done.corpus, done.twins))
        echo(f"wrote {picture}")
    if skipped := len(loaded.skipped):
        typer.echo(f"{skipped:,} of {skipped + len(loaded.target):,} entries could not be read", err=True)
        raise typer.Exit(3)


def _show(done: Audit) -> None:
    from mien.audit import findings
    from mien.audit.statistics import Statistics

    report = done.report
    numbers = Statistics.from_dict(report["statistics"])
    facts = f"{numbers.images:,} images, {len(numbers.classes)} classes, {numbers.width} x {numbers.height} px"
    colour = "grey" if numbers.channels == 1 else "RGB"
    echo(f"{numbers.corpus}: {facts}, {colour}, splits: {numbers.protocol}")
    head, *rows = numbers.table()
    print_table(head, rows, sums=True)
    head, *rows = numbers.brightness()
    print_table(head, rows)
    if files := report["files"]:
        sizes = ", ".join(f"{name} {files[name][0]} x {files[name][1]} px" for name in ("smallest", "median", "largest"))
        echo(f"{files['files']:,} picture files, {files['grey']:,} grey; {sizes}")
    for line in findings(report):
        echo(f"- {line}")
    for line in report["skipped"][:SHOWN]:
        echo(f"skipped: {line}", err=True)
    if len(report["skipped"]) > SHOWN:
        typer.echo(f"skipped: {len(report['skipped']) - SHOWN:,} more; --out report.json lists all", err=True)
