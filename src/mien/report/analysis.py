"""Error analysis: what a network gets wrong, and which of its mistakes are those of the labels.

`analyse` takes results files and their corpus. It returns the most confident mistakes with their twins and FER+'s votes, and
the pairs of classes that are confused. cleanlab ranks the labels that look wrong. `write_analysis` writes the tables.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path, write_json
from mien.datasets import Corpus
from mien.datasets.row_list import corpus_id, write_row_list
from mien.datasets.twins import twins_of
from mien.datasets.votes import Votes
from mien.errors import DataError, EditedError, require
from mien.labels import label_set, mapping
from mien.output.table import write_csv
from mien.provenance import current_commit, versions
from mien.recipe import RENAMED, load_recipe, recipe_names
from mien.report.inputs import RECIPE, Measured, one_measurement, pool_folds, read_runs
from mien.results import predictions_path, read_predictions
from mien.statistics import risk_coverage

SHARES = (0.01, 0.05, 0.1, 1.0)
"""Shares of the ranked labels whose agreement with FER+'s votes is counted; the last is the base rate."""


@dataclass(frozen=True, slots=True)
class Twin:
    """Another image of the corpus that shows the same picture."""

    row: int  # in the corpus
    kind: str  # `exact` (the same bytes), `near` or `mirrored`
    split: str  # empty if it is in none
    label: str


@dataclass(frozen=True, slots=True)
class Mistake:
    """An image whose prediction is not its label.

    Attributes:
        row: Its row in the corpus.
        label: Its class by the corpus.
        predicted: Its class by the network.
        confidence: Probability of the predicted class.
        label_prob: Probability of the label.
        twins: Its twins anywhere in the corpus, identical ones first.
        votes: How many of FER+'s people chose each class, the most frequent first; None without votes.
    """

    row: int
    label: str
    predicted: str
    confidence: float
    label_prob: float
    twins: tuple[Twin, ...]
    votes: dict[str, int] | None


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """How often images of one class are taken for another."""

    label: str  # by the corpus
    predicted: str  # by the network
    images: int
    share: float  # of the images of `label`


@dataclass(frozen=True, eq=False)
class Analysis:
    """The error analysis of one measurement.

    Attributes:
        measured: The results.
        corpus: The corpus.
        rows: Row numbers of the measured images in the corpus, (N,).
        target: Their labels by `classes`, (N,).
        probs: Probabilities, (N, K), rows of sum 1.
        mistakes: The most confident mistakes, the most confident first.
        pairs: Every pair of classes that is confused, the most frequent first.
        order: Indices of the images, (N,), the most suspect label first.
        quality: cleanlab's quality of each label, (N,), in [0, 1]: here the probability of the label.
        issue: Whether cleanlab takes a label for wrong, (N,).
        votes_differ: Whether FER+'s most frequent class of the corpus is not the label, (N,); None without votes.
    """

    measured: Measured
    corpus: Corpus
    rows: NDArray[np.int64]
    target: NDArray[np.int64]
    probs: NDArray[np.float64]
    mistakes: tuple[Mistake, ...]
    pairs: tuple[ConfusedPair, ...]
    order: NDArray[np.int64]
    quality: NDArray[np.float64]
    issue: NDArray[np.bool_]
    votes_differ: NDArray[np.bool_] | None

    @property
    def classes(self) -> list[str]:
        """The K classes that were measured."""
        return list(self.measured.first["classes"])

    def worst(self, share: float) -> NDArray[np.int64]:
        """Return the indices of a share of the images, at least one: those with the most suspect labels, the worst first."""
        return self.order[: max(1, round(share * len(self.order)))]

    def summary(self) -> dict[str, Any]:
        """Return the analysis in numbers, as JSON types, without the images."""
        confidence, right = self.probs.max(1), self.probs.argmax(1) == self.target
        differ = self.votes_differ
        return {
            "results": [
                {"file": path.name, "digest": each["digest"]}
                for path, each in zip(self.measured.paths, self.measured.results, strict=True)
            ],
            "model": self.measured.first["model"],
            "data": {key: self.measured.first["data"][key] for key in ("corpus", "split", "fingerprint")},
            "images": len(self.rows),
            "mistakes": int((~right).sum()),
            "trained_on_these": trained_on_these(self.measured),
            "aurc": float(risk_coverage(confidence, right)[1].mean()),
            "pairs": [asdict(pair) for pair in self.pairs[:10]],
            "label_issues": int(self.issue.sum()),
            "votes_differ": None if differ is None else {f"{s:g}": float(differ[self.worst(s)].mean()) for s in SHARES},
            "commit": current_commit(),
            "versions": versions() | {"cleanlab": require("cleanlab", "analyse").__version__},
        }


