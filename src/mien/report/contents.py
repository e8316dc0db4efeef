"""What a report says: the sections for a results file or a run, and for a study.

`read_subject` finds out what a path is, `create_report` writes the sections. Every figure comes from the files; what they do not
have is named in the last section.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import DataError, EditedError
from mien.report.faces import Explain, Shown, faces_sections, people
from mien.report.figures import confusion_figure, curves_figure, rates_figure, reliability_figure
from mien.report.inputs import RECIPE, Measured, Run, pool_folds, read_runs, show
from mien.report.page import Block, Bullets, Code, Drawing, Drawings, Facts, Report, Section, Table, Text
from mien.results import predictions_path, read_predictions
from mien.statistics import interval_of_images

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.report.study import StudyRuns
    from mien.study.specification import Study

MAX_CLASSES = 30
"""Classes up to which a confusion matrix can be read."""

VIEWS = {"mirror": "mean with the mirror image", "ten": "mean of ten views"}

KEPT = (1.0, 0.9, 0.8, 0.7, 0.5)
"""Shares of the answers, the most confident first, whose accuracy is shown."""


@dataclass(frozen=True, eq=False)
class Subject:
    """What a report is about: a measurement, the run behind it, or both.

    Attributes:
        path: The path that was given.
        measured: The measurement that is shown in full; None if the run was not evaluated.
        others: Every measurement in the folder of the run.
        run: The run; None if only a results file is at hand.
        recipe: The recipe as JSON types, of the run or of the weights; empty if it is not at hand.
    """

    path: Path
    measured: Measured | None
    others: Sequence[Measured] = ()
    run: Run | None = None
    recipe: dict[str, Any] | None = None


def read_subject(path: Path, study: Study | None = None) -> Subject | StudyRuns:
    """Return what is at a path: a results file, the folder of a run, or the folder of a study.

    Args:
        path: The path.
        study: What the study is, if the path is the folder of one. By default, the bundled study of its name.

    Raises:
        DataError: It is none of these, or a results file in it was edited by hand.
    """
    if path.is_file():
        (measured,) = pool_folds([path])
        run = _run_of(measured)
        return Subject(path, measured, run=run, recipe=run.recipe if run else None)
    if (path / RECIPE).is_file():
        (run,) = read_runs([path])
        found = _measurements(path)
        if not found and run.history is None:
            raise DataError(f"{path}: this run has neither a finished epoch nor a results file; train it first: mien train")
        select = run.recipe["data"]["select"]

        def rank(each: Measured) -> tuple[bool, bool, bool, str]:
            first = each.first
            return (
                first["data"]["split"] == select,
                (first.get("view") or "single") != "single",
                first["precision"] != "fp32",
                each.paths[0].stem,
            )

        return Subject(path, min(found, key=rank) if found else None, found, run, run.recipe)
    if path.is_dir() and any(path.rglob(RECIPE)):
        from mien.report.study import read_study

        return read_study(path, study)
    raise DataError(
        f"{path}: is not a results file (.json of mien evaluate), the folder of a run (mien train) or that of a study "
        "(mien study); check the path"
    )


def _measurements(folder: Path) -> list[Measured]:
    """Return the results files of a folder; other JSON files are not listed."""
    found = []
    for path in sorted(folder.glob("*.json")):
        try:
            found += pool_folds([path])
        except EditedError:
            raise
        except DataError:
            continue
    return found


def _run_of(measured: Measured) -> Run | None:
    """Return the run in the folder of a results file, if it is the one that trained the model."""
    folder, model = measured.paths[0].parent, measured.first["model"]
    if not (folder / RECIPE).is_file():
        return None
    (run,) = read_runs([folder])
    return run if _hash_of(run) in (model["recipe_hash"], None) and run.recipe["model"]["name"] == model["arch"] else None


def _hash_of(run: Run) -> str | None:
    from mien.errors import RecipeError
    from mien.recipe import parse_recipe, recipe_hash

    try:
        return recipe_hash(parse_recipe(run.recipe, str(run.folder)))
    except RecipeError:  # of an older format
        return None


def create_report(
    subject: Subject | StudyRuns, shown: Shown | None = None, explain: Explain | None = None, missing: Sequence[str] = ()
) -> Report:
    """Return the report on a subject.

    Args:
        subject: The subject, by `read_subject`.
        shown: The corpus and what is known about its images, to show faces. None shows none.
        explain: Returns pictures that explain an answer; None leaves them out.
        missing: Sentences that say what could not be shown, and why.
    """
    from mien.report.study import StudyRuns, study_report

    if isinstance(subject, StudyRuns):
        return study_report(subject, shown, missing)
    return _single_report(subject, shown, explain, missing)


# A measurement ----------------------------------------------------------------------------------------------------------


def _single_report(subject: Subject, shown: Shown | None, explain: Explain | None, missing: Sequence[str]) -> Report:
    measured, run, recipe = subject.measured, subject.run, subject.recipe or {}
    if measured is None:
        assert run is not None
        return _unmeasured_report(run, missing)
    results = measured.first
    predictions = None
    if predictions_path(measured.paths[0]).is_file():
        predictions = read_predictions(measured.paths[0])
    model, data = results["model"], results["data"]
    sections = [
        Section("Key figures", [_metrics_table(measured), *_reported(recipe), *_others(subject)]),
        Section("Classes", class_blocks(measured)),
        Section("Confusion", confusion_blocks(measured)),
        Section("Confidence", confidence_blocks(measured, predictions)),
        Section("Groups", _group_blocks(results)),
        Section("Training", _training_blocks(run, results) if run else []),
        Section("Twins", _twin_blocks(results)),
        *faces_sections(shown, predictions, measured.first["classes"], explain),
        Section("Recipe", recipe_blocks(recipe)),
        Section("Provenance", [Facts(provenance(measured))]),
        Section("What was not measured", [Bullets([*_not_measured(subject, predictions is None, shown is None), *missing])]),
    ]
    return Report(
        title=f"{model['arch']} on {data['corpus']} {data['split']}",
        lead=" ".join([_headline(measured), _twin_free_sentence(measured)]),
        notes=[*_notes(measured, recipe), *people(shown)],
        tiles=_tiles(measured),
        sections=[_untitled(section) for section in _merge(sections)],
    )


def _merge(sections: Sequence[Section]) -> list[Section]:
    """Return the sections, those of one title joined."""
    found: dict[str, Section] = {}
    for section in sections:
        known = found.get(section.title)
        found[section.title] = replace(section, blocks=[*(known.blocks if known else ()), *section.blocks])
    return list(found.values())


def _untitled(section: Section) -> Section:
    """Return a section whose figures have no titles: on a page about one measurement they would all say the same."""
    for block in section.blocks:
        if isinstance(block, Drawings):
            for drawing in block.items:
                drawing.figure.suptitle("")
    return section


def _unmeasured_report(run: Run, missing: Sequence[str]) -> Report:
    recipe, data = run.recipe, run.recipe["data"]
    blocks, history = _training_blocks(run, None), run.history
    assert history is not None
    lead = f"{recipe['model']['name']} was trained on {data['corpus']} {data['train']} for {len(history['epoch'])} epochs."
    if data["select"] is not None:
        best = int(np.nanargmax(history["val_accuracy"]))
        lead += (
            f" Its best epoch, {int(history['epoch'][best])}, reaches {percent(history['val_accuracy'][best])} on {data['select']}, "
            "the split that chose this epoch, so the figure is optimistic."
        )
    absent = f"No test split was measured: mien evaluate {run.folder} --data PATH --split NAME does it."
    return Report(
        title=f"{recipe['model']['name']} trained on {data['corpus']}",
        lead=lead,
        sections=[
            Section("Training", blocks),
            Section("Recipe", recipe_blocks(recipe)),
            Section("What was not measured", [Bullets([absent, *missing])]),
        ],
    )


def _headline(measured: Measured) -> str:
    results, accuracy = measured.first, measured.accuracy()
    data, images = results["data"], sum(each["standard"]["images"] for each in measured.results)
    how = [VIEWS.get(results.get("view") or ""), "quantized to int8" if results["precision"] == "int8" else None]
    extra = "".join(f", {word}" for word in how if word)
    return (
        f"{results['model']['arch']}{extra} classifies {percent(accuracy)} of the {images:,} images of {data['corpus']} "
        f"{data['split']} correctly (95 % interval {interval(accuracy, images)})."
    )


def _twin_free_sentence(measured: Measured) -> str:
    part, twins = measured.first["twin_free"], measured.first["twins"] or {}
    if part:
        return (
            f"On the {part['images']:,} images without a byte-identical twin among the training images it is "
            f"{percent(part['accuracy'])} ({interval(part['accuracy'], part['images'])})."
        )
    if twins.get("exact") == measured.first["standard"]["images"]:
        return "Every image has a byte-identical twin among the training images, so there is no twin-free figure."
    return "There is no twin-free figure, because the images that trained the model were not at hand."


def _notes(measured: Measured, recipe: dict[str, Any]) -> list[str]:
    from mien.evaluate import notes

    results, data = measured.first, recipe.get("data") or {}
    found = [note.removeprefix("WARNING: ").capitalize() for note in notes(results)] if results["twins"] else []
    same = data.get("corpus") == results["data"]["corpus"]
    if same and data.get("select") == results["data"]["split"]:
        found.append(f"{data['select']} also chose the epoch of this run, so its figure is optimistic.")
    if same and data.get("train") == results["data"]["split"]:
        found.append(f"The model was trained on {data['train']}, so this figure says nothing about other images.")
    return [note if note.endswith(".") else f"{note}." for note in found]


def _tiles(measured: Measured) -> list[tuple[str, str, str]]:
    standard, free = measured.first["standard"], measured.first["twin_free"]
    tiles = [("Accuracy, standard", percent(standard["accuracy"]), _interval_of(standard))]
    tiles.append(
        ("Accuracy, twin-free", percent(free["accuracy"]), _interval_of(free))
        if free
        else ("Accuracy, twin-free", "–", "not known")
    )
    for key, name, detail in (
        ("macro_f1", "Macro F1", "mean over classes"),
        ("uar", "Balanced accuracy", "mean recall of the classes"),
        ("ece", "Calibration error", "confidence against accuracy"),
    ):
        if standard.get(key) is not None:
            tiles.append((name, percent(standard[key]), detail))
    return [*tiles, ("Images", f"{standard['images']:,}", f"{len(measured.first['classes'])} classes")]


def _interval_of(part: dict[str, Any]) -> str:
    return f"95 %: {interval(part['accuracy'], part['images'])}"


def _metrics_table(measured: Measured) -> Table:
    parts = [measured.first[key] for key in ("standard", "twin_free")]
    names = {
        "accuracy": "accuracy",
        "macro_f1": "macro F1",
        "uar": "balanced accuracy (UAR)",
        "kappa": "Cohen's kappa",
        "ece": "calibration error (ECE)",
        "votes_agreement": "agreement with FER+ votes",
    }
    rows = [["images", *("–" if part is None else f"{part['images']:,}" for part in parts)]]
    for key, name in names.items():
        values = [part.get(key) if part else None for part in parts]
        if key == "accuracy":
            rows.append([name, *map(percent, values)])
            rows.append(
                ["95 % interval", *("–" if part is None else interval(part["accuracy"], part["images"]) for part in parts)]
            )
        elif any(value is not None for value in values):
            form = (lambda value: "–" if value is None else f"{value:.3f}") if key == "kappa" else percent
            rows.append([name, *map(form, values)])
    return Table(
        "All images (standard), and those without a byte-identical twin in training (twin-free)",
        ["figure", "standard", "twin-free"],
        rows,
    )


def _reported(recipe: dict[str, Any]) -> list[Block]:
    """Return what the paper reports for a recipe, in a table of its own: other conditions, other figures."""
    paper = recipe.get("paper")
    if not paper or not paper.get("reported"):
        return []
    rows = [[key.replace("_", " "), f"{value:.2f}\u00a0%"] for key, value in paper["reported"].items()]
    caption = (
        f"What the paper reports for this row: {paper['title']}, {paper['table']}. Compare only figures of the same protocol"
    )
    return [Table(caption, ["data and protocol", "reported accuracy"], rows)]


def _others(subject: Subject) -> list[Block]:
    if len(subject.others) < 2:
        return []
    rows = []
    for each in subject.others:
        first = each.first
        view = VIEWS.get(first.get("view") or "", "single view")
        how = f"{view}, {first['precision']}, {'ONNX Runtime' if first['backend'] == 'onnx' else first['backend']}"
        mark = " (this page)" if each is subject.measured else ""
        free = each.accuracy("twin_free")
        rows.append(
            [
                f"{each.paths[0].name}{mark}",
                f"{first['data']['corpus']} {first['data']['split']}",
                how,
                f"{first['standard']['images']:,}",
            ]
        )
        rows[-1] += [percent(each.accuracy()), percent(free)]
    head = ["file", "measured on", "how", "images", "accuracy", "twin-free"]
    return [Table("All measurements of this run", head, rows, left=(0, 1, 2))]


def class_blocks(measured: Measured) -> list[Block]:
    """Return the table of the classes and the figure of their rates."""
    counts, classes = measured.confusion, measured.first["classes"]
    right, true, predicted = np.diag(counts), counts.sum(1), counts.sum(0)
    free = (measured.first["twin_free"] or {}).get("recall") or {} if len(measured.results) == 1 else {}
    rows = []
    for i, name in enumerate(classes):
        recall = [percent(right[i] / true[i]), interval(right[i] / true[i], true[i])] if true[i] else ["–", "–"]
        others = counts.sum() - true[i]
        rows.append([name, f"{true[i]:,}", *recall, *([percent(free.get(name))] if free else [])])
        rows[-1].append(percent((predicted[i] - right[i]) / others if others else None))
        rows[-1].append(percent(right[i] / predicted[i] if predicted[i] else None))
        rows[-1].append(percent(2 * right[i] / (true[i] + predicted[i]) if true[i] else None))
    head = [
        "class",
        "images",
        "recall",
        "95 % interval",
        *(["recall, twin-free"] if free else []),
        "false positive rate",
        "precision",
        "F1",
    ]
    blocks: list[Block] = [Table("Each class, on all images", head, rows)]
    if len(classes) <= MAX_CLASSES:
        alt = f"Recall and false positive rate of each class. {_best_and_worst(measured)}"
        caption = "Recall (true positive rate) and false positive rate of each class, with 95 % intervals (Wilson)."
        blocks.append(Drawings([Drawing("rates", caption, alt, rates_figure([measured]))]))
    return blocks


def _best_and_worst(measured: Measured) -> str:
    counts, classes = measured.confusion, measured.first["classes"]
    recall = {name: counts[i, i] / counts[i].sum() for i, name in enumerate(classes) if counts[i].sum()}
    best, worst = max(recall, key=lambda name: recall[name]), min(recall, key=lambda name: recall[name])
    return f"{best} is found most often ({percent(recall[best])}), {worst} least often ({percent(recall[worst])})."


def confusion_blocks(measured: Measured, name: str = "confusion") -> list[Block]:
    """Return the confusion matrices, as counts and row-normalised, and the most frequent confusions."""
    counts, classes = measured.confusion, measured.first["classes"]
    wrong = counts - np.diag(np.diag(counts))
    rows = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[:6]:
        i, j = divmod(int(place), len(classes))
        if wrong[i, j]:
            rows.append([f"{classes[i]} taken for {classes[j]}", f"{wrong[i, j]:,}", percent(wrong[i, j] / counts[i].sum())])
    blocks: list[Block] = []
    if len(classes) <= MAX_CLASSES:
        most = f" Most frequent: {rows[0][0]}, {rows[0][1]} times." if rows else ""
        drawings = [
            Drawing(
                f"{name}-counts",
                "Counts. Rows are true classes.",
                f"Confusion matrix of counts.{most}",
                confusion_figure(measured, "counts"),
            ),
            Drawing(
                f"{name}-normalised",
                "Row-normalised: each row sums to 100 %, so the diagonal is the recall.",
                f"Confusion matrix, row-normalised. {_best_and_worst(measured)}",
                confusion_figure(measured, "normalised"),
            ),
        ]
        blocks.append(Drawings(drawings))
    if rows:
        blocks.append(Table("Most frequent confusions", ["confusion", "images", "share of the true class"], rows))
    return blocks


def confidence_blocks(
    measured: Measured, predictions: tuple[Any, NDArray[np.int64], NDArray[np.float32]] | None
) -> list[Block]:
    """Return the reliability diagram, the risk-coverage curve, and what the prediction sets hold."""
    blocks: list[Block] = []
    if predictions is not None:
        _, target, probs = predictions
        right, confidence = probs.argmax(1) == target, probs.max(1)
        gap = float(confidence.mean() - right.mean())
        trend = "overconfident" if gap > 0 else "underconfident"
        summary = (
            f"The mean confidence is {percent(confidence.mean())} and the accuracy {percent(right.mean())}: the answers are "
            f"{trend} by {abs(100 * gap):.1f} points on average."
        )
        order = np.argsort(-confidence, kind="stable")
        kept = [max(1, round(share * len(order))) for share in KEPT]
        rows = [
            [
                f"{share:.0%}".replace("%", "\u00a0%"),
                percent(confidence[order[count - 1]]),
                percent(right[order[:count]].mean()),
                interval(right[order[:count]].mean(), count),
            ]
            for share, count in zip(KEPT, kept, strict=True)
        ]
        half = f"The most confident half of the answers is {rows[-1][2]} right, all of them {rows[0][2]}."
        drawings = [
            Drawing(
                "reliability",
                "Reliability: on the diagonal, the confidence is honest.",
                f"Accuracy against confidence. {summary}",
                reliability_figure([measured], "reliability"),
            ),
            Drawing(
                "coverage",
                "Risk and coverage: accuracy if only the most confident answers are kept.",
                f"Accuracy against coverage. {half}",
                reliability_figure([measured], "coverage"),
            ),
        ]
        head = ["answers kept", "lowest confidence kept", "accuracy of these", "95 % interval"]
        blocks += [Text(summary), Drawings(drawings), Table("Accuracy if only the most confident answers are kept", head, rows)]
    if sets := measured.first.get("sets"):
        rows = [
            [f"{float(asked):.0%}".replace("%", "\u00a0%"), percent(found["coverage"]), f"{found['size']:.2f}"]
            for asked, found in sets.items()
        ]
        blocks.append(
            Table(
                "Prediction sets (--coverage): how often they hold the right class",
                ["asked for", "measured", "classes per set"],
                rows,
            )
        )
    return blocks


def _group_blocks(results: dict[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for column, found in (results.get("groups") or {}).items():
        detected = any(each.get("detection_rate") is not None for each in found["groups"].values())
        rows = [
            [
                name,
                f"{each['images']:,}",
                percent(each["accuracy"]),
                _range(each.get("accuracy_interval")),
                percent(each.get("uar")),
                percent(each.get("ece")),
            ]
            + ([percent(each.get("detection_rate"))] if detected else [])
            for name, each in found["groups"].items()
        ]
        head = [
            column,
            "images",
            "accuracy",
            "95 % interval",
            "balanced accuracy",
            "calibration error",
            *(["faces found"] if detected else []),
        ]
        blocks.append(Table(f"By {column}", head, rows))
        gaps = [
            f"{metric.replace('_', ' ')}: {100 * gap['largest']:.1f} points between {' and '.join(gap['between'])}"
            for metric, gap in (found.get("gaps") or {}).items()
        ]
        if gaps:
            blocks += [Text(f"Largest gaps by {column}:"), Bullets(gaps)]
        if found.get("missing"):
            blocks.append(Text(f"{found['missing']:,} images have no value of {column} and are in no group."))
    return blocks


def _training_blocks(run: Run, results: dict[str, Any] | None) -> list[Block]:
    if run.history is None:
        return []
    from mien.engine.history import best_epoch, read_history

    epochs, data = read_history(run.folder), run.recipe["data"]
    best, seconds = best_epoch(epochs), sum(epoch.seconds for epoch in epochs)
    facts = [
        ("epochs", f"{len(epochs)} of {run.recipe['train']['epochs']}"),
        ("kept epoch", f"{best.epoch}, {'the best on ' + data['select'] if data['select'] else 'the last'}"),
        ("training accuracy then", f"{percent(best.train_accuracy)} (on augmented images)"),
    ]
    if not math.isnan(best.val_accuracy):
        facts.append((f"accuracy on {data['select']} then", percent(best.val_accuracy)))
    speed = float(np.median([epoch.images_per_second for epoch in epochs]))
    facts += [("duration", duration(seconds)), ("speed", f"{speed:,.0f} training images per second (median)")]
    alt = f"Accuracy by epoch. {', '.join(f'{name}: {value}' for name, value in facts[:4])}."
    drawing = Drawing(
        "curves",
        "Accuracy by epoch. The selection split chooses the epoch; it is not the test split.",
        alt,
        curves_figure([run]),
    )
    return [Drawings([drawing]), Facts(facts)]


def _twin_blocks(results: dict[str, Any]) -> list[Block]:
    twins, standard, free = results["twins"] or {}, results["standard"], results["twin_free"]
    blocks: list[Block] = []
    if "exact" in twins:
        names = (("exact", "byte-identical"), ("near", "nearly the same"), ("mirrored", "mirrored"), ("any", "any of these"))
        rows = [[name, f"{twins[key]:,}", percent(twins[key] / standard["images"])] for key, name in names if key in twins]
        blocks.append(Table("Images with a twin among the training images", ["kind of twin", "images", "share"], rows))
    if free and free["images"] < standard["images"]:
        count = standard["images"] - free["images"]
        right = standard["accuracy"] * standard["images"] - free["accuracy"] * free["images"]
        blocks.append(
            Text(
                f"On the {count:,} images with a byte-identical twin the accuracy is {percent(right / count)}, on the others "
                f"{percent(free['accuracy'])}. A model may remember the label of a training image, so the twin-free figure is the one that "
                "says more about new faces."
            )
        )
    return blocks


def recipe_blocks(recipe: dict[str, Any]) -> list[Block]:
    """Return what a recipe is, how it differs from its paper, and all its values."""
    if not recipe:
        return []
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes lists on one line."""

    Dumper.add_representer(list, lambda self, value: self.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=True))
    blocks: list[Block] = [Text(f"{recipe.get('name') or 'A recipe without a name'}: {recipe.get('summary') or 'no summary'}")]
    if recipe.get("deviations"):
        text = "Where it differs from its paper, or the paper does not say:" if recipe.get("paper") else "Remarks:"
        blocks += [Text(text), Bullets(list(map(show, recipe["deviations"])))]
    rest = {key: value for key, value in recipe.items() if key not in ("summary", "deviations")}
    return [*blocks, Code(yaml.dump(rest, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100).splitlines())]


