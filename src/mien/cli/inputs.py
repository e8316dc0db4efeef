"""What several commands open for the user: a corpus, photos, FER+'s votes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from mien.cli.terminal import StepBar, echo
from mien.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mien.datasets import Corpus
    from mien.groups import Groups
    from mien.predict.backend import Backend


def corpus_of(backend: Backend, data: Path) -> Corpus:
    """Return the corpus with the splits a model was trained on. Files that only soften the labels are not needed."""
    return open_corpus(backend.info.recipe.get("data") or {"corpus": backend.info.label_set}, data, soft_labels=False)


def votes_on(corpus: Corpus, data: Path) -> NDArray[np.int64] | None:
    """Return FER+'s votes on a corpus; None if they are not at hand. A file that cannot be used is reported and ignored."""
    from mien.datasets import vote_counts

    try:
        return vote_counts(corpus, data)
    except DataError as error:
        typer.echo(f"without agreement with votes: {error}", err=True)
        return None


def open_corpus(part: dict[str, Any], source: Path, soft_labels: bool = True) -> Corpus:
    """Return the corpus of a recipe's section `data`, with a progress bar while its images are first decoded.

    The images that were left out are listed.
    """
    from mien.datasets import load_corpus

    name, options, protocol = part["corpus"], part.get("options"), part.get("protocol")
    with StepBar() as bar:
        on_step = partial(bar.step, f"reading {name}")
        corpus = load_corpus(name, source, options=options, protocol=protocol, soft_labels=soft_labels, on_step=on_step)
    _list_skipped(corpus)
    return corpus


def open_photos(backend: Backend, table: Path, columns: Sequence[str] = ()) -> tuple[Corpus, Groups]:
    """Return the faces that are found in photos, as a corpus, and their groups; photos that were left out are listed."""
    from mien.photos import read_photos

    with StepBar() as bar:
        corpus, groups = read_photos(backend, table, columns, partial(bar.step, "looking for faces"))
    _list_skipped(corpus)
    return corpus, groups


def _list_skipped(corpus: Corpus) -> None:
    """Print how many images of a corpus were left out, and the first of them."""
    for line in corpus.skipped[:5]:
        echo(f"left out: {line}", err=True)
    if len(corpus.skipped) > 5:
        typer.echo(f"left out: {len(corpus.skipped) - 5:,} more; mien audit lists them all", err=True)
