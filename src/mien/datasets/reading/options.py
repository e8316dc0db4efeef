"""Options of a corpus's reader as people give them, in a recipe or on the command line: their names and their types.

Asked before anything is read, so that `colour: "no"` is refused and not taken for true. What a value may be beyond its type
(8 or 10 classes) the reader itself says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, get_args, get_type_hints

from mien.errors import DataError
from mien.registry import nearest

STORED = ("size", "colour", "faces")
"""Options that every corpus of pictures has."""

WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def check_options(name: str, reader: Callable[..., Any], options: dict[str, Any]) -> None:
    """Refuse options that a corpus lacks, and values of another type than the reader's.

    Args:
        name: Registered name of the corpus.
        reader: Its reader, whose first argument is the source.
        options: By name.

    Raises:
        DataError: Names the option, and says what to give.
    """
    hints = get_type_hints(reader)
    known = {key: hint for key, hint in hints.items() if key not in ("source", "return")} | {"colour": bool, "faces": bool}
    for key, value in options.items():
        if key not in known and key != "size":
            raise DataError(f"{name} has no option {key!r}{nearest(str(key), [*dict.fromkeys((*known, *STORED))])}")
        kinds = get_args(known.get(key)) or (known.get(key),)
        if key != "size" and not any(_is(value, kind) for kind in kinds):
            wanted = " or ".join(WORDS[kind] for kind in kinds if kind in WORDS)
            raise DataError(f"{name}: {key} is {value!r}; give {wanted}")
    if "size" in options:
        stored_size(options["size"])


def _is(value: Any, kind: Any) -> bool:
    """Return whether a value is of a type; true is no number, and a whole number is a number."""
    return isinstance(value, int | float if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def stored_size(value: Any) -> tuple[int, int]:
    """Return the height and width of stored pictures, px, as the option `size` gives them.

    Raises:
        DataError: It is neither a side nor a pair of them.
    """
    sides = [value, value] if isinstance(value, int) else value
    if not (isinstance(sides, list | tuple) and len(sides) == 2 and all(type(n) is int and 1 <= n <= 4096 for n in sides)):
        raise DataError(f"size is {value!r}; give the side, or height and width, in px, from 1 to 4,096")
    return sides[0], sides[1]