def provenance(measured: Measured) -> list[tuple[str, str]]:
    """Return where a measurement comes from: files, hashes, versions, hardware."""
    results, path = measured.first, measured.paths[0]
    model, data, hardware = results["model"], results["data"], results["hardware"]
    training, versions = results["training"] or {}, results["versions"] or {}
    checked = (
        "matches: the file is as mien evaluate wrote it"
        if results["digest"]
        else "none: the file is of an earlier version, so an edit by hand may go unnoticed"
    )
    values: list[tuple[str, Any]] = [
        ("results file", path.name),
        ("digest", checked),
        ("measured on", results.get("date")),
        ("measured with mien", f"{results.get('mien_version')}, commit {results.get('commit') or 'unknown'}"),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items() if version and name != "mien")),
        (
            "hardware",
            ", ".join(str(hardware[key]) for key in ("processor", "device", "system") if hardware.get(key))
            + f", {hardware.get('cores', '?')} cores",
        ),
        (
            "backend",
            f"{'ONNX Runtime' if results['backend'] == 'onnx' else results['backend']}, {results['precision']}, {VIEWS.get(results.get('view') or '', 'single view')}",
        ),
        ("corpus", f"{data['corpus']}, {data['split']}, protocol: {data['protocol']}"),
        ("data fingerprint", data.get("fingerprint")),
        ("split fingerprint", data.get("split_fingerprint")),
        ("split file", data.get("split_file")),
        ("options of the corpus", ", ".join(f"{key}={show(value)}" for key, value in (data.get("options") or {}).items())),
        ("images left out", f"{data['left_out']:,}" if data.get("left_out") else None),
        ("training images", (results["twins"] or {}).get("training")),
        (
            "network",
            f"{model['arch']} ({', '.join(f'{key}={show(value)}' for key, value in model['arguments'].items())}), input {show(model.get('input'))} px",
        ),
        ("weights, SHA-256", model.get("weights_sha256")),
        ("weights trained at commit", model.get("commit")),
        ("recipe", model.get("recipe")),
        ("recipe hash", model.get("recipe_hash")),
        ("seed", None if model.get("seed") is None else str(model["seed"])),
        ("training", f"{training['epochs']} epochs, {duration(training['seconds'])}" if training.get("seconds") else None),
    ]
    return [(name, str(value)) for name, value in values if value]


