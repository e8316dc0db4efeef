"""Fine-tuning on one's own faces: the data are checked and fill in a recipe; accuracy before and after is compared.

Before is the start, choosing among the classes that it has in common with the data; images of other classes count as wrong.
After is the fine-tuned network, on the same images, which neither trained it nor chose its epoch.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mien.calibration import calibrated_probs
from mien.checkpoint import read_info
from mien.datasets import Corpus, apply_protocol
from mien.datasets.twins import digests
from mien.engine.torch_backend import TorchBackend
from mien.errors import CheckpointError, DataError
from mien.evaluate import BATCH, Evaluation, evaluate
from mien.labels import mapping
from mien.predict.backend import Backend, crop_logits
from mien.provenance import current_commit, hardware, versions
from mien.recipe import Recipe, load_recipe, recipe_hash
from mien.results import digest
from mien.statistics import interval_of_images, interval_of_units
from mien.transfer import start_file
from mien.weights import sha256

RECIPE = "dlib_resnet/finetune"

MIN_CLASS = 3
"""Fewest images of a class, and fewest people: one for each split."""

MIN_STEPS = 8
"""Fewest steps per epoch: few images make smaller batches."""

FEW_TRAIN, FEW_TEST = 20, 100
"""Training images of a class, and test images in all, below which the outcome is uncertain."""


def check_classes(corpus: Corpus, source: Path) -> None:
    """Check that a corpus, which was loaded from `source`, has enough images of two classes or more.

    Raises:
        DataError: It does not.
    """
    counts = np.bincount(corpus.target, minlength=len(corpus.classes))
    if len(corpus.classes) < 2:
        raise DataError(f"{source}: has one class, {corpus.classes[0]}; put the pictures of each expression in its own folder")
    if few := [f"{name} ({n})" for name, n in zip(corpus.classes, counts, strict=True) if n < MIN_CLASS]:
        raise DataError(
            f"{source}: too few images to split of {', '.join(few)}; each class needs {MIN_CLASS} or more, for training, for "
            "choosing the epoch and for the test. Add images, or move the folder away"
        )


def fill_recipe(
    corpus: Corpus, start: str, options: dict[str, Any], changes: dict[str, Any], folds: int | None = None, fold: int = 0
) -> tuple[Recipe, Corpus]:
    """Return the recipe that fine-tunes a start on a corpus, and the corpus split as it says.

    Args:
        corpus: The corpus, as loaded. Its own splits are kept. Otherwise 20 % become test and 15 % of the rest val. A person
            is in one split only, if the corpus names people.
        start: A bundled model, an exported file or a run.
        options: Options the corpus was read with.
        changes: Values by dotted key that replace those of the recipe.
        folds: Number of folds of a cross-validation, one of which is the test; None draws one test split.
        fold: That fold.

    Raises:
        CheckpointError: The start does not say what network it is.
        DataError: There are too few people, a class is not in training, or two splits have the same picture.
        RecipeError: A change is not possible.
    """
    info = read_info(start_file(start))
    if info is None:
        raise CheckpointError(
            f"{start}: does not say what network it is; give a bundled model, an exported .onnx file or a run"
        )
    people = {name for name in corpus.rows.subjects if name}
    unit = ({"by": "subject"} if people else {}) | ({"seed": changes["seed"]} if changes.get("seed") else {})
    if people and len(people) < MIN_CLASS:
        raise DataError(f"{corpus.name}: shows {len(people)} people; a split by person needs {MIN_CLASS} or more. Add others")
    protocol: dict[str, Any] = {"name": "random_split", "test": 0.2, "val": 0.15} | unit
    if folds is not None:
        protocol = {"name": "kfold", "folds": folds, "fold": fold, "val": 0.15} | unit
    elif {"train", "val", "test"} <= set(corpus.splits):
        protocol = {}
    elif corpus.splits in (("train", "test"), ("train", "val")):
        protocol = {"name": "official", "val": 0.15} | unit
    filled: dict[str, Any] = {
        "model.name": info.arch,
        "model.arguments": info.arguments,
        "model.start": start,
        "preprocess": info.preprocess.to_dict(),
        "data.corpus": corpus.name,
        "data.options": options,
        "data.protocol": protocol,
    }
    if info.arch != load_recipe(RECIPE).model.name:
        filled |= {"model.frozen": ["norms"], "optim.layer_decay": 1.0}
    recipe = load_recipe(RECIPE, filled | changes)
    steps = recipe.data.protocol
    for step in steps if isinstance(steps, list) else [steps] if steps else []:
        corpus = apply_protocol(corpus, step)
    rows = corpus.where(recipe.data.train)
    if lacking := [name for i, name in enumerate(corpus.classes) if not (corpus.target[rows] == i).any()]:
        raise DataError(
            f"{corpus.name}: the training split has no image of {', '.join(lacking)}, perhaps because few people show it; add "
            "images of others, or try another --seed"
        )
    _check_duplicates(corpus)
    batch_size = max(2, min(recipe.train.batch_size, len(rows) // MIN_STEPS))
    return load_recipe(RECIPE, filled | {"train.batch_size": batch_size} | changes), corpus


def _check_duplicates(corpus: Corpus) -> None:
    """Refuse a picture that is in two splits: its accuracy there would say nothing about new pictures."""
    first = dict[int, int]()
    for row, found in enumerate(digests(corpus.images).tolist()):
        other = first.setdefault(found, row) if corpus.rows.split[row] >= 0 else row
        if corpus.rows.split[other] != corpus.rows.split[row]:
            named = [f"{corpus.origin(each)} (in {corpus.splits[corpus.rows.split[each]]})" for each in (other, row)]
            raise DataError(f"{' and '.join(named)} are the same picture; delete one, so that no split repeats another")


def cautions(corpus: Corpus, folds: int | None = None) -> list[str]:
    """Return what makes the outcome on a split corpus uncertain, in sentences."""
    train, test = (np.bincount(corpus.target[corpus.where(name)], minlength=len(corpus.classes)) for name in ("train", "test"))
    lines = []
    for words, counts, least in ((f"fewer than {FEW_TRAIN} training images", train, FEW_TRAIN), ("no test image", test, 1)):
        if few := [f"{name} ({n})" for name, n in zip(corpus.classes, counts, strict=True) if n < least]:
            lines.append(f"WARNING: {words} of {', '.join(few)}")
    if folds is None and test.sum() < FEW_TEST:
        lines.append(f"WARNING: only {test.sum()} test images, so the figures are uncertain; --folds 5 tests on all images")
    if not any(corpus.rows.subjects):
        lines.append(
            "WARNING: the people in the pictures are not known. If one person is in two splits, the accuracy is too high for "
            "new people; say who is who with --subject"
        )
    return lines


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """Whether each test image is answered correctly.

    Attributes:
        before: By the start, bool (N,).
        after: By the fine-tuned network, bool (N,).
        known: Whether the start has the image's class, bool (N,).
        units: The person in each image, or the image itself, (N,).
    """

    before: NDArray[np.bool_]
    after: NDArray[np.bool_]
    known: NDArray[np.bool_]
    units: NDArray[np.str_]


def measure(start: Backend, run: Path, corpus: Corpus) -> tuple[Answers, Evaluation]:
    """Return the answers before and after on a corpus's test split, and the evaluation of the fine-tuned network."""
    rows, theirs = corpus.where("test"), mapping(corpus.classes, start.info.classes)
    evaluation = evaluate(TorchBackend(run), corpus, "test", run / "best.safetensors")
    after = evaluation.probs.argmax(1) == evaluation.target
    ours = [i for i, column in enumerate(theirs) if column is not None]
    before = np.zeros(len(rows), np.bool_)
    if ours:
        columns = [column for column in theirs if column is not None]
        logits = [crop_logits(start, list(corpus.read(rows[i : i + BATCH]))) for i in range(0, len(rows), BATCH)]
        probs = calibrated_probs(np.concatenate(logits), start.info.calibration, columns)
        before = np.array(ours)[probs.argmax(1)] == corpus.target[rows]
    subjects = corpus.rows.subjects
    units = np.array([subjects[row] if any(subjects) else corpus.origin(row) for row in rows])
    return Answers(before, after, np.isin(corpus.target[rows], ours), units), evaluation


