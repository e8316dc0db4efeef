"""A labelling job from its start to its report: plan the units once, do those without a part, list what could not be read.

A part is complete as soon as it exists, and whoever writes it again writes the same. So every input is in the result exactly
once, however often workers or the job are killed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mien import weights
from mien.atomic import remove_unfinished
from mien.errors import InputError, OutputError, require
from mien.label.engines import find_engine
from mien.label.plan import Unit, plan_units
from mien.label.stores import ERRORS, LOCK, MANIFEST, PARTS, REQUESTS, File, Folder, local_path
from mien.label.work import Work, model_digest, part_name, read_counts
from mien.predict.recognizer import Recognizer, VideoOptions
from mien.text import escape_invalid_utf8

VERSION: str = sys.modules["mien"].__version__  # imported from there, all of mien's names would count as imported, and torch

FORMAT = 1
"""Version of the manifest."""

UNIT_SIZE = 512
"""Pictures in a unit, by default: half a minute of work for one core."""


@dataclass(frozen=True, slots=True)
class Report:
    """The result of a job.

    Attributes:
        units: Number of units.
        resumed: Number of units that earlier runs had done.
        inputs: Number of pictures and videos that were read.
        faces: Number of faces, which is that of rows.
        errors: Number of inputs that could not be read.
        first_errors: The first of them, each with the reason.
    """

    units: int
    resumed: int
    inputs: int
    faces: int
    errors: int
    first_errors: tuple[tuple[str, str], ...]


def label_collection(
    sources: Sequence[str],
    out: str | os.PathLike[str],
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    video: VideoOptions | None = None,
    *,
    column: str | None = None,
    unit_size: int = UNIT_SIZE,
    engine: str = "local",
    workers: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Report:
    """Write a table of the expressions in a large collection, in parts; continue an earlier run that was stopped.

    Args:
        sources: Pictures, videos, tar shards, Parquet files, folders of them, and patterns: paths or addresses of fsspec.
        out: The folder to write: a new one, or that of the run to continue.
        model: See `Recognizer`.
        options: Its other arguments.
        video: How videos are read; None takes `VideoOptions()`.
        column: The column of Parquet files; None takes the only one of bytes.
        unit_size: Pictures per unit.
        engine: `local` for worker processes on this machine, `ray` for a Ray cluster.
        workers: Number of workers; None takes every core. 0 works in this process, without `ray`. A script that asks for more
            needs `if __name__ == "__main__":`.
        on_step: Called with the number of units done and the total.

    Raises:
        UnknownNameError: The engine is unknown.
        InputError: An argument is out of range, or a source is missing or contains nothing to read.
        DataError: A store cannot be read, or a Parquet file lacks the column.
        OutputError: `out` has other content or settings, is in use, or cannot be written.
        MissingExtraError: A package of the extra `label` is not installed.
    """
    run = find_engine(engine)
    require("pyarrow.parquet", "label")
    if unit_size < 1 or (workers is not None and workers < 0):
        raise InputError(f"unit_size must be at least 1 and workers at least 0, got {unit_size} and {workers}")
    sources, options, video = list(map(os.fspath, sources)), dict(options or {}), video or VideoOptions()
    if model is not None and model != weights.ENSEMBLE and not weights.is_named(model):
        model = os.path.abspath(model)  # noqa: PTH100 -- workers may run in another folder
    recognizer = Recognizer(model, threads=1, **options)
    chosen = {"mien": VERSION, "model_sha256": model_digest(recognizer), **options, **asdict(video)}
    relative = [path for source in sources if (path := local_path(source)) is not None and not Path(path).is_absolute()]
    folder = str(Path.cwd()) if relative else ""
    settings = {"sources": sources, "folder": folder, "column": column, "unit_size": unit_size, **chosen}
    about = {key: str(value) for key, value in chosen.items()}
    target = Folder(os.fspath(out))
    out = target.root if target.is_local else target.address
    work = Work(out, folder, model, options, video, column, recognizer.classes, about)

    manifest = _read_manifest(target, settings)
    if manifest is None:
        errors: list[tuple[str, str]] = []
        units = plan_units(sources, column, unit_size, errors)
        manifest = {"format": FORMAT, "settings": settings, "errors": errors, "units": [unit._asdict() for unit in units]}
    with target.locked():
        if (begun := _read_manifest(target, settings)) is not None:  # perhaps meanwhile, by another run
            manifest = begun
        else:
            target.write_json(MANIFEST, manifest)
        if target.is_local:
            for part in ("", PARTS):
                remove_unfinished(Path(target.root, part), idle=0)
        units = [Unit(**each | {"files": [File(*file) for file in each["files"]]}) for each in manifest["units"]]
        done = {f"{PARTS}/{name}" for name in target.names(PARTS)}
        todo = [unit for unit in units if part_name(unit.number) not in done]
        resumed = len(units) - len(todo)
        for count, _ in enumerate(run(work, todo, workers) if todo else (), 1):
            if on_step is not None:
                on_step(resumed + count, len(units))
        return _finish(target, units, resumed, manifest["errors"])


def _read_manifest(target: Folder, settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the manifest of the job in a folder; None in a new folder.

    Raises:
        OutputError: The folder has other content, or a job with other settings.
    """
    names = {name for name in target.names() if name != LOCK and not name.startswith(".")}
    if not names:
        return None
    manifest = None
    if MANIFEST in names:
        with target.open(MANIFEST) as file, suppress(ValueError):
            manifest = json.load(file)
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise OutputError(f"{target.address}: contains files that this version of mien label did not write; name a new folder")
    old = manifest["settings"]
    changed = [key for key in {**old, **settings} if old.get(key) != settings.get(key)]
    if changed:
        changes = "; ".join(f"{key}: {old.get(key, 'not set')}, now {settings.get(key, 'not set')}" for key in changed)
        raise OutputError(f"{target.address}: was begun with other settings ({changes}); use those, or name a new folder")
    return manifest


def _finish(target: Folder, units: Sequence[Unit], resumed: int, errors: Sequence[Sequence[str]]) -> Report:
    """Write the list of errors and return the report."""
    arrow, parquet = require("pyarrow", "label"), require("pyarrow.parquet", "label")
    done = {f"{PARTS}/{name}" for name in target.names(PARTS)}
    missing = [part for unit in units if (part := part_name(unit.number)) not in done]
    if missing:
        raise OutputError(
            f"{target.address}: {len(missing):,} parts are missing, such as {missing[0]}; if workers run on other machines, "
            "name a folder that all of them share, or an object store"
        )
    lines: list[tuple[str, str, int | None]] = [(name, why, None) for name, why in errors]
    inputs = faces = 0
    with ThreadPoolExecutor(REQUESTS) as pool:
        for number, counts in enumerate(pool.map(partial(read_counts, target), range(len(units)))):
            inputs, faces = inputs + counts[0], faces + counts[1]
            lines += [(name, why, number) for name, why in counts[2]]
    if resumed < len(units) or ERRORS not in target.names():
        schema = arrow.schema({"source": arrow.string(), "reason": arrow.string(), "unit": arrow.int64()})
        rows = [(escape_invalid_utf8(name), why, number) for name, why, number in lines]
        with target.writing(ERRORS) as path, path.open("wb") as file:
            parquet.write_table(
                arrow.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in rows], schema), file
            )
    return Report(
        units=len(units),
        resumed=resumed,
        inputs=inputs,
        faces=faces,
        errors=len(lines),
        first_errors=tuple((name, why) for name, why, _ in lines[:10]),
    )