def _not_measured(subject: Subject, no_predictions: bool, no_faces: bool) -> list[str]:
    assert subject.measured is not None
    results = subject.measured.first
    data, standard, twins = results["data"], results["standard"], results["twins"] or {}
    found = [
        "Other seeds. This is one trained network; the interval says how far another sample of images may move the figure, and does not know how much another seed would.",
        "Other people and cameras. The figures hold for pictures like those of this corpus, and for faces that are already found and cropped: face detection is not part of them.",
    ]
    if results["twin_free"] is None and twins.get("exact") != standard["images"]:
        found.append("Twins. Which images also trained the model is not known; mien evaluate --training-data PATH counts them.")
    elif "any" not in twins:
        found.append("Near and mirrored twins. This file of an earlier version counts byte-identical ones only.")
    if data["unknown_classes"]:
        found.append(
            f"Images of {', '.join(data['unknown_classes'])}: the model has no such class, or it was not to be measured."
        )
    if data["absent_classes"]:
        found.append(f"Recall of {', '.join(data['absent_classes'])}: no image shows it.")
    if no_predictions:
        found.append("Reliability and coverage: the predictions of this measurement are not next to its results file.")
    if standard.get("votes_agreement") is None and data["corpus"] == "fer2013":
        found.append("Agreement with FER+'s votes: they were not at hand.")
    if not results.get("groups"):
        found.append("Accuracy by group, such as age or gender: no column of the data was given for it.")
    if not subject.recipe:
        found.append("How the network was trained: neither the folder of the run nor the weights are at hand.")
    elif subject.run is None or subject.run.history is None:
        found.append("The course of the training: its history is not at hand.")
    if no_faces:
        found.append(
            "Single faces: the page has no pictures of people. mien report --data CORPUS adds the best and worst faces and the explanations."
        )
    return [*found, "Speed and memory: see mien figure cost, or benchmarks/."]


# Words ------------------------------------------------------------------------------------------------------------------


def percent(value: float | None) -> str:
    """Return a share in per cent with two decimals; a dash if there is none.

    >>> percent(0.70118), percent(None)
    ('70.12\\xa0%', '–')
    """
    return "–" if value is None or math.isnan(value) else f"{100 * value:.2f}\u00a0%"


def interval(accuracy: float | None, images: int) -> str:
    """Return the 95 % Wilson interval of an accuracy, such as `67.1 to 73.0 %`."""
    if accuracy is None or not images:
        return "–"
    return _range(interval_of_images(round(float(accuracy) * int(images)), int(images)))


def _range(ends: Sequence[float] | None) -> str:
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}\u00a0%" if ends else "–"


def duration(seconds: float) -> str:
    """Return a duration in words.

    >>> duration(100), duration(10_000)
    ('2 minutes', '2.8 hours')
    """
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