def compare(recipe: Recipe, corpus: Corpus, start: Backend, parts: Sequence[Answers]) -> dict[str, Any]:
    """Return accuracy before and after, their difference with its interval, and their provenance, as JSON types.

    Args:
        recipe: The recipe; of the last fold if there are several.
        corpus: The corpus, split by it.
        start: The start.
        parts: The answers, of each fold.
    """
    before, after, known, units = (
        np.concatenate([getattr(each, name) for each in parts]) for name in ("before", "after", "known", "units")
    )

    def figures(keep: NDArray[np.bool_]) -> dict[str, Any]:
        count = int(keep.sum())
        return {
            "images": count,
            "people": len(set(units[keep])) if any(corpus.rows.subjects) else None,
            "before": float(before[keep].mean()),
            "before_interval": list(interval_of_images(int(before[keep].sum()), count)),
            "after": float(after[keep].mean()),
            "after_interval": list(interval_of_images(int(after[keep].sum()), count)),
            "difference": float(after[keep].mean() - before[keep].mean()),
            "difference_interval": list(interval_of_units(after[keep].astype(float) - before[keep], units[keep])),
        }

    matched = mapping(corpus.classes, start.info.classes)
    results = {
        "kind": "finetune",
        "start": {"name": recipe.model.start, "weights_sha256": sha256(start_file(recipe.model.start or ""))},
        "recipe": recipe.to_dict(),
        "recipe_hash": recipe_hash(recipe),
        "data": {
            "corpus": corpus.name,
            "fingerprint": corpus.fingerprint,
            "protocol": corpus.protocol,
            "classes": list(corpus.classes),
            "left_out": len(corpus.skipped),
        },
        "new_classes": [name for name, theirs in zip(corpus.classes, matched, strict=True) if theirs is None],
        "all": figures(np.ones(len(known), np.bool_)),
        "known_classes": figures(known) if known.any() and not known.all() else None,
        "folds": [{"images": len(each.after), "before": each.before.mean(), "after": each.after.mean()} for each in parts],
        "hardware": hardware(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": current_commit(),
        "versions": versions(),
    }
    return results | {"digest": digest(results)}


def summary(results: dict[str, Any]) -> list[str]:
    """Return what `compare` found, in lines for people to read."""
    lines = []
    for key, words in (("all", "test images"), ("known_classes", "of them, whose class the start has")):
        if (part := results[key]) is None:
            continue
        people = f" of {part['people']:,} people" if part["people"] and key == "all" else ""
        lines.append(f"accuracy on {part['images']:,} {words}{people}:")
        for name in ("before", "after", "difference"):
            low, high = (100 * end for end in part[f"{name}_interval"])
            sign, unit = ("+", "points") if name == "difference" else ("", "%")
            value = f"{100 * part[name]:{sign}.1f}"
            lines.append(f"  {name:<10} {value:>6} {unit}  (95 % interval {low:{sign}.1f} to {high:{sign}.1f})")
    low, high = results["all"]["difference_interval"]
    if low <= 0:
        lines.append(
            "WARNING: fine-tuning made it worse; keep the start"
            if high < 0
            else "the interval of the difference includes 0: these images do not show that fine-tuning helps"
        )
    return lines
