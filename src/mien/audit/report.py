"""The audit of a corpus: twins within and across splits, conflicting labels, blank and broken images, balance, subjects.

What it counts is in `Audit.report`, plain JSON types; `mien.audit.findings` says it in sentences. Twins are those of
`mien.datasets.twins`, and their byte-identical ones are what `Corpus.twin_free`, and so every evaluation, leaves out.
"""

from __future__ import annotations

import csv
import datetime
import json
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.audit.statistics import picture_files, statistics
from mien.datasets.corpus import Corpus
from mien.datasets.protocols.splits import random_split
from mien.datasets.twins import HASH_BITS, NEAR, SHIFT, SIDE, Pairs, Step, Twins, find_twins
from mien.errors import DataError
from mien.provenance import current_commit, hardware

TEST_SHARE = 0.2
"""Share of the images that is test in the random split by image that the audit tries, as papers do who merge the splits."""


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """What was found.

    Attributes:
        corpus: The corpus.
        twins: Its twins.
        report: Counts and where they come from, as plain JSON types. Under `twins.<kind>.across.<a>.<b>` stands how many images
            of the split a have such a twin in the split b.
    """

    corpus: Corpus
    twins: Twins
    report: dict[str, Any]


def audit(corpus: Corpus, source: Path | None = None, on_step: Step | None = None) -> Audit:
    """Return what is to be known about a corpus before it is trusted.

    Args:
        corpus: The corpus.
        source: What it was read from; with it the sizes of its picture files are looked up.
        on_step: Called with what is being done, how much of it is done, and how much there is.

    Raises:
        MissingExtraError: imagehash is not installed.
    """
    began = time.perf_counter()
    twins = find_twins(corpus.images, on_step)
    report = {
        "data": {
            "corpus": corpus.name,
            "fingerprint": corpus.fingerprint,
            "protocol": corpus.protocol,
            "images": len(corpus.target),
        },
        "skipped": list(corpus.skipped),
        "statistics": statistics(corpus).to_dict(),
        "files": picture_files(source, corpus.files) if source else None,
        "blank": _blank(corpus, twins),
        "twins": _twins(corpus, twins),
        "subjects": _subjects(corpus),
        "random_split": _random_split(corpus, twins),
        "seconds": round(time.perf_counter() - began, 1),
        "hardware": hardware(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": current_commit(),
        "mien_version": version("mien"),
    }
    return Audit(corpus, twins, report)


def _blank(corpus: Corpus, twins: Twins) -> dict[str, Any]:
    rows = np.flatnonzero(twins.blank)
    splits = {name: int((corpus.rows.split[rows] == i).sum()) for i, name in enumerate(corpus.splits)}
    return {"images": len(rows), "splits": splits, "which": [corpus.origin(int(row)) for row in rows]}


def _twins(corpus: Corpus, twins: Twins) -> dict[str, Any]:
    groups, target = twins.groups(), corpus.target
    reached = twins.in_split(corpus.rows.split, len(corpus.splits))
    found: dict[str, Any] = {
        "exact": {"groups": len(groups), "conflicting_groups": sum(len(set(target[rows].tolist())) > 1 for rows in groups)},
        "near": _pairs(twins.near, corpus),
        "mirrored": _pairs(twins.mirrored, corpus),
        "any": {},
    }
    for kind, mask in reached.items():
        found[kind] |= {"images": int(mask.any(axis=1).sum()), "across": _across(corpus, mask)}
    found["thresholds"] = {
        "hash": "imagehash.phash, 64 bits",
        "hash_bits": HASH_BITS,
        "pixel_distance": NEAR,
        "side_px": SIDE,
        "shift_px": SHIFT,
    }
    return found


def _pairs(pairs: Pairs, corpus: Corpus) -> dict[str, int]:
    labels, people = corpus.target[pairs], corpus.rows.subjects
    counts = {"pairs": len(pairs), "conflicting_pairs": int((labels[:, 0] != labels[:, 1]).sum())}
    if people:
        counts["same_subject_pairs"] = sum(people[a] == people[b] != "" for a, b in pairs.tolist())
    return counts


def _across(corpus: Corpus, mask: NDArray[np.bool_]) -> dict[str, dict[str, int]]:
    """Return how many images of each split have a twin in each split, from a mask (N, splits)."""
    return {
        name: dict(zip(corpus.splits, mask[corpus.rows.split == i].sum(axis=0).tolist(), strict=True))
        for i, name in enumerate(corpus.splits)
    }


def _subjects(corpus: Corpus) -> dict[str, Any] | None:
    """Return how many people there are, and who of them is in two splits; None where nobody is known."""
    people = [_people(corpus, np.flatnonzero(corpus.rows.split == i)) for i in range(len(corpus.splits))]
    if not any(people):
        return None
    shared = [
        {"splits": [corpus.splits[a], corpus.splits[b]], "subjects": sorted(people[a] & people[b])}
        for a, b in combinations(range(len(people)), 2)
    ]
    return {"number": len(set().union(*people)), "shared": [pair for pair in shared if pair["subjects"]]}


def _people(corpus: Corpus, rows: NDArray[np.int64]) -> set[str]:
    """Return the people in some images, those without a name left out."""
    return {corpus.rows.subjects[row] for row in rows} - {""} if corpus.rows.subjects else set()


def _random_split(corpus: Corpus, twins: Twins) -> dict[str, Any] | None:
    """Return how many test images of a random split have a twin, or their subject, in training; None if it cannot be split."""
    try:
        drawn = random_split(corpus, test=TEST_SHARE, seed=0, by="image")
    except DataError:  # a class of one image
        return None
    test, train = (drawn.where(name) for name in ("test", "train"))
    reached = twins.in_split(drawn.rows.split, len(drawn.splits))
    counts = {kind: int(mask[test, 0].sum()) for kind, mask in reached.items()}
    known = _people(corpus, train)
    subject = sum(corpus.rows.subjects[row] in known for row in test) if known else None
    return {"protocol": drawn.protocol, "images": len(test), "twin_in_train": counts, "subject_in_train": subject}


def write_audit(path: Path, done: Audit) -> list[Path]:
    r"""Write `<path>` (JSON) and `<stem>-twins.csv` beside it, one pair a row; return the two.

    Bytes of a file's name that are no UTF-8 are written as `\udce9`, which JSON reads back as they were.

    Raises:
        OutputError: A file cannot be written.
    """
    table = path.with_name(f"{path.stem}-twins.csv")
    with atomic_path(table) as beside, beside.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "image", "twin", "distance", "split", "twin_split", "label", "twin_label"])
        writer.writerows(_pair_rows(done))
    with atomic_path(path) as beside:
        text = json.dumps(done.report, indent=1, ensure_ascii=False) + "\n"
        beside.write_text(text, encoding="utf-8", errors="backslashreplace")
    return [path, table]


def _pair_rows(done: Audit) -> list[list[str]]:
    corpus, twins = done.corpus, done.twins
    parts = (
        ("exact", twins.exact, np.zeros(len(twins.exact), np.float32)),
        ("near", twins.near, twins.near_distance),
        ("mirrored", twins.mirrored, twins.mirrored_distance),
    )
    rows = []
    for kind, pairs, distances in parts:
        for pair, distance in zip(pairs.tolist(), distances.tolist(), strict=True):
            splits = [corpus.splits[i] if i >= 0 else "" for i in corpus.rows.split[pair]]
            labels = [corpus.classes[i] for i in corpus.target[pair]]
            rows.append([kind, *map(corpus.origin, pair), f"{distance:.3f}", *splits, *labels])
    return rows
