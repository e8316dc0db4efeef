"""Text in the cells of tables: file names that are no text, names that a spreadsheet would run, times."""

from __future__ import annotations

from typing import TextIO

FORMULA = tuple("=+-@\t\r＝＋－＠")
"""Signs that make a spreadsheet take a cell for a formula."""


def readable(text: str | None) -> str | None:
    r"""Return a text as valid Unicode: a byte of a file name that is no UTF-8 becomes `\x` and its two digits.

    >>> readable("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    return None if text is None else _bytes(text).decode("utf-8", "backslashreplace")


def _bytes(text: str) -> bytes:
    """Return the bytes of a file name; surrogates that stand for no byte, which no file name has, are spelled out."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace")


def csv_text(text: str) -> str:
    """Return a source as it stands in CSV: one that a spreadsheet would take for a formula gets `./` before it.

    A path names the same file with it.

    >>> csv_text("=1+1.jpg")
    './=1+1.jpg'
    """
    guarded = f"./{text}" if text.startswith(FORMULA) else text
    return _bytes(guarded).decode("utf-8", "surrogateescape")


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds, with hours where there are any.

    >>> clock(75), clock(3_725)
    ('1:15', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class UnixLines:
    """A file whose lines end in a line feed alone; asked for that itself, `csv` leaves a carriage return in a name unquoted."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, line: str) -> int:
        """Write one line of `csv`'s."""
        return self.file.write(line[: -len("\r\n")] + "\n")
