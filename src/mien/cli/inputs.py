"""What several commands open for the user: a model, a corpus, FER+'s votes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import DataError, require
from mien.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mien.datasets import Corpus
    from mien.predict.backend import Backend

DataOption = Annotated[
    Path, typer.Option("--data", help="The corpus: its file or folder, as published by its authors or on Kaggle.")
]


def open_model(model: str) -> tuple[Backend, Path]:
    """Return a backend and its weights file for a run's folder, a checkpoint, an exported file or a bundled model."""
    path = Path(model)
    if path.is_dir() or path.suffix == ".safetensors":
        require("torch", "train")
        from mien.engine.torch_backend import TorchBackend

        return TorchBackend(path), path / "best.safetensors" if path.is_dir() else path
    from mien.predict.backend import open_backend

    backend = open_backend(model)
    return backend, backend.path


def corpus_of(backend: Backend, data: Path) -> Corpus:
    """Return the corpus with the splits a model was trained on. Files that only soften the labels are not needed."""
    return open_corpus(backend.info.recipe.get("data") or {"corpus": backend.info.label_set}, data, soft_labels=False)


def votes_on(corpus: Corpus, data: Path) -> NDArray[np.int64] | None:
    """Return FER+'s votes on a corpus; None if they are not at hand. A file that cannot be used is named, and not used."""
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
    from mien.cli.progress import StepBar
    from mien.datasets import load_corpus

    name, options, protocol = part["corpus"], part.get("options"), part.get("protocol")
    with StepBar() as bar:
        on_step = partial(bar.step, f"reading {name}")
        corpus = load_corpus(name, source, options=options, protocol=protocol, soft_labels=soft_labels, on_step=on_step)
    list_skipped(corpus)
    return corpus


def list_skipped(corpus: Corpus) -> None:
    """Print how many images of a corpus were left out, and the first of them."""
    for line in corpus.skipped[:5]:
        typer.echo(f"left out: {printable(line)}", err=True)
    if len(corpus.skipped) > 5:
        typer.echo(f"left out: {len(corpus.skipped) - 5:,} more; mien audit lists them all", err=True)


def echo(line: object) -> None:
    """Print a line, with control characters escaped."""
    typer.echo(printable(str(line)))
