"""How text from outside, such as a file name or a field of a model file, is shown to a person.

A file name may hold any character: one that clears the terminal, one that turns the reading direction around, a byte that is
not text. Everything that mien prints or puts into an error message goes through `printable`.
"""

from __future__ import annotations

import re

_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks of every kind, marks and overrides of the reading direction, and lone surrogates."""

_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


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
