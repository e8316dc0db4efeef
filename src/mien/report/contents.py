"""What a report says: the sections for a results file or a run, and for a study.

`read_subject` finds out what a path is, `create_report` writes the sections. Every figure comes from the files.
What they do not have is named in the last section.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mien.errors import DataError, EditedError, RecipeError
from mien.languages import translate
from mien.recipe import parse_recipe, recipe_hash
from mien.report.blocks import (
    VIEWS,
    class_blocks,
    confidence_blocks,
    confusion_blocks,
    engine_of,
    group_blocks,
    interval,
    metrics_table,
    percent,
    provenance,
    recipe_blocks,
    reported_blocks,
    training_blocks,
    twin_blocks,
)
from mien.report.faces import Explain, Shown, faces_sections, people
from mien.report.inputs import RECIPE, Measured, Run, pool_folds, read_runs
from mien.report.page import Block, Bullets, Drawings, Facts, Report, Section, Table
from mien.results import predictions_path, read_predictions

if TYPE_CHECKING:
    from mien.report.study import StudyRuns
    from mien.study.specification import Study


@dataclass(frozen=True, eq=False)
class Subject:
    """What a report is about: a measurement, the run behind it, or both."""

    path: Path  # that was given
    measured: Measured | None  # shown in full; None if the run was not evaluated
    others: Sequence[Measured] = ()  # every measurement in the folder of the run
    run: Run | None = None  # None if only a results file is at hand
    recipe: dict[str, Any] | None = None  # of the run or of the weights, as JSON types; empty if it is not at hand


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
        found: list[Measured] = []
        for file in sorted(path.glob("*.json")):
            try:
                found += pool_folds([file])
            except EditedError:
                raise
            except DataError:  # JSON of another kind
                continue
        if not found and run.history is None:
            raise DataError(f"{path}: this run has neither a finished epoch nor a results file; train it first: mien train")
        select = run.recipe["data"]["select"]

        def rank(each: Measured) -> tuple[bool, bool, bool, str]:
            split, several_views = each.first["data"]["split"], (each.first.get("view") or "single") != "single"
            return split == select, several_views, each.first["precision"] != "fp32", each.paths[0].stem

        return Subject(path, min(found, key=rank) if found else None, found, run, run.recipe)
    if path.is_dir() and any(path.rglob(RECIPE)):
        from mien.report.study import read_study

        return read_study(path, study)
    raise DataError(
        f"{path}: is not a results file (.json of mien evaluate), the folder of a run (mien train) or that of a study "
        "(mien study); check the path"
    )


def _run_of(measured: Measured) -> Run | None:
    """Return the run in the folder of a results file, if it is the one that trained the model."""
    folder, model = measured.paths[0].parent, measured.first["model"]
    if not (folder / RECIPE).is_file():
        return None
    (run,) = read_runs([folder])
    try:
        same = recipe_hash(parse_recipe(run.recipe, str(run.folder))) == model["recipe_hash"]
    except RecipeError:  # of an older format
        same = True
    return run if same and run.recipe["model"]["name"] == model["arch"] else None


def create_report(
    subject: Subject | StudyRuns, shown: Shown | None = None, explain: Explain | None = None, missing: Sequence[str] = ()
) -> Report:
    """Return the report on a subject.

    Args:
        subject: The subject, by `read_subject`.
        shown: The corpus whose faces are shown. None shows none.
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
    predictions = read_predictions(measured.paths[0]) if predictions_path(measured.paths[0]).is_file() else None
    model, data = results["model"], results["data"]
    sections = [
        Section("Key figures", [metrics_table(measured), *reported_blocks(recipe), *_others(subject)]),
        Section("Classes", class_blocks(measured)),
        Section("Confusion", confusion_blocks(measured)),
        Section("Confidence", confidence_blocks(measured, predictions)),
        Section("Groups", group_blocks(results)),
        Section("Training", training_blocks(run) if run else []),
        Section("Twins", twin_blocks(results)),
        *faces_sections(shown, predictions, measured.first["classes"], explain),
        Section("Recipe", recipe_blocks(recipe)),
        Section("Provenance", [Facts(provenance(measured))]),
        Section("What was not measured", [Bullets([*_not_measured(subject, predictions is None, shown is None), *missing])]),
    ]
    joined: dict[str, Section] = {}  # there may be two sections of twins
    for section in sections:
        known = joined.get(section.title)
        joined[section.title] = replace(section, blocks=[*(known.blocks if known else ()), *section.blocks])
        for drawing in (drawing for block in section.blocks if isinstance(block, Drawings) for drawing in block.items):
            drawing.figure.suptitle("")  # on a page about one measurement all titles would say the same
    return Report(
        title=translate("{model} on {data}", model=model["arch"], data=f"{data['corpus']} {data['split']}"),
        lead=" ".join([_headline(measured), _twin_free_sentence(measured)]),
        notes=[*_notes(measured, recipe), *people(shown)],
        tiles=_tiles(measured),
        sections=list(joined.values()),
    )


def _unmeasured_report(run: Run, missing: Sequence[str]) -> Report:
    recipe, data = run.recipe, run.recipe["data"]
    blocks, history = training_blocks(run), run.history
    assert history is not None
    name, trained_on, epochs = recipe["model"]["name"], f"{data['corpus']} {data['train']}", len(history["epoch"])
    lead = translate("{model} was trained on {data} for {count} epochs.", model=name, data=trained_on, count=epochs)
    if data["select"] is not None:
        best = int(np.nanargmax(history["val_accuracy"]))
        accuracy = percent(history["val_accuracy"][best])
        text = (
            "Its best epoch, {epoch}, reaches {accuracy} on {split}. That split chose the epoch, so the figure is optimistic."
        )
        lead += " " + translate(text, epoch=int(history["epoch"][best]), accuracy=accuracy, split=data["select"])
    command = f"mien evaluate {run.folder} --data PATH --split NAME"
    absent = translate("No test split was measured: {command} does it.", command=command)
    return Report(
        title=translate("{model} trained on {data}", model=name, data=data["corpus"]),
        lead=lead,
        sections=[
            Section("Training", [*blocks, *reported_blocks(recipe)]),
            Section("Recipe", recipe_blocks(recipe)),
            Section("What was not measured", [Bullets([absent, *missing])]),
        ],
    )


