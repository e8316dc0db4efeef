"""The columns of a table of predictions: their names, types, units and meanings, always in this order."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

from mien.errors import LabelError
from mien.output.cells import FORMULA

Row = dict[str, Any]
"""A row by column name, in the order of `columns`: str, int, float, bool or None, nothing else."""


class Column(NamedTuple):
    """What a column holds."""

    name: str
    kind: Literal["text", "integer", "number", "boolean"]
    unit: str
    meaning: str


_PLACES = {
    "left_eye": "the eye on the left of the image (the person's right)",
    "right_eye": "the eye on the right of the image",
    "nose": "the tip of the nose",
    "left_mouth": "the corner of the mouth on the left of the image",
    "right_mouth": "the corner of the mouth on the right of the image",
}

SCHEMA = (
    Column(
        "source",
        "text",
        "",
        "the file or name as it was given, `picture 2` of what was in memory and the second thing given; empty for ready crops",
    ),
    Column("frame", "integer", "", "number of the video's frame, from 0; empty for a picture"),
    Column("time", "number", "s", "when the frame is shown, from the video's start; empty for a picture"),
    Column("track", "integer", "", "number of the person followed through the video, from 1; empty for a picture"),
    Column("face", "integer", "", "number of the face within its picture or frame, from 1"),
    Column("left", "number", "px", "left edge of the face's box; empty for a ready crop"),
    Column("top", "number", "px", "top edge"),
    Column("right", "number", "px", "right edge"),
    Column("bottom", "number", "px", "bottom edge"),
    *(
        Column(f"{place}_{axis}", "number", "px", f"{meaning}, {'from the left edge' if axis == 'x' else 'from the top edge'}")
        for place, meaning in _PLACES.items()
        for axis in "xy"
    ),
    Column("score", "number", "0 to 1", "how sure the detector is of the face; empty for a ready crop"),
    Column("label", "text", "", "the most probable expression"),
    Column("confidence", "number", "0 to 1", "probability of `label`"),
    Column("unsure", "boolean", "", "whether `confidence` is below what was asked for"),
)
"""The first columns, always in this order; one column a class follows, by the model's output index."""

NAMES = tuple(column.name for column in SCHEMA)
"""Names of the first columns."""


def class_column(name: str) -> Column:
    """Return what the column of a class holds."""
    return Column(name, "number", "0 to 1", f"probability of {name}")


def columns(classes: Sequence[str]) -> list[str]:
    """Return the names of the table's columns.

    >>> columns(["happy", "sad"])[-4:]
    ['confidence', 'unsure', 'happy', 'sad']

    Raises:
        LabelError: A class cannot name a column: it is there twice, has the name of another column, is empty or unprintable,
            or begins like a spreadsheet's formula.
    """
    return list(column_names(tuple(classes)))


@lru_cache(maxsize=8)
def column_names(classes: tuple[str, ...]) -> tuple[str, ...]:
    """Return what `columns` does, checked once."""
    for name in classes:
        if name in NAMES or classes.count(name) > 1:
            raise LabelError(f"class {name!r} has the name of another column of the table; rename it in the model")
        if not name or not name.isprintable() or name.startswith(FORMULA):
            raise LabelError(f"class {name!r} cannot name a column of a table; rename it in the model")
    return (*NAMES, *classes)
