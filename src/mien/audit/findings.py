"""What an audit's report says, in sentences."""

from __future__ import annotations

from typing import Any

KINDS = {"exact": "byte-identical", "near": "nearly the same", "mirrored": "mirrored", "any": "twins of any kind"}
"""Kinds of twins, and their names for readers."""


def findings(report: dict[str, Any]) -> list[str]:
    """Return what a report says, a sentence a line, what matters most first."""
    lines = []
    if report["skipped"]:
        lines.append(f"{_count(len(report['skipped']), 'entry', 'entries')} of the source could not be used")
    lines += [*_leaks(report), *_kinds(report["twins"])]
    if report["blank"]["images"]:
        lines.append(f"{_count(report['blank']['images'], 'image')} blank, every pixel the same")
    lines += _shared_people(report)
    if drawn := report["random_split"]:
        told = _with_twin(drawn["twin_in_train"], drawn["images"])
        lines.append(f"were the splits drawn at random ({drawn['protocol']}): {told}")
        if drawn["subject_in_train"] is not None:
            lines[-1] += f"; {drawn['subject_in_train']:,} show a person who is in train too"
    return lines


def _kinds(twins: dict[str, Any]) -> list[str]:
    """Return a line a kind of twin: how many there are, and how many have different labels."""
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
    told = {kind: f"{counts[kind]:,} ({counts[kind] / images:.1%})" for kind in KINDS}
    kinds = ", ".join(f"{told[kind]} {KINDS[kind]}" for kind in ("exact", "near", "mirrored"))
    return f"of {images:,} images, {told['any']} have a twin in {train}: {kinds}"


def _shared_people(report: dict[str, Any]) -> list[str]:
    people = report["subjects"]
    if people is None:
        return ["people: the files do not say who is in an image, so one person may be in several splits"]
    number = _count(people["number"], "person", "people")
    if len(report["statistics"]["splits"]) == 1:
        return [f"{number}, and no official splits: divide them by subject"]
    lines = [
        f"{_count(len(pair['subjects']), 'person', 'people')} in {' and '.join(pair['splits'])}" for pair in people["shared"]
    ]
    return lines or [f"{number}, none of them in two splits"]


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"
