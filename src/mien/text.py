"""How text from outside, such as a file name or a field of a model file, is shown to a person and written to tables.

A file name may hold any character: one that clears the terminal, one that turns the reading direction around, a byte that is
not text. Everything that mien prints or puts into an error message goes through `printable`. A spreadsheet runs a cell that
begins with `=`; every table that mien writes goes through `escape_formula`.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks of every kind, marks and overrides of the reading direction, and lone surrogates."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


FORMULA_SIGNS = tuple("=+-@\t\r＝＋－＠")
"""First characters that make a spreadsheet read a cell as a formula."""


def printable(text: str) -> str:
    r"""Return a text on one line, with every character that could act on the terminal or hide another shown as an escape.

    >>> printable("holiday\x1b[2J.jpg")
    'holiday\\x1b[2J.jpg'
    >>> printable("caf\udce9.jpg")  # a byte of a file name that is not UTF-8
    'caf\\xe9.jpg'
    """
    return text if text.isprintable() else _UNSAFE.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python stores a byte that is not text
        code -= 0xDC00
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def escape_json(text: str) -> str:
    r"""Return JSON of the same value in which no character acts on the terminal or hides another.

    >>> escape_json('"a\x9b2J"')
    '"a\\u009b2J"'
    """
    return text if text.isprintable() else _UNSAFE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def escape_invalid_utf8(text: str | None) -> str | None:
    r"""Return the text with each byte of a file name that is not valid UTF-8 written as `\x` and two digits.

    >>> escape_invalid_utf8("caf\udce9.jpg")
    'caf\\xe9.jpg'
    """
    return None if text is None else _file_name_bytes(text).decode("utf-8", "backslashreplace")


def escape_formula(text: str) -> str:
    """Return the text with `./` in front if a spreadsheet would run it as a formula; as a path it names the same file.

    >>> escape_formula("=1+1.jpg")
    './=1+1.jpg'
    """
    escaped = f"./{text}" if text.startswith(FORMULA_SIGNS) else text
    return _file_name_bytes(escaped).decode("utf-8", "surrogateescape")


def _file_name_bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # a surrogate that stands for no byte, which file names on Windows may contain
        return text.encode("utf-8", "backslashreplace")
