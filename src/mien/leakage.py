"""Leakage: whether a corpus is the published one, and what is known of the images that trained a network.

A model's file contains no images, only the fingerprints of the data and of the split that trained it. From them follows whether
a test image may have been seen in training.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mien.datasets import CORPORA, Corpus
from mien.datasets.twins import twins_in
from mien.errors import DataError
from mien.model_info import ModelInfo

COMPLETE = 0.9
"""Share of a published split below which a folder of pictures is not taken for a copy of it."""


def protocol_of(info: ModelInfo, corpus: Corpus, split: str) -> str:
    """Return how a corpus is split, as results name it: `official` only if it is known to be the published split.

    That is known if the data are those that trained the network, or if the split has the published number of images of each
    class.

    Raises:
        DataError: Pictures in folders were read as a published corpus, and have too few or too many images for it.
    """
    if not corpus.protocol.endswith("official") or corpus.fingerprint == info.data_fingerprint:
        return corpus.protocol
    reader, rows = CORPORA.get(corpus.name), np.flatnonzero(corpus.rows.split == _number(corpus, split))
    published = reader.counts.get(split)
    if published == tuple(np.bincount(corpus.target[rows], minlength=len(corpus.classes))):
        return corpus.protocol
    if corpus.files and published and not COMPLETE * sum(published) <= len(rows) <= sum(published):
        raise DataError(
            f"these pictures are not {corpus.name}: its {split} has {sum(published):,} images, and this folder has "
            f"{len(rows):,}; measure on pictures of your own with --corpus folder"
        )
    if corpus.splits == ("all",):
        return corpus.protocol.replace("official", "all images")
    return corpus.protocol.replace("official", "own splits" if reader.own_data else "splits of an unverified copy")


def _number(corpus: Corpus, split: str) -> int:
    return corpus.splits.index(split) if split in corpus.splits else len(corpus.splits)


def training_data(
    info: ModelInfo, corpus: Corpus, rows: NDArray[np.int64], protocol: str, training: Corpus | None = None
) -> tuple[str, dict[str, NDArray[np.bool_]] | None]:
    """Return what is known about the images that trained a network, and which of some images have a twin among them.

    Args:
        info: The network's facts.
        corpus: The corpus that is measured.
        rows: Its rows that are measured, (R,).
        protocol: Its protocol, by `protocol_of`.
        training: The data that trained the network, if given.

    Returns:
        `given`, `same split` (the fingerprints are those of the training), `official split` (another copy of the published
        corpus), `unverified` (another copy or other data, whose own training split is compared) or `unknown`; and the twins by
        kind, each bool (R,), as of `mien.datasets.twins.twins_in`, None if no training image is at hand.

    Raises:
        DataError: `training` has another fingerprint than the data that trained the network.
    """
    part = info.recipe.get("data") or {}
    if training is not None:
        if training.fingerprint != info.data_fingerprint or training.split_fingerprint != info.split_fingerprint:
            raise DataError(
                f"the training data are other data than trained the model (fingerprint {training.fingerprint[:16]}...; the "
                f"model has {info.data_fingerprint[:16] or 'none'}...); give the copy it was trained on, or leave it out"
            )
        known, source = "given", training
    elif corpus.split_fingerprint == info.split_fingerprint:
        known, source = "same split", corpus
    elif not _is_home(info, corpus):
        return "unknown", None
    else:
        known, source = "official split" if protocol == "official" else "unverified", corpus
    train = part.get("train", "train")
    theirs = np.flatnonzero(source.rows.split == _number(source, train))
    return known, twins_in(corpus.images, rows, source.images, theirs) if len(theirs) else None


def _is_home(info: ModelInfo, corpus: Corpus) -> bool:
    """Return whether a corpus is the one that a network was trained on, by name."""
    return corpus.name == (info.recipe.get("data") or {}).get("corpus", info.label_set)


def require_same_split(info: ModelInfo, corpus: Corpus) -> None:
    """Refuse a corpus whose test images the model may have been trained on.

    Official splits are the same in every copy of a published corpus. Random splits must be those the model was trained with,
    and so must be the splits of the very images it was trained on.

    Raises:
        DataError: The corpus is split in another way than the model's training data were.
    """
    if corpus.split_fingerprint == info.split_fingerprint:
        return
    drawn = not corpus.protocol.endswith("official")
    random = drawn or bool((info.recipe.get("data") or {}).get("protocol"))
    suspect = random and _is_home(info, corpus) and (drawn or not CORPORA.get(corpus.name).own_data)
    if suspect or corpus.fingerprint == info.data_fingerprint:
        raise DataError(
            f"{corpus.name} is split by {corpus.protocol}, but the model was trained on another split, so it may have seen "
            "these test images; evaluate it with the protocol and the copy of the corpus that trained it"
        )
