"""Protocols in files: the rows of each split, as JSON, to share, cite and use again."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mien.atomic import write_json
from mien.datasets.corpus import Corpus
from mien.datasets.protocols.splits import OUT, PROTOCOLS
from mien.errors import DataError, reason

FORMAT = 1
"""Version of the protocol file; a reader refuses any other."""


def write_protocol(path: str | os.PathLike[str], corpus: Corpus) -> None:
    """Write the rows of each split of a corpus as JSON.

    Raises:
        OutputError: The file cannot be written.
    """
    splits = {name: _to_ranges(np.flatnonzero(corpus.rows.split == i)) for i, name in enumerate(corpus.splits)}
    values = {"format": FORMAT, "protocol": corpus.protocol, "corpus": corpus.name, "fingerprint": corpus.fingerprint}
    write_json(path, values | {"splits": splits})


def read_protocol(path: str | os.PathLike[str], corpus: Corpus) -> Corpus:
    """Return a corpus with the splits in a file that `write_protocol` wrote.

    Raises:
        DataError: The file is missing, damaged or for another corpus, or has a row twice, a row that the corpus does not
            have, or one whose class was dropped.
    """
    protocol, splits = _parse(path, corpus)
    split = np.full(len(corpus.target), OUT, np.int8)
    for i, (name, text) in enumerate(splits.items()):
        rows = _from_ranges(text, len(split), f"{path}: {name}")
        if (split[rows] != OUT).any() or len(np.unique(rows)) != len(rows):
            raise DataError(f"{path}: {name} has a row that is in another split too; write the file again with write_protocol")
        if (corpus.target[rows] < 0).any():
            raise DataError(f"{path}: {name} has a row whose class was dropped; write the file again with write_protocol")
        split[rows] = i
    return replace(corpus, rows=replace(corpus.rows, split=split, splits=tuple(splits)), protocol=protocol)


PROTOCOLS.register("file")(lambda corpus, path: read_protocol(path, corpus))


def _parse(path: str | os.PathLike[str], corpus: Corpus) -> tuple[str, dict[str, str]]:
    """Return the name of a protocol file for this corpus, and the rows of its splits as text."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        version, wanted, named = values["format"], values["fingerprint"], values["corpus"]
        protocol, splits = values["protocol"], values["splits"]
        sound = isinstance(protocol, str) and 0 < len(splits) < 128 and all(isinstance(text, str) for text in splits.values())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)})") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise DataError(f"{path}: is not a protocol file, or is damaged; write it again with write_protocol") from None
    if version != FORMAT:
        raise DataError(f"{path}: is a protocol of format {version!r}; this version of mien reads format {FORMAT}")
    if not sound:
        raise DataError(f"{path}: is not a protocol file, or is damaged; write it again with write_protocol")
    if wanted != corpus.fingerprint:
        hint = "; read it with the same options, and after the same map_to" if named == corpus.name else ""
        raise DataError(
            f"{path}: is for the {named} with fingerprint {wanted}; this {corpus.name} has {corpus.fingerprint}{hint}"
        )
    return protocol, splits


def _to_ranges(rows: NDArray[np.int64]) -> str:
    """Return ascending rows as text: `0-9,12`."""
    runs = np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1) if len(rows) else []
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _from_ranges(text: str, count: int, where: str) -> NDArray[np.int64]:
    """Return the rows `_to_ranges` wrote."""
    runs = []
    for part in text.split(",") if text else []:
        first, _, last = part.partition("-")
        if not all(end.isascii() and end.isdigit() and len(end) < 12 for end in (first, last or first)):
            raise DataError(f"{where} has {part[:40]!r}, which is neither a row nor a range of rows")
        if not int(first) <= int(last or first) < count:
            raise DataError(f"{where} has the rows {part}; the corpus has the rows 0 to {count - 1}")
        runs.append(np.arange(int(first), int(last or first) + 1))
    return np.concatenate(runs) if runs else np.empty(0, np.int64)
