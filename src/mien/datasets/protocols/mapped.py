"""A corpus with the classes of another label set: `mapped(corpus, "fer2013", drop=["contempt"])`.

Classes are matched by name. No class is left out unless it is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mien.datasets.corpus import Corpus
from mien.datasets.protocols.splits import OUT, PROTOCOLS
from mien.errors import DataError
from mien.labels import canonical, mapping
from mien.labels import label_set as classes_of
from mien.registry import nearest

NO_CLASS = -1
"""Target of an image whose class was dropped; it is in no split."""


@PROTOCOLS.register("map_to")
def mapped(corpus: Corpus, label_set: str, drop: Sequence[str] = ()) -> Corpus:
    """Return a corpus whose classes are those of a label set, in its order.

    Images of a dropped class keep their row numbers but are in no split; their target is `NO_CLASS`. Classes that only the
    label set has get no images. Votes are summed by class and rescaled to a sum of 1. The targets change, and with them the
    fingerprint, so a protocol file of a mapped corpus fits only after the same mapping.

    Args:
        corpus: The corpus, split or not.
        label_set: Name of the label set, such as `"fer2013"`.
        drop: Classes of the corpus whose images are left out.

    Raises:
        DataError: The label set does not have a class that is not in `drop`, the corpus does not have a class in `drop`, or no
            image remains.
        LabelError: There is no such label set.
    """
    if not isinstance(label_set, str):
        raise DataError(f"map_to's label_set is {label_set!r}; give the name of one, such as 'fer2013'")
    classes = classes_of(label_set)
    dropped = _dropped(corpus, drop)
    if classes == corpus.classes and not dropped:
        return corpus
    index = _index(corpus, label_set, dropped)
    target = np.where(corpus.target < 0, NO_CLASS, index[corpus.target])
    split = np.where(target < 0, OUT, corpus.rows.split).astype(np.int8)
    if (split == OUT).all():
        raise DataError(f"{corpus.name}: no image remains with the labels of {label_set}; drop fewer classes")
    votes = corpus.rows.votes
    if votes is not None:  # the shares of the remaining classes; all 0 if no vote remains
        summed = votes.astype(np.float64) @ np.eye(len(classes) + 1)[index][:, :-1]  # NO_CLASS is the last column
        total = summed.sum(1, keepdims=True)
        votes = (summed / np.where(total > 0, total, 1)).astype(np.float32)
    rows = replace(corpus.rows, classes=classes, target=target, split=split, votes=votes)
    name = f"labels of {label_set}" + (f" without {', '.join(dropped)}" if dropped else "")
    digest = hashlib.sha256(json.dumps([corpus.fingerprint, classes]).encode())
    digest.update(target.astype("<i8").tobytes())
    return replace(corpus, rows=rows, fingerprint=digest.hexdigest(), protocol=f"{name}; {corpus.protocol}")


def _dropped(corpus: Corpus, drop: Sequence[str]) -> list[str]:
    """Return the corpus's own names of the classes to drop, by target."""
    if not (isinstance(drop, list | tuple) and all(isinstance(name, str) for name in drop)):
        raise DataError(f"map_to's drop is {drop!r}; give a list of classes, such as [contempt]")
    known = {canonical(name) for name in corpus.classes}
    for name in drop:
        if canonical(name) not in known:
            raise DataError(f"{corpus.name} has no class {name!r} to drop{nearest(name, list(corpus.classes))}")
    wanted = {canonical(name) for name in drop}
    return [name for name in corpus.classes if canonical(name) in wanted]


def _index(corpus: Corpus, label_set: str, dropped: list[str]) -> NDArray[np.int64]:
    """Return the new target of each class, NO_CLASS for a dropped one."""
    targets = dict(zip(corpus.classes, mapping(corpus.classes, classes_of(label_set)), strict=True))
    missing = [name for name, target in targets.items() if target is None and name not in dropped]
    if missing:
        raise DataError(
            f"{label_set} does not have {', '.join(missing)}, but {corpus.name} does; leave those images out with "
            f"drop: [{', '.join(missing)}], or map to another label set"
        )
    return np.array([NO_CLASS if name in dropped else targets[name] for name in corpus.classes], np.int64)