def analyse(
    results: Path | Sequence[Path],
    corpus: Corpus,
    *,
    votes: Votes | None = None,
    top: int = 24,
    on_step: Callable[[str, int, int], None] | None = None,
) -> Analysis:
    """Return the error analysis of a results file, or of all folds of one run of a study.

    Args:
        results: The results files of `mien evaluate`, with their predictions next to them.
        corpus: The corpus that was measured, split in any way.
        votes: FER+'s votes for every row of the corpus; see `mien.datasets.ferplus.fer2013_votes`.
        top: Number of mistakes to return; their twins are searched for.
        on_step: Called with the name of the step, how much of it is done, and how much there is.

    Raises:
        DataError: A file is missing or damaged, the corpus is not the one that was measured, the predictions have one class, or
            several files are not the folds of one run.
        EditedError: The results or the predictions were changed by hand.
        MissingExtraError: The extra `analyse` is not installed.
    """
    filters, rank = require("cleanlab.filter", "analyse"), require("cleanlab.rank", "analyse")
    measured = one_measurement(pool_folds([results] if isinstance(results, Path) else results))
    classes = measured.first["classes"]
    rows, target, probs = (np.concatenate(parts) for parts in zip(*_read(measured, corpus), strict=True))
    probs = probs.astype(np.float64) / probs.sum(1, keepdims=True)
    if len(np.unique(target)) < 2:
        raise DataError(
            f"{measured.paths[0]}: all its images are {classes[target[0]]}; suspect labels need two classes or more"
        )
    preds, quality = probs.argmax(1), rank.get_label_quality_scores(target, probs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "May not flag all label issues", UserWarning)  # a class without images, or with one
        issue = filters.find_label_issues(target, probs, n_jobs=1)
    wrong = np.flatnonzero(preds != target)
    shown = wrong[np.argsort(-probs[wrong, preds[wrong]], kind="stable")][:top]
    twins = twins_of(corpus.images, rows[shown], on_step) if len(shown) else {}
    mistakes = tuple(
        Mistake(
            row=int(rows[i]),
            label=classes[target[i]],
            predicted=classes[preds[i]],
            confidence=float(probs[i, preds[i]]),
            label_prob=float(probs[i, target[i]]),
            twins=tuple(_twin(corpus, row, kind) for row, kind in twins[int(rows[i])]),
            votes=None if votes is None else _count(votes.counts[rows[i]]),
        )
        for i in shown
    )
    confusion = measured.confusion
    pairs = [
        ConfusedPair(classes[i], classes[j], int(count), float(count / confusion[i].sum()))
        for (i, j), count in np.ndenumerate(confusion)
        if i != j and count
    ]
    pairs.sort(key=lambda pair: -pair.images)
    order = np.argsort(quality, kind="stable")
    differ = None if votes is None else _differ(votes, classes, rows, target)
    return Analysis(measured, corpus, rows, target, probs, mistakes, tuple(pairs), order, quality, issue, differ)


def corpus_part(measured: Measured) -> dict[str, Any]:
    """Return how the corpus of a measurement was read, as the section `data` of a recipe.

    Results that were read with options name them. Others were read as the network's recipe says, which is next to the results
    of a run and bundled for bundled models.
    """
    wanted, path = measured.first["data"], measured.paths[0]
    if wanted.get("options") is not None:
        return {"corpus": wanted["corpus"], "options": wanted["options"]}
    recipe, part = measured.first["model"]["recipe"], dict[str, Any]()
    if (path.parent / RECIPE).is_file():
        part = read_runs([path.parent])[0].recipe["data"]
    elif RENAMED.get(recipe, recipe) in recipe_names():
        part = load_recipe(recipe).data.model_dump()
    return part if part.get("corpus") == wanted["corpus"] else {"corpus": wanted["corpus"]}


def trained_on_these(measured: Measured) -> bool:
    """Return whether the measured images are known to be those that trained the network."""
    return any((each["twins"] or {}).get("exact") == each["standard"]["images"] for each in measured.results)


def _read(measured: Measured, corpus: Corpus) -> Iterable[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]]:
    """Yield rows, targets and probabilities of each results file, checked against the corpus."""
    for path, results in zip(measured.paths, measured.results, strict=True):
        data = results["data"]
        if data["fingerprint"] != corpus.fingerprint:
            raise DataError(
                f"{path}: was measured on {data['corpus']} with the fingerprint {data['fingerprint'][:16]}..., but this "
                f"{corpus.name} has {corpus.fingerprint[:16]}...; give the copy that was measured, read with the same options"
            )
        rows, target, probs = read_predictions(path)
        index = np.array([-1 if i is None else i for i in mapping(corpus.classes, results["classes"])], np.int64)
        within = len(rows) and rows.min() >= 0 and rows.max() < len(corpus.target) and len(np.unique(rows)) == len(rows)
        if not within or (index[corpus.target[rows]] != target).any():
            raise EditedError(
                f"{predictions_path(path)}: its rows or targets are not those of the corpus, so it was changed; evaluate the "
                "model again to write it"
            )
        yield rows, target, probs


