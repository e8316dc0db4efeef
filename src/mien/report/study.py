"""What a report says about a study: the table with its statistics, and figures of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mien.errors import DataError
from mien.languages import translate
from mien.recipe import parse_recipe, recipe_hash
from mien.report.blocks import MAX_CLASSES, as_range, confusion_blocks, duration, percent, provenance, reliability_drawings
from mien.report.faces import Predictions, Shown, faces_sections, people
from mien.report.figures import curves_figure, intervals_figure
from mien.report.inputs import Measured, Run, differing, pool_folds, read_runs, show, study_of
from mien.report.page import Block, Bullets, Drawing, Drawings, Facts, Report, Section, Table, Text
from mien.report.titles import count
from mien.results import read_predictions, read_results
from mien.study.run import Folders
from mien.study.specification import FULL, Job, Study, create_jobs, load_study, study_names
from mien.study.table import TableRow, create_table, heading, reported_text

MAX_ROWS = 12
"""Rows whose curves and confusion matrices are drawn; more would be neither readable nor small."""


@dataclass(frozen=True, eq=False)
class StudyRuns:
    """A study and what is measured of it."""

    path: Path  # the folder that was given
    study: Study | None  # None if it is neither bundled nor given, so that only its finished runs are known
    scale: str
    jobs: Sequence[Job]  # its runs, as far as they are known
    rows: Sequence[TableRow]
    measured: dict[str, list[Measured]]  # by row, one for each seed: folds are pooled
    runs: Sequence[Run]
    changed: Sequence[Path]  # results files that were made with another recipe than the study has now

    @property
    def name(self) -> str:
        """The name of the study."""
        return self.jobs[0].study

    @property
    def results(self) -> list[Measured]:
        """All measurements."""
        return [each for row in self.measured.values() for each in row]


def read_study(path: Path, study: Study | None = None) -> StudyRuns:
    """Return the study whose runs are in a folder.

    Args:
        path: The folder that `mien study` wrote: `<name>/<scale>`, or a folder with one study in it.
        study: What the study is. By default, the bundled study of its name.

    Raises:
        DataError: The folder has no measured run of a study, runs of several studies, or was renamed.
        EditedError: A results file was edited by hand.
    """
    runs = read_runs([path])
    found = [(run, study_of(pool_folds([run.folder / f"{split}.json"])[0].first)) for run in runs for split in run.splits]
    names = sorted({(part["name"], part["scale"]) for _, part in found if part})
    if len(names) != 1:
        what = "several studies" if names else "no measured run of a study"
        raise DataError(f"{path}: has {what} in it; give the folder of one run, or that of one study, <study>/<scale>")
    ((name, scale),) = names
    folder = next(run.folder.resolve() for run, part in found if part)
    above = (*Path(name).parts, scale)
    if folder.parts[-len(above) - 2 : -2] != above:
        raise DataError(f"{path}: the folders of the study {name} were renamed; they should be {name}/{scale}/<row>/seed<N>")
    root = Path(*folder.parts[: -len(above) - 2])
    if study is not None and study.name != name:
        raise DataError(f"{path}: has runs of the study {name}, but the file given is of {study.name}")
    if study is None and name in study_names():
        study = load_study(name)
    jobs = create_jobs(study, scale) if study else [_job(run, root, name, scale) for run in runs]
    folders = Folders(root)
    files = [(job, file) for job in jobs if (file := folders.results_file(job))]
    measured = {row: [file for job, file in files if job.row == row] for row in dict.fromkeys(job.row for job in jobs)}
    hashes = [(file, read_results(file)["model"]["recipe_hash"], recipe_hash(job.recipe)) for job, file in files]
    changed = [file for file, made, now in hashes if made not in (now, None)]
    table = create_table(jobs, folders, study.reference if study else None)
    return StudyRuns(
        path, study, scale, jobs, table, {row: pool_folds(paths) for row, paths in measured.items() if paths}, runs, changed
    )


def _job(run: Run, root: Path, name: str, scale: str) -> Job:
    """Return a run as one of a study of which only the folder is known."""
    *_, row, last = run.folder.resolve().relative_to(root).parts
    fold = last.partition("-fold")[2]
    split = run.splits[0] if len(run.splits) == 1 else None
    return Job(name, scale, row, parse_recipe(run.recipe, str(run.folder)), int(fold) if fold else None, split)


def study_report(subject: StudyRuns, shown: Shown | None, missing: Sequence[str]) -> Report:
    """Return the report on a study."""
    title = subject.study.title if subject.study else ""
    changes = subject.study.scales.get(subject.scale, {}) if subject.study else {}
    classes = subject.results[0].first["classes"]
    matrices: list[Block] = []
    for number, (row, measured) in enumerate(_drawn(subject).items(), 1):
        first = measured[0]
        text = f"{row}, {translate('seed')} {first.first['model']['seed']}"
        if (folds := len(first.results)) > 1:
            text += ", " + translate("{folds} pooled", folds=count([folds], "fold"))
        matrices += [Text(f"{text}:"), *confusion_blocks(first, f"confusion-{number}")]
    faces = faces_sections(shown, _mean_predictions(subject) if shown else None, classes)
    if faces:
        note = Text("The probabilities are means over all measured runs.")
        faces[0] = replace(faces[0], blocks=[note, *faces[0].blocks])
    sections = [
        Section("Results", _table_blocks(subject)),
        Section("Classes", _class_blocks(subject)),
        Section("Training", _curve_blocks(subject)),
        Section("Confidence", _reliability_blocks(subject)),
        Section("Confusion", matrices),
        *faces,
        Section("Recipes", _recipe_blocks(subject)),
        Section("Provenance", _provenance(subject)),
        Section("What was not measured", [Bullets([*_not_measured(subject, shown is None), *missing])]),
    ]
    return Report(
        title=heading(title or subject.name, subject.scale, {key: show(value) for key, value in changes.items()}),
        lead=_headline(subject),
        notes=[*_notes(subject), *people(shown)],
        tiles=_tiles(subject),
        sections=sections,
    )


def _drawn(subject: StudyRuns) -> dict[str, list[Measured]]:
    """Return the rows that are drawn, by name."""
    return dict(list(subject.measured.items())[:MAX_ROWS])


def _complete(subject: StudyRuns) -> list[TableRow]:
    return [row for row in subject.rows if row.accuracy is not None]


def _extremes(complete: Sequence[TableRow]) -> tuple[TableRow, TableRow]:
    """Return the rows with the lowest and the highest accuracy."""
    low, high = (choose(complete, key=lambda row: row.accuracy or 0) for choose in (min, max))
    return low, high


def _headline(subject: StudyRuns) -> str:
    complete, runs = _complete(subject), sum(row.runs for row in subject.rows)
    planned = sum(row.expected for row in subject.rows)
    data = subject.results[0].first["data"]
    shown = {"name": subject.name, "data": f"{data['corpus']} {data['split']}", "runs": runs, "planned": planned}
    start = translate("{name}, measured on {data}: {runs} of {planned} runs are measured", **shown)
    if not complete:
        return translate("{start}, and no row has all its folds yet.", start=start)
    low, high = _extremes(complete)
    if len(complete) == 1:
        return f"{start}. {_row_result(low)}."
    ends = {"low": _row_result(low), "high": _row_result(high), "complete": len(complete), "all": len(subject.rows)}
    return translate("{start}, and {complete} of {all} rows are complete: from {low} to {high}.", start=start, **ends)


def _row_result(row: TableRow) -> str:
    free = "" if row.twin_free is None else f", {translate('twin-free')} {percent(row.twin_free)}"
    shown = {"name": row.name, "accuracy": percent(row.accuracy), "interval": as_range(row.interval) + free}
    return translate("{name} with {accuracy} (95 % interval {interval})", **shown)


def _notes(subject: StudyRuns) -> list[str]:
    found = []
    if subject.scale != FULL:
        text = "These are runs at the smaller scale {scale}, so they are not comparable with reported figures."
        found.append(translate(text, scale=subject.scale))
    if subject.changed:
        names = ", ".join(sorted({path.parent.parent.name for path in subject.changed}))
        text = "{runs} were made with another recipe than the study has now ({names})."
        found.append(translate(text, runs=count([len(subject.changed)], "run"), names=names))
    if subject.study is None:
        text = "This study is not bundled with mien, so runs that were not started are not listed. Give its file with --study."
        found.append(text)
    return found


def _tiles(subject: StudyRuns) -> list[tuple[str, str, str]]:
    planned = sum(row.expected for row in subject.rows)
    seeds = len({job.recipe.seed for job in subject.jobs})
    return [
        ("Rows complete", _of(len(_complete(subject)), len(subject.rows)), ""),
        ("Runs measured", _of(sum(row.runs for row in subject.rows), planned), ""),
        ("Seeds", str(seeds), "the interval covers images only" if seeds == 1 else "the interval covers seeds"),
        ("Images", f"{max(int(each.confusion.sum()) for each in subject.results):,}", "measured in a row with one seed"),
    ]


def _of(count: int, planned: int) -> str:
    return translate("{count} of {all}", count=count, all=planned)


def _table_blocks(subject: StudyRuns) -> list[Block]:
    reference = subject.study.reference if subject.study else None
    lines = []
    for row in subject.rows:
        found = row.comparison
        spread = "" if row.deviation is None else f" ± {100 * row.deviation:.2f}"
        ends = found.interval if found else None
        difference = f"{100 * ends[0]:+.1f} to {100 * ends[1]:+.1f}" if ends else ""
        line = {
            "row": row.name,
            "reported": reported_text(row.reported),
            "measured": f"{percent(row.accuracy)}{spread}" if row.accuracy is not None else "not run" if not row.runs else "",
            "95 % interval": "" if row.interval is None else as_range(row.interval),
            "twin-free": percent(row.twin_free),
            "runs": _of(row.runs, row.expected),
            translate("against {row}", row=reference): f"{100 * found.difference:+.2f}" if found else "",
            "p": f"{found.p:.2g}" if found else "",
            "interval of the difference": difference,
            "macro F1": percent(row.macro_f1),
            "balanced accuracy": percent(row.uar),
            "parameters": f"{row.parameters:,}",
            "time per run": "" if row.seconds is None else duration(row.seconds),
        }
        lines.append({key: value or "–" for key, value in line.items()})
    always = ("row", "reported", "measured", "95 % interval", "twin-free")
    head = [key for key in lines[0] if key in always or any(line[key] != "–" for line in lines)]
    cells = [[line[key] for key in head] for line in lines]
    caption = "Accuracy by row. Reported: the paper's, with its own data and protocol. Measured: ours, ± standard deviation"
    blocks: list[Block] = []
    if complete := _complete(subject):
        low, high = _extremes(complete)
        shown = {"low": f"{percent(low.accuracy)} ({low.name})", "high": f"{percent(high.accuracy)} ({high.name})"}
        alt = translate("Measured accuracy of each row with its 95 % interval, from {low} to {high}.", **shown)
        names, accuracies = [row.name for row in complete], [row.accuracy or 0 for row in complete]
        figure = intervals_figure(names, accuracies, [row.interval or (0, 0) for row in complete])
        rows = "Measured accuracy of each complete row, with its 95 % interval."
        blocks.append(Drawings([Drawing("rows", rows, alt, figure)]))
    text = translate(
        "The interval of several seeds is Student's t over seeds. That of one seed is Wilson's over images: it does not know "
        "how much another seed would move the figure. The standard deviation (over N) is that of seeds, or of the folds of one "
        "seed."
    )
    if any(row.comparison for row in subject.rows):
        text += " " + translate("p is McNemar's exact test on the same images, not corrected for the number of rows.")
    return [Table(caption, head, cells, left=(0, 1)), *blocks, Text(text)]


def _class_blocks(subject: StudyRuns) -> list[Block]:
    rows = [row for row in _complete(subject) if row.confusion is not None]
    if not rows or any(row.classes != rows[0].classes for row in rows) or len(rows[0].classes) > MAX_CLASSES:
        return []
    cells = []
    for row in rows:
        counts = np.asarray(row.confusion)
        with np.errstate(invalid="ignore"):
            cells.append([row.name, *map(percent, np.diag(counts) / counts.sum(1))])
    return [Table("Recall of each class, over all runs of a row", ["row", *rows[0].classes], cells)]


def _curve_blocks(subject: StudyRuns) -> list[Block]:
    runs = [run for run in subject.runs if run.history is not None]
    names = list(dict.fromkeys(run.folder.resolve().parent.name for run in runs))[:MAX_ROWS]
    if not runs:
        return []
    try:
        figure = curves_figure([run for run in runs if run.folder.resolve().parent.name in names])
    except DataError as error:
        return [Text(translate("Curves of training are not drawn: {reason}.", reason=error))]
    caption = "Accuracy by epoch, mean over seeds and folds. The selection split chooses the epoch; it is not the test split."
    return [Drawings([Drawing("curves", caption, translate("Accuracy by epoch of {names}.", names=", ".join(names)), figure)])]


def _reliability_blocks(subject: StudyRuns) -> list[Block]:
    rows = [measured[0] for measured in _drawn(subject).values()]
    try:
        line = f", {translate('a line per row')}."
        return [reliability_drawings(rows, line, line)]
    except DataError as error:
        return [Text(translate("Reliability is not drawn: {reason}.", reason=error))]


def _mean_predictions(subject: StudyRuns) -> Predictions | None:
    """Return the mean probabilities over all measured runs, for each image; None if they have different classes."""
    if any(each.first["classes"] != subject.results[0].first["classes"] for each in subject.results):
        return None
    parts = [read_predictions(path) for each in subject.results for path in each.paths]
    rows, target = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
    probs = np.concatenate([part[2] for part in parts])
    found, first, index = np.unique(rows, return_index=True, return_inverse=True)
    mean = np.zeros((len(found), probs.shape[1]))
    np.add.at(mean, index, probs)
    mean /= np.bincount(index)[:, None]
    return found, target[first], mean.astype(np.float32)


def _recipe_blocks(subject: StudyRuns) -> list[Block]:
    first: dict[str, Job] = {}  # of each row
    for job in subject.jobs:
        first.setdefault(job.row, job)
    runs = [Run(Path(row), job.recipe.to_dict()) for row, job in first.items()]
    keys = differing(runs)
    head = ["row", "recipe", *keys[:6]]
    cells = [[run.folder.name, str(run.recipe["name"]), *(show(run.values.get(key)) for key in keys[:6])] for run in runs]
    blocks: list[Block] = [Table("The rows, and in what their recipes differ", head, cells, left=tuple(range(len(head))))]
    if len(keys) > 6:
        blocks.append(Text(translate("They also differ in {keys}.", keys=", ".join(keys[6:]))))
    deviations = dict.fromkeys(show(line) for run in runs for line in run.recipe.get("deviations") or ())
    if deviations:
        blocks += [Text("Where the recipes differ from the paper, or the paper does not say:"), Bullets(list(deviations))]
    return blocks


def _provenance(subject: StudyRuns) -> list[Block]:
    cells = []
    for each in subject.results:
        for path, results in zip(each.paths, each.results, strict=True):
            model = results["model"]
            run, standard = f"{path.parent.parent.name}/{path.parent.name}", results["standard"]
            hashes = [model.get("weights_sha256"), results["digest"] or "none", model.get("recipe_hash"), results.get("commit")]
            origin = [str(results["hardware"].get("processor", "–")), str(results.get("date") or "–")]
            figures = [percent(standard["accuracy"]), f"{standard['images']:,}"]
            cells.append([run, *figures, *((text or "–")[:12] for text in hashes), *origin])
    head = ["run", "accuracy", "images", "weights", "digest", "recipe", "commit", "processor", "date"]
    keep = ("measured with mien", "versions", "corpus", "data fingerprint", "split file", "options of the corpus")
    return [
        Facts([(name, value) for name, value in provenance(subject.results[0]) if name in keep]),
        Table("Measured runs; hashes are shortened to 12 characters", head, cells, left=(0, 3, 4, 5, 6, 7, 8)),
    ]


def _not_measured(subject: StudyRuns, no_faces: bool) -> list[str]:
    found = []
    for row in subject.rows:
        if row.runs < row.expected:
            text = "{name}: {count} of {all} runs are not measured."
            found.append(translate(text, name=row.name, count=row.expected - row.runs, all=row.expected))
    if len({job.recipe.seed for job in subject.jobs}) == 1:
        found.append("Other seeds: every row has one, so differences between rows may be chance.")
    if any(row.twin_free is None for row in _complete(subject)):
        found.append("Twin-free figures of some rows: whether images also trained the model is not known.")
    if len(subject.measured) > MAX_ROWS:
        found.append(translate("Curves and matrices of the rows after the first {count} are left out.", count=MAX_ROWS))
    if no_faces:
        found.append(
            "Single faces: the page has no pictures of people. mien report --data CORPUS adds those that all rows find hardest."
        )
    return [*found, "Accuracy by group, explanations and twins of single runs: give the folder of a run to mien report."]
