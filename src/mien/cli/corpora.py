"""The commands that work on corpora: `mien prepare`, `mien audit` and `mien split`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli import options
from mien.cli.inputs import open_corpus
from mien.cli.options import option
from mien.cli.terminal import StepBar, echo, print_table
from mien.errors import DataError, InputError, OutputError, require

if TYPE_CHECKING:
    from mien.audit import Audit
    from mien.datasets import Corpus
    from mien.prepare import Report

SHOWN = 10
"""Most skipped entries that are listed in the terminal; the report lists all."""

EXAMPLE = "'{name: kfold, folds: 10, fold: 0, by: subject}'"


def prepare(
    photos: Annotated[
        Path, typer.Argument(metavar="PHOTOS", help="A folder: train/<class>/* (and val, test), <class>/*, or loose photos.")
    ],
    out: Annotated[Path, option("Folder to write. If the run is interrupted, the same command resumes it.", "FOLDER")],
    size: Annotated[int, option("Side of the pictures that are written.", "PX")] = 224,
    augment: Annotated[
        int | None,
        option(
            "Pictures per training face: 5 at five angles, 10 also flipped left to right, 15 also top to bottom. "
            "Default: 15 with split folders, else 1. Without them, more than 1 turns all photos into training photos.",
            "1|5|10|15",
            show_default=False,
        ),
    ] = None,
    all_faces: Annotated[bool, typer.Option("--all-faces", help="Crop every face of a photo, not only the largest.")] = False,
    grey: Annotated[bool, typer.Option("--grey", help="Write grey pictures.")] = False,
    jpeg: Annotated[bool, typer.Option("--jpeg", help="Write JPEG of quality 95 instead of PNG.")] = False,
    min_face: Annotated[float, option("Side of the smallest face to find.", "PX")] = 40,
    jobs: Annotated[int | None, option("Number of processes. Default: one per core.", "N", show_default=False)] = None,
) -> None:
    """Make a corpus from photos: crop the faces, augment them as in vgg16_gcca's paper, and write a manifest and a report."""
    from mien.prepare import Settings
    from mien.prepare import prepare as run
    from mien.provenance import available_cores

    settings = Settings(size, augment, all_faces, grey, jpeg, min_face)
    with StepBar() as progress:
        jobs = available_cores() if jobs is None else jobs
        report = run(photos, out, settings, jobs=jobs, on_step=partial(progress.step, "photos"))
    echo(f"wrote {report.pictures:,} pictures of {report.faces:,} faces from {report.photos:,} photos to {out}")
    if not report.complete:
        _list_failures(report, out)
        raise typer.Exit(3)


def _list_failures(report: Report, out: Path) -> None:
    """Print how many photos gave no picture, and the first of them."""
    lines = [f"{name}: no face was found in it" for name in report.no_face]
    lines += [f"{name}: {reason}" for name, reason in report.unreadable.items()]
    lines += report.skipped
    for line in lines[:SHOWN]:
        echo(f"skipped: {' '.join(line.split())}", err=True)
    faceless = f"{len(report.no_face):,} photo{'' if len(report.no_face) == 1 else 's'} without a face"
    others = f"{len(report.unreadable):,} unreadable, {len(report.skipped):,} left out"
    echo(f"{faceless}, {others}; all are listed in {out / 'report.json'}", err=True)


def audit(
    data: options.CorpusData,
    corpus: options.CorpusName,
    option: options.CorpusOptions = None,
    out: Annotated[Path | None, option("Write the report (.json) and a table of twins.", "FILE")] = None,
    picture: Annotated[Path | None, option("Draw some of the twins (.png, .jpg).", "FILE")] = None,
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
    _show_audit(done)
    if out is not None:
        for path in write_audit(out, done):
            echo(f"wrote {path}")
    if picture is not None:
        write_picture(picture, draw_twins(done.corpus, done.twins))
        echo(f"wrote {picture}")
    if skipped := len(loaded.skipped):
        typer.echo(f"{skipped:,} of {skipped + len(loaded.target):,} entries could not be read", err=True)
        raise typer.Exit(3)


def _show_audit(done: Audit) -> None:
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


def split(
    data: options.CorpusData,
    corpus: options.CorpusName,
    protocol: Annotated[str, option(f"How to split it: {EXAMPLE}, or a list of such steps.", "YAML", show_default=False)],
    out: Annotated[Path, option("The protocol file to write (.json).", "FILE", show_default=False)],
    option: options.CorpusOptions = None,
) -> None:
    """Split a corpus and write a file that says which image is in which split.

    Recipes can read the file.
    """
    from mien.atomic import check_kind, check_outputs
    from mien.datasets import write_protocol
    from mien.datasets.cache import files_outside
    from mien.datasets.corpus import CORPORA

    if out.suffix != ".json":
        raise OutputError(f"{out}: the protocol file is JSON; name a .json file, for example --out split.json")
    steps = _parse_protocol(protocol)
    chosen = options.parse_pairs(option)
    protocols = [step["path"] for step in steps if isinstance(step.get("path"), str)]
    check_outputs([out], [data, *protocols, *files_outside(CORPORA.get(corpus), data, chosen)])
    check_kind(out, "format", "splits")
    made = open_corpus({"corpus": corpus, "options": chosen, "protocol": steps}, data)
    write_protocol(out, made)
    _show_split(made)
    echo(f"wrote {out}")
    echo(f"a recipe reads it with data.protocol: {_in_a_recipe(steps, out)}")
    if made.skipped:
        raise typer.Exit(3)


def _parse_protocol(text: str) -> list[dict[str, Any]]:
    """Return the steps of `--protocol`, one mapping or a list of them in YAML."""
    yaml = require("yaml", "train")
    from mien.yaml_files import read_yaml

    try:
        value = read_yaml(text)
    except (yaml.YAMLError, ValueError):  # ValueError: an impossible date
        raise DataError(f"--protocol {text}: cannot be read; write it as {EXAMPLE}") from None
    steps = value if isinstance(value, list) else [value]
    if not steps or not all(isinstance(step, dict) and step for step in steps):
        raise DataError(f"--protocol {text}: is neither a protocol nor a list of them; write it as {EXAMPLE}")
    return steps


def _in_a_recipe(steps: list[dict[str, Any]], out: Path) -> str:
    """Return the protocol that reads the file, after the steps that change the classes."""
    yaml = require("yaml", "train")
    needed = [step for step in steps if step.get("name") == "map_to"] + [{"name": "file", "path": str(out)}]
    text: str = yaml.safe_dump(needed if len(needed) > 1 else needed[0], default_flow_style=True, sort_keys=False, width=1000)
    return text.strip()


def _show_split(corpus: Corpus) -> None:
    """Print the number of images of each class in each split."""
    import numpy as np

    echo(f"{corpus.name}: {corpus.protocol}")
    counts = np.array(
        [np.bincount(corpus.target[corpus.rows.split == i], minlength=len(corpus.classes)) for i in range(len(corpus.splits))]
    )
    rows = [
        [name, *(f"{n:,}" for n in (*row, row.sum()))]
        for name, row in zip((*corpus.classes, "together"), (*counts.T, counts.sum(1)), strict=True)
    ]
    print_table(["class", *corpus.splits, "together"], rows, sums=True)
    if left := len(corpus.target) - counts.sum():
        echo(f"{left:,} of {len(corpus.target):,} images are in no split")