def _twin(corpus: Corpus, row: int, kind: str) -> Twin:
    split, target = int(corpus.rows.split[row]), int(corpus.target[row])
    return Twin(row, kind, corpus.splits[split] if split >= 0 else "", corpus.classes[target] if target >= 0 else "")


def _count(counts: NDArray[np.int64]) -> dict[str, int]:
    """Return the votes of an image by class, the most frequent first, without classes that nobody chose."""
    names = label_set("ferplus10")
    return {names[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable") if counts[i]}


def _differ(votes: Votes, classes: Sequence[str], rows: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return whether the class with the most votes, of those that were measured, is not the label; the label wins a draw."""
    columns = [column for column in mapping(classes, label_set("ferplus10")) if column is not None]
    if len(columns) < len(classes):
        raise DataError(f"FER+ has no votes for some of the classes {', '.join(classes)}; leave the votes out")
    counts = votes.counts[rows][:, columns]
    return counts[np.arange(len(rows)), target] < counts.max(1)


def write_analysis(folder: Path, analysis: Analysis, worst: float = 0.05) -> list[Path]:
    """Write the tables of an analysis into a folder; return their paths.

    These are `mistakes.csv`, `pairs.csv`, `suspects.csv` (a row list for `data.exclude` and `data.weights` of a recipe),
    `risk-coverage.csv` and `summary.json`.

    Args:
        folder: The folder; it is created.
        analysis: The analysis.
        worst: Share of the labels that `suspects.csv` lists, the most suspect first.

    Raises:
        OutputError: A file cannot be written.
    """
    classes, indices = analysis.classes, analysis.worst(worst)
    columns = [
        ("label", [classes[i] for i in analysis.target[indices]]),
        ("suggested", [classes[i] for i in analysis.probs[indices].argmax(1)]),
        ("issue", ["yes" if found else "no" for found in analysis.issue[indices]]),
    ]
    suspects, summary = folder / "suspects.csv", folder / "summary.json"
    write_row_list(suspects, analysis.corpus, analysis.rows[indices], analysis.quality[indices], columns)
    mistakes = []
    for each in analysis.mistakes:
        probs = f"{each.confidence:.5f}", f"{each.label_prob:.5f}"
        twins = "; ".join(
            f"{twin.kind} {twin.row} ({twin.split or 'no split'}, {twin.label or 'no class'})" for twin in each.twins
        )
        origin = analysis.corpus.origin(each.row)
        mistakes.append(
            [each.row, corpus_id(analysis.corpus), each.label, each.predicted, *probs, twins, describe_votes(each), origin]
        )
    head = ["row", "corpus", "label", "predicted", "confidence", "label_prob", "twins", "votes", "image"]
    pairs = [[pair.label, pair.predicted, pair.images, f"{pair.share:.5f}"] for pair in analysis.pairs]
    written = [
        _write_table(folder / "mistakes.csv", head, mistakes),
        _write_table(folder / "pairs.csv", ["label", "predicted", "images", "share"], pairs),
        suspects,
        _write_table(folder / "risk-coverage.csv", ["coverage", "images", "confidence", "risk"], _risk_rows(analysis)),
        summary,
    ]
    write_json(summary, analysis.summary() | {"worst": worst})
    return written


def describe_votes(mistake: Mistake) -> str:
    """Return the votes on a mistake as text, such as `8 happy, 2 neutral`."""
    return ", ".join(f"{count} {name}" for name, count in (mistake.votes or {}).items())


def _risk_rows(analysis: Analysis) -> list[list[Any]]:
    """Return coverage, images, lowest confidence and error rate at every twentieth of coverage."""
    confidence = analysis.probs.max(1)
    coverage, risk = risk_coverage(confidence, analysis.probs.argmax(1) == analysis.target)
    ordered = np.sort(confidence)[::-1]
    ends = sorted({max(1, round(step / 20 * len(ordered))) - 1 for step in range(1, 21)})
    return [[f"{coverage[end]:.5f}", end + 1, f"{ordered[end]:.5f}", f"{risk[end]:.5f}"] for end in ends]


def _write_table(path: Path, head: Sequence[str], lines: Iterable[Sequence[Any]]) -> Path:
    with atomic_path(path) as tmp_path:
        write_csv(tmp_path, head, lines)
    return path