def _headline(measured: Measured) -> str:
    results, accuracy = measured.first, measured.accuracy()
    data, images = results["data"], sum(each["standard"]["images"] for each in measured.results)
    how = [VIEWS.get(results.get("view") or ""), "quantized to int8" if results["precision"] == "int8" else None]
    text = "{model} classifies {accuracy} of the {count} images of {data} correctly (95 % interval {interval})."
    return translate(
        text,
        model=", ".join([results["model"]["arch"], *(translate(word) for word in how if word)]),
        accuracy=percent(accuracy),
        count=f"{images:,}",
        data=f"{data['corpus']} {data['split']}",
        interval=interval(accuracy, images),
    )


def _twin_free_sentence(measured: Measured) -> str:
    part, twins = measured.first["twin_free"], measured.first["twins"] or {}
    if part:
        text = "On the {count} images without a byte-identical twin among the training images it is {accuracy} ({interval})."
        shown = {"accuracy": percent(part["accuracy"]), "interval": interval(part["accuracy"], part["images"])}
        return translate(text, count=f"{part['images']:,}", **shown)
    if twins.get("exact") == measured.first["standard"]["images"]:
        return translate(
            "Every image has a byte-identical twin among the training images, so no image is left for a twin-free figure."
        )
    return translate("There is no twin-free figure, because the images that trained the model were not at hand.")


def _notes(measured: Measured, recipe: dict[str, Any]) -> list[str]:
    from mien.evaluate import notes

    results, data = measured.first, recipe.get("data") or {}
    warnings = [note.removeprefix("WARNING: ") for note in notes(results)] if results["twins"] else []
    found = [translate("{sentence}.", sentence=text[:1].upper() + text[1:]) for text in warnings]
    same = data.get("corpus") == results["data"]["corpus"]
    if same and data.get("select") == results["data"]["split"]:
        text = "{split} also chose the epoch of this run, so its figure is optimistic."
        found.append(translate(text, split=data["select"]))
    if same and data.get("train") == results["data"]["split"]:
        text = "The model was trained on {split}, so this figure says nothing about other images."
        found.append(translate(text, split=data["train"]))
    return found


def _tiles(measured: Measured) -> list[tuple[str, str, str]]:
    standard, free = measured.first["standard"], measured.first["twin_free"]
    tiles = []
    for name, part in (("Accuracy, standard", standard), ("Accuracy, twin-free", free)):
        detail = f"95 %: {interval(part['accuracy'], part['images'])}" if part else "not known"
        tiles.append((name, percent(part and part["accuracy"]), detail))
    for key, name, detail in (
        ("macro_f1", "Macro F1", "mean over classes"),
        ("uar", "Balanced accuracy", "mean recall of the classes"),
        ("ece", "Calibration error", "confidence against accuracy"),
    ):
        if standard.get(key) is not None:
            tiles.append((name, percent(standard[key]), detail))
    return [*tiles, ("Images", f"{standard['images']:,}", translate("{count} classes", count=len(measured.first["classes"])))]


def _not_measured(subject: Subject, no_predictions: bool, no_faces: bool) -> list[str]:
    assert subject.measured is not None
    results = subject.measured.first
    data, standard, twins = results["data"], results["standard"], results["twins"] or {}
    found = [
        "Other seeds. This is one trained network. The interval says how far another sample of images may move the figure; it "
        "does not know how much another seed would.",
        "Other people and cameras. The figures hold for pictures like those of this corpus, and for faces that are already "
        "found and cropped: face detection is not part of them.",
    ]
    if results["twin_free"] is None and twins.get("exact") != standard["images"]:
        found.append("Twins. Which images also trained the model is not known; mien evaluate --training-data PATH counts them.")
    elif "any" not in twins:
        found.append("Near and mirrored twins. This file of an earlier version counts byte-identical ones only.")
    if data["unknown_classes"]:
        unknown = ", ".join(map(translate, data["unknown_classes"]))
        text = "Images of {classes}: the model has no such class, or it was not to be measured."
        found.append(translate(text, classes=unknown))
    if data["absent_classes"]:
        absent = ", ".join(map(translate, data["absent_classes"]))
        found.append(translate("Recall of {classes}: no image shows it.", classes=absent))
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
            "Single faces: the page has no pictures of people. mien report --data CORPUS adds the best and worst faces, and "
            "explanations."
        )
    return [*found, "Speed and memory: see mien figure cost, or benchmarks/."]


def _others(subject: Subject) -> list[Block]:
    if len(subject.others) < 2:
        return []
    rows = []
    for each in subject.others:
        first, file = each.first, each.paths[0].name + f" ({translate('this page')})" * (each is subject.measured)
        view = translate(VIEWS.get(first.get("view") or "", "single view"))
        how = f"{view}, {first['precision']}, {engine_of(first)}"
        on, images = f"{first['data']['corpus']} {first['data']['split']}", f"{first['standard']['images']:,}"
        rows.append([file, on, how, images, percent(each.accuracy()), percent(each.accuracy("twin_free"))])
    head = ["file", "measured on", "how", "images", "accuracy", "twin-free"]
    return [Table("All measurements of this run", head, rows, left=(0, 1, 2))]
