"""The titles of figures: network, corpus, split, number of images and runs, scale."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from mien.languages import translate
from mien.report.inputs import CPU, Measured, Run, scale_of, show

FOLD = re.compile(r", fold \d+")
"""What a k-fold protocol's name says about the fold."""

UNITS = {
    "run": ("{count} run", "{count} runs"),
    "fold": ("{count} fold", "{count} folds"),
    "epoch": ("{count} epoch", "{count} epochs"),
}
"""Texts for one and for several of a thing."""


def describe_measured(measured: Sequence[Measured], part: str = "standard") -> list[str]:
    """Return the first lines of a title: network, corpus, split and images; protocol, folds and precision; scale."""
    firsts = [each.first for each in measured]
    data = firsts[0]["data"]
    names = join_names([first["model"]["arch"] for first in firsts])
    images = [sum((results.get(part) or {}).get("images", 0) for results in each.results) for each in measured]
    facts = []
    protocol = common({FOLD.sub("", results["data"]["protocol"]) for each in measured for results in each.results})
    if protocol not in (None, "official"):
        facts.append(translate("split: {name}", name=protocol))
    folds = [len(each.results) for each in measured]
    if max(folds) > 1:
        facts.append(translate("{folds} pooled", folds=count(folds, "fold")))
    precision = common({first["precision"] for first in firsts})
    if precision not in (None, "fp32"):
        facts.append(precision)
    epochs = [(first.get("training") or {}).get("epochs") for first in firsts]
    scale = _scale(scale_of(firsts[0]), [first["model"]["input"][0] for first in firsts], epochs)
    subject = translate("{model} on {data}", model=names, data=f"{data['corpus']} {data['split']}")
    return [f"{subject}, n = {count(images)}", ", ".join(facts), scale]


def describe_runs(runs: Sequence[Run]) -> list[str]:
    """Return the first lines of a figure of runs: network and corpus; protocol; scale."""
    names = join_names([run.recipe["model"]["name"] for run in runs])
    protocol = common({_protocol(run) for run in runs})
    subject = translate("{model} on {data}", model=names, data=runs[0].recipe["data"]["corpus"])
    return [subject, translate("split: {name}", name=protocol) if protocol else "", runs_scale(runs)]


def _protocol(run: Run) -> str:
    """Return how a recipe splits its corpus, without the fold: `kfold, folds 10, by subject`; nothing for official splits."""
    steps = run.recipe["data"].get("protocol") or []
    return "; ".join(
        ", ".join([step["name"], *(f"{key} {show(value)}" for key, value in step.items() if key not in ("name", "fold"))])
        for step in (steps if isinstance(steps, list) else [steps])
    )


def runs_scale(runs: Sequence[Run]) -> str:
    """Return the scale of runs of a study, such as `CPU scale: 48 px, 15 epochs`; nothing for the full scale."""
    sizes = [run.recipe["preprocess"]["size"][0] for run in runs]
    return _scale(runs[0].scale, sizes, [run.recipe["train"]["epochs"] for run in runs])


def spread(counts: Sequence[int], unit: Literal["point", "line"]) -> str:
    """Return what a point or line and its error bars or band show.

    >>> spread([3, 3], "point"), spread([1, 1], "line")
    ('mean of 3 runs per point, bars: ± 1 SD', '1 run per line')
    """
    runs = count(counts, "run")
    if max(counts) == 1:
        return translate("{runs} per point" if unit == "point" else "{runs} per line", runs=runs)
    bars, band = "mean of {runs} per point, bars: ± 1 SD", "mean of {runs} per line, band: ± 1 SD"
    return translate(bars if unit == "point" else band, runs=runs)


def count(numbers: Sequence[int], unit: str = "") -> str:
    """Return numbers as one or as a range, with their unit.

    >>> count([3, 3], "run"), count([1, 3], "run"), count([3589])
    ('3 runs', '1 to 3 runs', '3,589')
    """
    low, high = min(numbers), max(numbers)
    text = f"{low:,}" if low == high else translate("{low} to {high}", low=f"{low:,}", high=f"{high:,}")
    return translate(UNITS[unit][high != 1], count=text) if unit else text


def join_names(names: Sequence[str]) -> str:
    """Return the different networks, or how many there are if they are more than three."""
    different = list(dict.fromkeys(names))
    return ", ".join(different) if len(different) <= 3 else translate("{count} networks", count=len(different))


def common(values: set[Any]) -> Any:
    """Return the only value of a set, or None."""
    return next(iter(values)) if len(values) == 1 else None


def _scale(name: str | None, sizes: Sequence[int], epochs: Sequence[int | None]) -> str:
    """Return the scale of a study with what it changes, such as `CPU scale: 48 px, 15 epochs`; nothing for None."""
    if name is None:
        return ""
    known = [number for number in epochs if number is not None]
    text = translate("{name} scale: {size} px", name="CPU" if name == CPU else name, size=count(sizes))
    return f"{text}, {count(known, 'epoch')}" if known else text
