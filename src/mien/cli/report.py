"""`mien report`: a run, a results file or a study as one page to read, print or send."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli import options
from mien.cli.inputs import open_corpus, votes_on
from mien.cli.options import option
from mien.cli.terminal import echo
from mien.cli.verify import find_weights
from mien.errors import CheckpointError, DataError, InputError, require

if TYPE_CHECKING:
    from mien.report.contents import Subject
    from mien.report.faces import Explain, Shown
    from mien.report.study import StudyRuns


class Format(StrEnum):
    """The format of a report."""

    html = "html"
    md = "md"


def report(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="RUN|RESULT|STUDY", help="The folder of a run, a results file of mien evaluate, or the folder of a study."
        ),
    ],
    out: Annotated[Path, option("The report to write: .html or .md.", "FILE", show_default=False)],
    data: Annotated[
        Path | None,
        option("The corpus it was measured on, to show faces. The page then contains pictures of people.", "CORPUS"),
    ] = None,
    format: Annotated[
        Format | None,
        option(
            "html: one page with everything in it. md: Markdown, with figures in a folder next to it. "
            "Default: by the ending of --out.",
            "html|md",
        ),
    ] = None,
    study: Annotated[
        Path | None, option("What the study is, if it is not a bundled one: rows that are not run, reference.", "FILE.yaml")
    ] = None,
    language: options.Language = "en",
) -> None:
    """Write a report: key figures, classes, confusion, confidence, training, recipe, provenance, and what was not measured."""
    require("torchmetrics", "train")
    require("jinja2", "report")
    from mien.atomic import check_outputs
    from mien.output.table import check_ending
    from mien.report.contents import Subject, create_report, read_subject
    from mien.report.page import FORMATS, write_report
    from mien.study.specification import load_study

    if format is None:
        check_ending(out, "report", FORMATS)
    elif out.suffix != f".{format}":
        raise InputError(f"{out}: --format {format} needs a file that ends in .{format}")
    check_outputs([out], [path] if data is None else [path, data])
    subject = read_subject(path, load_study(str(study)) if study else None)
    missing: list[str] = []
    weights = None
    if isinstance(subject, Subject):
        subject, weights = _with_recipe(subject)
    shown = None if data is None else _shown(subject, data)
    explain = _explain(weights, missing) if shown is not None and isinstance(subject, Subject) else None
    written = write_report(out, create_report(subject, shown, explain, missing))
    echo(f"wrote {out}" + (f" and {len(written) - 1} figures" if len(written) > 1 else ""))
    if shown is not None:
        echo(f"It contains pictures of people from {shown.corpus.name}: share it only as the licence of the corpus allows.")


def _with_recipe(subject: Subject) -> tuple[Subject, Path | None]:
    """Return the subject with the recipe that its weights hold, if no other is at hand; and the weights, if they are."""
    from dataclasses import replace

    from mien.explain import load_backend

    if subject.measured is None:
        return subject, None
    try:
        weights = find_weights(subject.measured.paths[0], subject.measured.first, None)
    except CheckpointError:
        return subject, None
    if not subject.recipe:
        subject = replace(subject, recipe=load_backend(weights).info.recipe)
    return subject, weights


def _shown(subject: Subject | StudyRuns, data: Path) -> Shown:
    """Return the corpus that was measured, after checking that it is the same copy."""
    from mien.report.faces import Shown
    from mien.report.study import StudyRuns
    from mien.results import predictions_path

    if isinstance(subject, StudyRuns):
        measured, recipe = subject.results[0], subject.jobs[0].recipe.to_dict()
    elif subject.measured is None:
        raise DataError(
            f"{subject.path}: --data shows faces with their answers, and this run has none; run mien evaluate first"
        )
    else:
        measured, recipe = subject.measured, subject.recipe or {}
    wanted, path = measured.first["data"], measured.paths[0]
    if not predictions_path(path).is_file():
        raise DataError(
            f"{path}: --data shows faces with their answers, but {predictions_path(path).name} is not next to it; evaluate the "
            "model again, or leave --data out"
        )
    part: dict[str, Any] = recipe.get("data") or {}
    if wanted["options"] is not None or part.get("corpus") != wanted["corpus"]:
        part = {"corpus": wanted["corpus"], "options": wanted["options"]}
    corpus = open_corpus(part, data, soft_labels=False)
    if corpus.fingerprint != wanted["fingerprint"]:
        raise DataError(
            f"{data} is another copy of {corpus.name} than was measured (data fingerprint {corpus.fingerprint[:16]}...; "
            f"{path.name} has {str(wanted['fingerprint'])[:16]}...); give the copy it was measured on, or leave --data out"
        )
    same_split = corpus.split_fingerprint == wanted.get("split_fingerprint")
    return Shown(corpus, part.get("train") if same_split else None, votes_on(corpus, data))


def _explain(weights: Path | None, missing: list[str]) -> Explain | None:
    """Return what explains an answer, or say in `missing` why there is nothing."""
    if weights is None:
        missing.append("Explanations: the weights are neither next to the results file nor bundled.")
        return None
    from mien.explain import explain, load_backend, overlay
    from mien.predict.ensemble import EnsembleBackend
    from mien.predict.recognizer import Recognizer

    backend = load_backend(weights)
    if isinstance(backend, EnsembleBackend):
        missing.append("Explanations: the ensemble is several networks; explain one of its members.")
        return None
    recognizer = Recognizer(backend, detector=None)
    return lambda face: {name: overlay(face, found) for name, found in explain(recognizer, face, "rise").maps.items()}
