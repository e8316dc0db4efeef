"""The audit of a corpus: twins within and across splits, conflicting labels, blank and broken images, balance, subjects.

`Audit.report` has the counts, as JSON types, and `findings` puts them into sentences. Twins are those of `mien.datasets.twins`;
the byte-identical ones are what `Corpus.twin_free`, and so every evaluation, leaves out.
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
from mien.text import escape_formula

TEST_SHARE = 0.2
"""Test share of the random split by image that the audit tries, as papers do that merge the splits."""

KINDS = {"exact": "byte-identical", "near": "nearly the same", "mirrored": "mirrored", "any": "twins of any kind"}
"""Kinds of twins, with their names in tables and sentences."""


@dataclass(frozen=True, slots=True, eq=False)
class Audit:
    """The result of an audit.

    Attributes:
        corpus: The corpus.
        twins: Its twins.
        report: Counts and where they come from, as JSON types. `twins.<kind>.across.<a>.<b>` is the number of images in the
            split a that have such a twin in the split b.
    """

    corpus: Corpus
    twins: Twins
    report: dict[str, Any]


def audit(corpus: Corpus, source: Path | None = None, on_step: Step | None = None) -> Audit:
    """Return the problems found in a corpus: twins, conflicting labels, blank images, people in two splits.

    Args:
        corpus: The corpus.
        source: The file or folder it was read from; if given, the sizes of its picture files are reported too.
        on_step: Called with the name of the step, the amount done and the total.

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
    """Return the number of images in each split that have a twin in each split, from a mask (N, splits)."""
    return {
        name: dict(zip(corpus.splits, mask[corpus.rows.split == i].sum(axis=0).tolist(), strict=True))
        for i, name in enumerate(corpus.splits)
    }


def _subjects(corpus: Corpus) -> dict[str, Any] | None:
    """Return the number of people and those who are in two splits; None if no one is known."""
    people = [_people(corpus, np.flatnonzero(corpus.rows.split == i)) for i in range(len(corpus.splits))]
    if not any(people):
        return None
    shared = [
        {"splits": [corpus.splits[a], corpus.splits[b]], "subjects": sorted(people[a] & people[b])}
        for a, b in combinations(range(len(people)), 2)
    ]
    return {"number": len(set().union(*people)), "shared": [pair for pair in shared if pair["subjects"]]}


def _people(corpus: Corpus, rows: NDArray[np.int64]) -> set[str]:
    """Return the people in some images, as far as they are named."""
    return {corpus.rows.subjects[row] for row in rows} - {""} if corpus.rows.subjects else set()


def _random_split(corpus: Corpus, twins: Twins) -> dict[str, Any] | None:
    """Return how many test images of a random split have a twin or their subject in training; None if it cannot be drawn."""
    try:
        drawn = random_split(corpus, test=TEST_SHARE, seed=0, by="image")
    except DataError:  # a class with one image
        return None
    test, train = (drawn.where(name) for name in ("test", "train"))
    reached = twins.in_split(drawn.rows.split, len(drawn.splits))
    counts = {kind: int(mask[test, 0].sum()) for kind, mask in reached.items()}
    known = _people(corpus, train)
    subject = sum(corpus.rows.subjects[row] in known for row in test) if known else None
    return {"protocol": drawn.protocol, "images": len(test), "twin_in_train": counts, "subject_in_train": subject}


# In sentences


def findings(report: dict[str, Any]) -> list[str]:
    """Return a report in sentences, one per line, the most important first."""
    lines = []
    if report["skipped"]:
        lines.append(f"{_count(len(report['skipped']), 'entry', 'entries')} of the source could not be used")
    lines += [*_leaks(report), *_kinds(report["twins"])]
    if report["blank"]["images"]:
        lines.append(f"{_count(report['blank']['images'], 'image')} blank, every pixel the same")
    lines += _shared_people(report)
    if drawn := report["random_split"]:
        line = f"if the splits were drawn at random ({drawn['protocol']}): "
        line += _with_twin(drawn["twin_in_train"], drawn["images"])
        if drawn["subject_in_train"] is not None:
            line += f"; {drawn['subject_in_train']:,} show a person who is also in train"
        lines.append(line)
    return lines


def _kinds(twins: dict[str, Any]) -> list[str]:
    """Return a line for each kind of twin: how many there are, and how many have different labels."""
    lines = []
    for kind, unit in (("exact", "group"), ("near", "pair"), ("mirrored", "pair")):
        part = twins[kind]
        if number := part[f"{unit}s"]:
            labels = f"{part[f'conflicting_{unit}s']:,} with different labels"
            people = f", {part['same_subject_pairs']:,} of one person" if "same_subject_pairs" in part else ""
            lines.append(f"{KINDS[kind]}: {_count(number, unit)} of {part['images']:,} images, {labels}{people}")
        else:
            lines.append(f"{KINDS[kind]}: none")
    return lines


def _leaks(report: dict[str, Any]) -> list[str]:
    """Return a line for each split but the first: how many of its images have a twin in the first."""
    train, *others = report["statistics"]["splits"]
    sizes = [sum(column) for column in zip(*report["statistics"]["counts"], strict=True)][1:]
    across = {kind: report["twins"][kind]["across"] for kind in KINDS}
    return [
        f"{name}: " + _with_twin({kind: across[kind][name][train] for kind in KINDS}, size, train)
        for name, size in zip(others, sizes, strict=True)
        if size
    ]


def _with_twin(counts: dict[str, int], images: int, train: str = "train") -> str:
    shown = {kind: f"{counts[kind]:,} ({counts[kind] / images:.1%})" for kind in KINDS}
    kinds = ", ".join(f"{shown[kind]} {KINDS[kind]}" for kind in ("exact", "near", "mirrored"))
    return f"of {images:,} images, {shown['any']} have a twin in {train}: {kinds}"


def _shared_people(report: dict[str, Any]) -> list[str]:
    people = report["subjects"]
    if people is None:
        return ["people: the files do not say who is in an image, so a person may be in several splits"]
    number = _count(people["number"], "person", "people")
    if len(report["statistics"]["splits"]) == 1:
        return [f"{number}, and no official splits: split by subject"]
    lines = [
        f"{_count(len(pair['subjects']), 'person', 'people')} in {' and '.join(pair['splits'])}" for pair in people["shared"]
    ]
    return lines or [f"{number}, none of them in two splits"]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


# In files


def twins_path(report: Path) -> Path:
    """Return the path of the table of twins that is written next to a report."""
    return report.with_name(f"{report.stem}-twins.csv")


def write_audit(path: Path, done: Audit) -> list[Path]:
    r"""Write `<path>` (JSON) and `<stem>-twins.csv` next to it, one row per pair; return both paths.

    Bytes of a file name that are not UTF-8 are written as `\udce9`, from which JSON restores them.

    Raises:
        OutputError: A file cannot be written.
    """
    table = twins_path(path)
    with atomic_path(table) as tmp_path, tmp_path.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file:
        writer = csv.writer(file)
        writer.writerow(["kind", "image", "twin", "distance", "split", "twin_split", "label", "twin_label"])
        writer.writerows(map(escape_formula, row) for row in _pair_rows(done))
    with atomic_path(path) as tmp_path:
        text = json.dumps(done.report, indent=1, ensure_ascii=False) + "\n"
        tmp_path.write_text(text, encoding="utf-8", errors="backslashreplace")
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
            texts = [escape_formula(text) for text in (*map(corpus.origin, pair), f"{distance:.3f}", *splits, *labels)]
            rows.append([kind, *texts])
    return rows
