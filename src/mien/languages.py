"""What people read, in their language: `languages.csv` has a row for each English text and a column for each language.

Texts are looked up by their English form where they are shown. A text that is not in the table stays as it is. Columns of
tables, JSON keys and class names in files are never translated, so that scripts read the same in every language.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

from mien.errors import InputError, reason
from mien.registry import nearest

TABLE = "languages.csv"

ENGLISH, WHERE = "en", "where"
"""The column that texts are looked up by, and the one that tells translators where a text is shown."""

OWN_NAME = "English"
"""The English text whose translation is what a language calls itself."""

PLACEHOLDER = re.compile(r"\{\w+\}")


@dataclass(frozen=True)
class Language:
    """A language: its code, such as `de`, and its texts by their English form."""

    code: str
    texts: dict[str, str]

    @cached_property
    def letters(self) -> str:
        """Every character of its texts that is not ASCII, which a font must have."""
        return "".join(sorted({letter for text in self.texts.values() for letter in text if not letter.isascii()}))


_in_use = Language(ENGLISH, {})  # of the whole process, as a locale is: readings may be drawn in several threads


def languages() -> dict[str, str]:
    """Return the codes of the bundled languages, and what each calls itself.

    >>> languages()["de"]
    'Deutsch'
    """
    return {ENGLISH: OWN_NAME, **{code: texts[OWN_NAME] for code, texts in _bundled().items()}}


def load_language(name: str) -> Language:
    """Return a language by its code, or from a table of your own.

    Args:
        name: A code in `languages()`; or a CSV file with the columns `en` and that of one language. Its rows come before those
            of the bundled table, so a file may add a language, replace words, or name the classes of your own model.

    Raises:
        InputError: The language is unknown, or the file cannot be read or is not such a table.
    """
    if name.lower().endswith(".csv"):
        try:
            tables = _read_table(Path(name).read_text(encoding="utf-8-sig"), name)
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{name}: cannot be read ({reason(error)}); name a CSV file in UTF-8") from None
        if len(tables) != 1:
            raise InputError(f"{name}: needs the column en and one other, such as pt, and has {', '.join(tables) or 'none'}")
        ((code, texts),) = tables.items()
        return Language(code, {**_bundled().get(code, {}), **texts})
    if name not in languages():
        known = nearest(name, list(languages()))
        raise InputError(f"unknown language {name!r}{known}. For another one, name a table of your own that ends in .csv")
    return Language(name, _bundled().get(name, {}))


@contextmanager
def use_language(name: str) -> Iterator[Language]:
    """Show everything in a language while the block runs: labels on pictures, plots, reports, and what is printed.

    Args:
        name: See `load_language`.

    Raises:
        InputError: See `load_language`.
    """
    global _in_use
    before, _in_use = _in_use, load_language(name)
    try:
        yield _in_use
    finally:
        _in_use = before


def language_in_use() -> Language:
    """Return the language that `use_language` chose; English otherwise."""
    return _in_use


def translate(text: str, language: str | None = None, /, **values: object) -> str:
    """Return an English text in a language, or as it is where the table does not have it.

    Args:
        text: The English text, as in the table.
        language: See `load_language`; None takes the language in use.
        values: What its placeholders stand for.

    >>> translate("happy", "de"), translate("{count} faces", "es", count=3), translate("bored", "de")
    ('Freude', '3 rostros', 'bored')
    """
    texts = (_in_use if language is None else load_language(language)).texts
    found = texts.get(text, text)
    return found.format(**values) if values else found


def page_languages(name: str | None) -> dict[str, Any]:
    """Return what the server's page shows in each language, as JSON types.

    Args:
        name: The language in which the page starts; see `load_language`. None takes that of the browser.
    """
    first = load_language(name or ENGLISH)
    wanted = [row[ENGLISH] for row in _rows(_bundled_text()) if {"label", "page"} & {*row[WHERE].split()}]
    texts = {code: {text: each[text] for text in wanted} for code, each in _bundled().items()} | {first.code: first.texts}
    names = {first.code: first.texts.get(OWN_NAME, first.code)} | languages()
    return {"default": name and first.code, "names": names, "texts": texts}


@cache
def _bundled() -> dict[str, dict[str, str]]:
    return _read_table(_bundled_text(), TABLE)


def _bundled_text() -> str:
    return (resources.files("mien") / TABLE).read_text(encoding="utf-8")


def _rows(text: str) -> list[dict[str, str]]:
    lines = text.splitlines()
    delimiter = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","  # as Excel writes in many countries
    return list(csv.DictReader(lines, delimiter=delimiter, skipinitialspace=True))


def _read_table(text: str, name: str) -> dict[str, dict[str, str]]:
    """Return the texts of a table by language and English form; empty cells are left out."""
    rows = _rows(text)
    if not rows or ENGLISH not in rows[0]:
        raise InputError(f"{name}: has no column named en with the English texts; write them in it, one per row")
    tables: dict[str, dict[str, str]] = {code: {} for code in rows[0] if code and code not in (ENGLISH, WHERE)}
    for number, row in enumerate(rows, 2):
        for code in tables:
            english, found = row[ENGLISH] or "", row[code] or ""
            if found and sorted(PLACEHOLDER.findall(found)) != sorted(PLACEHOLDER.findall(english)):
                wanted = ", ".join(PLACEHOLDER.findall(english)) or "none"
                raise InputError(
                    f"{name}: row {number}, column {code}: must have the placeholders of the English text ({wanted})"
                )
            if found:
                tables[code][english] = found
    return tables
