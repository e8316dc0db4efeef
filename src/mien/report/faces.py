"""The sections of a report that show faces: confident answers, right and wrong; twins with other labels; explanations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mien.languages import translate
from mien.report.page import Block, Face, Faces, Section, Text

if TYPE_CHECKING:
    from mien.datasets import Corpus

WORST = 12
"""Most confident mistakes that are shown."""

CONTRADICTIONS = 6
"""Twins with another label in training that are shown."""

EXPLAINED = 3
"""Mistakes, and right answers, that are explained."""

Predictions = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]
"""Row numbers in the corpus (N,), true classes (N,) and probabilities (N, K)."""

Explain = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.uint8]]]
"""Returns, for a face, pictures with a map over it, RGB, by the name of the map."""


@dataclass(frozen=True, eq=False)
class Shown:
    """The corpus whose faces are shown."""

    corpus: Corpus
    train: str | None = None  # name of the split that trained the model, to find twins; None if that is unknown
    votes: NDArray[np.int64] | None = None  # how many people chose each class, (rows, K); None if that is unknown


def people(shown: Shown | None) -> list[str]:
    """Return the note that a page with faces begins with."""
    if shown is None:
        return []
    text = "This page contains pictures of people from {corpus}: its licence says who may see them."
    return [translate(text, corpus=shown.corpus.name)]


def faces_sections(
    shown: Shown | None, predictions: Predictions | None, classes: Sequence[str], explain: Explain | None = None
) -> list[Section]:
    """Return the sections `Faces`, `Twins` and `Explanations`, as far as corpus, predictions and explanations are at hand."""
    if shown is None or predictions is None:
        return []
    rows, target, probs = predictions
    label, confidence = probs.argmax(1), probs.max(1)
    order = np.argsort(-confidence, kind="stable")
    worst = [int(i) for i in order if label[i] != target[i]][:WORST]
    right = [int(i) for i in order if label[i] == target[i]]
    best = [found[0] for k in range(len(classes)) if (found := [i for i in right if target[i] == k])]
    twins = _training_twins(shown, rows)

    def face(kind: str, number: int, i: int) -> Face:
        answer, truth, row = translate(classes[label[i]]), translate(classes[target[i]]), int(rows[i])
        share = f"{100 * confidence[i]:.1f}\u00a0%"
        lines = [f"{answer}, {share}"]
        if label[i] != target[i]:
            lines.append(f"{translate('label')}: {truth}")
        if shown.votes is not None and shown.votes[row].any():
            counts = shown.votes[row]
            ranked = [(counts[k], translate(shown.corpus.classes[k])) for k in np.argsort(-counts, kind="stable") if counts[k]]
            lines.append(f"{translate('votes')}: {', '.join(f'{count} {name}' for count, name in ranked)}")
        if row in twins:
            lines.append(f"{translate('twin in training')}: {translate(shown.corpus.classes[shown.corpus.target[twins[row]]])}")
        alt = translate("Face labelled {label}, answered {answer} with {share}", label=truth, answer=answer, share=share)
        return Face(f"{kind}-{number}", [*lines, shown.corpus.origin(row)], alt, shown.corpus.images[row])

    faces: list[Block] = []
    if worst:
        faces.append(Text("The most confident mistakes, the most confident first."))
        faces.append(Faces([face("worst", *pair) for pair in enumerate(worst, 1)]))
    if best:
        faces.append(Text("The most confident right answer of each class."))
        faces.append(Faces([face("best", *pair) for pair in enumerate(best, 1)]))
    sections = [Section("Faces", faces), Section("Twins", _contradictions(shown, twins, face, rows, target, classes))]
    if explain is not None:
        blocks: list[Block] = [Text("What the answers of some of these faces depend on: bright areas count most.")]
        for kind, chosen in (("worst", worst), ("best", best)):
            blocks += [_explained(face(kind, *pair), explain) for pair in enumerate(chosen[:EXPLAINED], 1)]
        sections.append(Section("Explanations", blocks))
    return sections


def _training_twins(shown: Shown, rows: NDArray[np.int64]) -> dict[int, int]:
    """Return, by row, the first training image with the same bytes."""
    from mien.datasets.twins import digests

    corpus = shown.corpus
    if shown.train not in corpus.splits:
        return {}
    train = np.flatnonzero(corpus.rows.split == corpus.splits.index(shown.train))
    first = dict(zip(digests(corpus.images, train[::-1]).tolist(), train[::-1].tolist(), strict=True))
    found = zip(rows.tolist(), digests(corpus.images, rows).tolist(), strict=True)
    return {row: first[digest] for row, digest in found if digest in first}


def _contradictions(
    shown: Shown,
    twins: dict[int, int],
    face: Callable[[str, int, int], Face],
    rows: NDArray[np.int64],
    target: NDArray[np.int64],
    classes: Sequence[str],
) -> list[Block]:
    """Return the images whose twin in training has another label."""
    corpus = shown.corpus
    if not twins:
        return []
    known = [(i, twins[row]) for i, row in enumerate(rows.tolist()) if row in twins]
    other = [i for i, twin in known if corpus.classes[corpus.target[twin]] != classes[target[i]]]
    text = "Images with a byte-identical twin in training: {count}; with another label there: {other}."
    text = translate(text, count=f"{len(twins):,}", other=f"{len(other):,}")
    if not other:
        return [Text(text)]
    found = [face("twin", number, i) for number, i in enumerate(other[:CONTRADICTIONS], 1)]
    return [Text(f"{text} {translate('Some of these, with the answer of the model:')}"), Faces(found)]


def _explained(face: Face, explain: Explain) -> Faces:
    """Return a face followed by the maps that explain its answer."""
    pictures = [Face(f"explain-{face.name}-0", face.lines, face.alt, face.pixels)]
    for number, (name, picture) in enumerate(explain(face.pixels).items(), 1):
        alt = f"{face.alt}; {translate('the map {name} over it', name=name)}"
        pictures.append(Face(f"explain-{face.name}-{number}", [name], alt, picture))
    return Faces(pictures)
