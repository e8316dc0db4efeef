"""`mien evaluate`: measure a model on a corpus, or on your own labelled pictures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from mien.cli import options
from mien.cli.inputs import corpus_of, open_corpus, open_photos, votes_on
from mien.cli.options import option
from mien.cli.terminal import StepBar, echo, per_cent, print_table
from mien.errors import DataError, InputError, require
from mien.labels import label_set

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.groups import Groups
    from mien.predict.backend import Backend

PICTURE_DPI = 150
"""Pixels per inch of the confusion matrix next to the results; for print, mien figure draws it at 300."""


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A run's folder, a .safetensors or .onnx file, a bundled model, or hf://user/model."
        ),
    ],
    data: options.Data,
    split: Annotated[
        str | None,
        option("Split to measure on. Use a test split only once, at the end. Default: public_test, or the only split.", "NAME"),
    ] = None,
    corpus: Annotated[
        str | None,
        option("What the data are, such as folder, manifest or ckplus. Default: the corpus that trained the model.", "NAME"),
    ] = None,
    option: options.CorpusOptions = None,
    map_to: Annotated[
        str | None,
        option(
            "Measure these classes only, such as ckplus, as far as the model has them. Default: all classes of the model.",
            "LABELSET",
        ),
    ] = None,
    training_data: Annotated[
        Path | None, option("The data that trained the model, to count the images that it has seen in training.", "PATH")
    ] = None,
    view: Annotated[
        str,
        option(
            "single: each image as it is. mirror: the mean with its mirror image. ten: the mean of corners and centre, "
            "mirrored or not.",
            "VIEW",
        ),
    ] = "single",
    group_by: Annotated[
        list[str] | None,
        option(
            "Also measure each group of this column: of the manifest, of --groups, or gender, race or age of RAF-DB. "
            "Repeat it for several columns.",
            "COLUMN",
        ),
    ] = None,
    groups: Annotated[
        Path | None, option("Table with the columns of --group-by, and path or row to say which image it is.", "FILE.csv")
    ] = None,
    detect: Annotated[
        bool,
        typer.Option(
            "--detect",
            help="The data are a table of photos (path, label, and left, top, right, bottom of each face): find the faces as "
            "mien predict does, and also measure how many are found.",
        ),
    ] = False,
    providers: Annotated[
        str | None, option("Run an .onnx file on these execution providers of ONNX Runtime, such as cuda,cpu.", "NAMES")
    ] = None,
    out: Annotated[Path | None, option("Results file to write (.json). Default: next to the weights.", "FILE")] = None,
) -> None:
    """Measure a model on a corpus or on your own labelled pictures.

    Writes the results, the predictions and a confusion matrix. Classes are matched by name.
    """
    require("torchmetrics", "train")
    from mien.atomic import check_kind, check_outputs, check_place
    from mien.datasets.cache import files_outside
    from mien.datasets.corpus import CORPORA
    from mien.evaluate import View, notes, write_evaluation
    from mien.evaluate import evaluate as measure
    from mien.explain import load_backend
    from mien.faces import DEFAULT_DETECTOR
    from mien.groups import read_groups
    from mien.report import Measured, confusion_figure, write_figure
    from mien.results import predictions_path
    from mien.weights import card_path

    if out is not None and out.suffix != ".json":
        raise InputError(f"{out}: the results file is JSON; use a name such as --out results.json")
    if view not in get_args(View):
        raise InputError(f"--view {view}: choose one of {', '.join(get_args(View))}")
    if option and not corpus:
        raise InputError("--option is an option of a corpus; say which with --corpus")
    if groups is not None and not group_by:
        raise InputError(f"--groups {groups}: say by which of its columns, with --group-by COLUMN")
    if detect and (corpus or groups):
        raise InputError("--detect reads a table of photos with all its columns; leave out --corpus and --groups")
    columns = list(dict.fromkeys(group_by or []))
    if columns:
        require("fairlearn", "analyse")
    if map_to is not None:
        label_set(map_to)  # an unknown one is refused before anything is read
    read_with = options.parse_pairs(option) if corpus else None
    backend = load_backend(model, providers)
    file = backend.path
    if out is not None:
        check_place(out)
    members: Groups | None = None
    if detect:
        measured, members = open_photos(backend, data, columns)
        read_with = {"detector": DEFAULT_DETECTOR}
    else:
        measured = _measured_corpus(backend, data, corpus, read_with)
        if columns:
            members = read_groups(measured, data, columns, groups)
    split = split or (measured.splits[0] if len(measured.splits) == 1 else "public_test")
    if out is None:
        parts = (
            data.stem if corpus or detect else "",
            split,
            "" if view == "single" else view,
            f"as-{map_to}" if map_to else "",
        )
        out = _default_results(model, file, "-".join(part for part in parts if part))
    picture = out.with_name(f"{out.stem}-confusion.png")
    read = [file, card_path(file), data, *(given for given in (groups, training_data) if given is not None)]
    read += [] if detect else files_outside(CORPORA.get(measured.name), data, read_with or {})
    check_outputs([out, predictions_path(out), picture], read)
    check_kind(out, "model", "standard")
    trained = None if training_data is None else corpus_of(backend, training_data)
    votes = votes_on(measured, data)
    with StepBar() as bar:
        evaluation = measure(
            backend,
            measured,
            split,
            file,
            partial(bar.step, f"measuring on {split}"),
            view=cast(View, view),
            votes=votes,
            map_to=map_to,
            options=read_with,
            training=trained,
            groups=members,
        )
    _show(evaluation.results)
    _show_groups(evaluation.results)
    for line in notes(evaluation.results):
        echo(line)
    written = write_evaluation(out, evaluation)
    write_figure(picture, confusion_figure(Measured((out,), (evaluation.results,))), PICTURE_DPI)
    for path in (*written, picture):
        echo(f"wrote {path}")


def _measured_corpus(backend: Backend, data: Path, name: str | None, options: dict[str, Any] | None) -> Corpus:
    """Return the corpus of a name, by default the one that trained the model."""
    if name is not None:
        return open_corpus({"corpus": name, "options": options}, data, soft_labels=False)
    try:
        return corpus_of(backend, data)
    except DataError as error:
        raise DataError(
            f"{error}. The model was trained on this corpus; if your data are another, say so with --corpus"
        ) from None


def _default_results(model: str, file: Path, split: str) -> Path:
    """Return the default results file: next to the weights, or in the working folder for a bundled model."""
    if Path(model).is_dir():
        return file.with_name(f"{split}.json")
    folder = file.parent if Path(model).exists() else Path()
    return folder / f"{file.stem}-{split}.json"


def _show(results: dict[str, Any]) -> None:
    """Print every figure, on all images and on those without a twin in training."""
    model, data, parts = results["model"], results["data"], (results["standard"], results["twin_free"])
    rows = [["images", *(f"{part['images']:,}" if part else "-" for part in parts)]]
    if detection := results["detection"]:
        rows.append(["faces found", f"{detection['found']:,} of {detection['faces']:,}"])
        rows.append(["  95 % interval", _range(detection["interval"])])
    for key in ("accuracy", "macro_f1", "uar", "kappa", "ece", "votes_agreement"):
        values = [part[key] if part else None for part in parts]
        if key == "kappa":
            rows.append([key, *("-" if value is None else f"{value:.4f}" for value in values)])
        elif key != "votes_agreement" or any(value is not None for value in values):
            rows.append([key, *map(per_cent, values)])
        if key == "accuracy":
            rows.append(["  95 % interval", *(_range(part["accuracy_interval"] if part else None) for part in parts)])
    for coverage, found in (results["sets"] or {}).items():
        rows.append([f"sets for {per_cent(float(coverage), 0)}", f"{per_cent(found['coverage'])}, {found['size']:.2f} classes"])
    for key in ("recall", "fpr"):
        for name in results["classes"]:
            rows.append([f"{key} {name}", *(per_cent(part[key][name] if part else None) for part in parts)])
    on = f"{data['corpus']} {data['split']} ({data['protocol']})"
    title = f"{model['arch']} ({results['precision']}) on {on}, view: {results['view']}"
    print_table(["metric", "standard", "twin-free"], rows, title=title)


def _range(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else f"{per_cent(interval[0], 1)} to {per_cent(interval[1], 1)}"


def _show_groups(results: dict[str, Any]) -> None:
    """Print, for each column of `--group-by`, the figures of its groups, their recalls and the largest gaps between them."""
    from mien.groups import group_notes

    for column, found in (results["groups"] or {}).items():
        groups = found["groups"]
        figures = {"accuracy": "accuracy", "uar": "uar", "ece": "ece", "overconfidence": "too sure"}
        if any(group["faces"] for group in groups.values()):
            figures = {"detection_rate": "faces found"} | figures
        shown = [name for name in results["classes"] if any(group["recall"][name] is not None for group in groups.values())]
        rows, recalls = [], []
        for name, group in groups.items():
            intervals = [group["ece_by_chance" if key == "ece" else f"{key.removesuffix('_rate')}_interval"] for key in figures]
            rows.append([name, f"{group['images']:,}", *map(_points, [group[key] for key in figures], intervals)])
            recalls.append([name, *(_points(group["recall"][each], group["recall_interval"][each]) for each in shown)])
        print_table([column, "images", *figures.values()], rows)
        print_table([f"recall by {column}", *shown], recalls, left=len(shown) + 1)
        gaps = []
        for metric, gap in found["gaps"].items():
            certain = "yes" if gap["more_than_chance"] else "no"
            certain += "" if gap["interval"] is not None else f" (p = {gap['p']:.3f})"
            gaps.append([metric, _points(gap["largest"], gap["interval"]), " and ".join(gap["between"]), certain])
        if gaps:
            print_table([f"largest gap by {column}", "points", "between", "more than chance"], gaps, left=4)
        echo("in %; too sure: confidence minus accuracy; in brackets: 95 % interval, of ece: the range of a calibrated model")
        for line in group_notes(column, found):
            echo(line)


def _points(value: float | None, interval: Sequence[float] | None) -> str:
    """Return a share in points of per cent, with its interval in brackets."""
    if value is None:
        return "-"
    return f"{100 * value:.1f}" + (f" [{100 * interval[0]:.0f},{100 * interval[1]:.0f}]" if interval else "")
