"""How one unit is done: a `Worker` reads it, recognises the faces, and writes its part of the table.

A unit is done if and only if its part exists. The part also says how many inputs were read and which could not be.
"""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mien import weights
from mien.errors import CheckpointError, MienError, reason, require
from mien.label.plan import Unit
from mien.label.read import read_unit
from mien.label.stores import PARTS, Folder
from mien.output.table import Row, reading_rows, write_table
from mien.predict.recognizer import Recognizer, VideoOptions


@dataclass(frozen=True, slots=True)
class Work:
    """What a worker needs to know; it can be pickled."""

    out: str  # the folder of the job: a path or an address
    folder: str  # where relative paths of inputs start; empty if there are none
    model: str | None
    options: Mapping[str, Any]  # the other arguments of `Recognizer`
    video: VideoOptions
    column: str | None  # of Parquet files
    classes: tuple[str, ...]  # of the model, by index
    about: Mapping[str, str]  # what the rows depend on, as metadata for `write_table`


class Worker:
    """Does units, one after the other, with one loaded model, which must be the one that began the job."""

    def __init__(self, work: Work) -> None:
        self.work, self.target = work, Folder(work.out)
        self.recognizer = Recognizer(work.model, threads=1, **work.options)
        if model_digest(self.recognizer) != work.about["model_sha256"]:
            raise CheckpointError(
                f"{socket.gethostname()}: has another model than the job; install the same version of mien on every machine"
            )

    def __call__(self, unit: Unit) -> None:
        """Do a unit, or raise a `MienError` that stops the job."""
        if self.target.exists(part_name(unit.number)):
            return  # its worker was killed after it wrote that
        inputs, errors = set[int](), list[tuple[str, str]]()

        def rows() -> Iterator[Row]:
            for reading in self.recognizer.stream(read_unit(unit, self.work.column), self.work.video):
                if reading.error is not None:
                    errors.append((reading.source, str(reading.error)))
                else:
                    inputs.add(reading.number)
                    yield from reading_rows(reading, self.work.classes)

        try:
            _write_part(self.work, unit.number, rows(), inputs, errors)
        except MienError:
            raise
        except Exception as error:  # a fault of mien's own: the job continues, and says which unit it lacks
            traceback.print_exc()
            write_failed(self.work, unit, f"mien failed with {type(error).__name__}: {reason(error)}; please report this")


def model_digest(recognizer: Recognizer) -> str:
    """Return the SHA-256 of the file of a recognizer's model."""
    path = getattr(recognizer.backend, "path", None)
    return weights.sha256(path) if path else ""


def part_name(number: int) -> str:
    """Return the name of a unit's part.

    >>> part_name(7)
    'faces/part-00007.parquet'
    """
    return f"{PARTS}/part-{number:05d}.parquet"


def _write_part(
    work: Work, number: int, rows: Iterable[Row], inputs: Collection[int], errors: Sequence[tuple[str, str]]
) -> None:
    """Write a unit's part, completely or not at all; `inputs` and `errors` may grow until the last row is taken."""
    about = dict(work.about)

    def counted() -> Iterator[Row]:
        yield from rows
        about["unit"] = json.dumps({"number": number, "inputs": len(inputs), "errors": list(errors)})

    with Folder(work.out).writing(part_name(number)) as path:
        write_table(path, counted(), work.classes, about)


def write_failed(work: Work, unit: Unit, why: str) -> None:
    """Write the part of a unit that cannot be done, with its files as errors; a part that exists is kept."""
    if not Folder(work.out).exists(part_name(unit.number)):
        group = f"::row group {unit.row_group}" if unit.kind == "parquet" else ""
        _write_part(work, unit.number, (), (), [(f"{file.name}{group}", why) for file in unit.files])


def read_counts(target: Folder, number: int) -> tuple[int, int, list[tuple[str, str]]]:
    """Return how many inputs of a unit were read, how many faces were found, and what could not be read, and why."""
    with target.open(part_name(number)) as file:
        part = require("pyarrow.parquet", "label").read_metadata(file)
    unit = json.loads(part.metadata[b"unit"])
    return unit["inputs"], part.num_rows, [(name, why) for name, why in unit["errors"]]
