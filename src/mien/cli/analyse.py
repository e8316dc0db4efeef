"""`mien analyse`: what a network gets wrong, and which labels look wrong."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli import options
from mien.cli.figure import Results
from mien.cli.inputs import open_corpus
from mien.cli.options import option
from mien.cli.terminal import StepBar, echo, print_table
from mien.errors import InputError, require

if TYPE_CHECKING:
    from mien.report.analysis import Analysis


def analyse(
    results: Results,
    data: options.Data,
    out: Annotated[Path, option("Folder for the tables and figures.", "FOLDER", show_default=False)],
    votes: Annotated[
        str | None, option("FER+'s votes on FER2013. Default: fer2013new.csv next to the table, if it is there.", "FILE")
    ] = None,
    top: Annotated[int, option("Number of confident mistakes to show.", "N", min=1)] = 24,
    worst: Annotated[float, option("Share of the labels to list as suspects, from above 0 to 0.5.", "SHARE")] = 0.05,
    option: options.CorpusOptions = None,
) -> None:
    """Show confident mistakes with their twins and votes, confused classes, suspect labels, and the error rate by confidence.

    The folds of one run of a study are pooled; give all their files.
    """
    require("matplotlib", "train")
    require("cleanlab", "analyse")
    if not 0 < worst <= 0.5:
        raise InputError(f"--worst {worst:g}: give a share from above 0 to 0.5, such as --worst 0.05")
    from mien.atomic import check_outputs
    from mien.datasets.ferplus import fer2013_votes
    from mien.report import pool_folds, reliability_figure, write_figure
    from mien.report.analysis import analyse as run
    from mien.report.analysis import corpus_part, write_analysis
    from mien.report.inputs import one_measurement
    from mien.report.mistakes import mistakes_figure, risk_coverage_figure
    from mien.results import predictions_path

    measured = one_measurement(pool_folds(results))
    pictures = [out / name for name in ("mistakes.png", "reliability.png", "risk-coverage.png")]
    check_outputs(pictures, [data, *results, *map(predictions_path, results)])
    part = corpus_part(measured)
    if option:
        part |= {"options": options.parse_pairs(option), "protocol": None}
    corpus = open_corpus(part, data, soft_labels=False)
    with StepBar() as bar:
        analysis = run(results, corpus, votes=fer2013_votes(corpus, data, votes), top=top, on_step=bar.step)
    written = write_analysis(out, analysis, worst)
    _show(analysis, worst)
    if analysis.mistakes:
        write_figure(pictures[0], mistakes_figure(analysis))
    write_figure(pictures[1], reliability_figure([measured]))
    write_figure(pictures[2], risk_coverage_figure([measured]))
    for path in (*written, *(pictures if analysis.mistakes else pictures[1:])):
        echo(f"wrote {path}")
    echo(f"next: mien train RECIPE --set data.exclude={out / 'suspects.csv'}")


def _show(analysis: Analysis, worst: float) -> None:
    """Print the mistakes, the confused pairs and what is known about the suspect labels."""
    from mien.report.analysis import describe_votes

    summary = analysis.summary()
    mistakes = []
    for each in analysis.mistakes[:10]:
        twins = Counter(f"{twin.label or 'no class'} ({twin.kind})" for twin in each.twins)
        listed = ", ".join(f"{count} {what}" for what, count in twins.items())
        answer = f"{each.predicted} {100 * each.confidence:.1f} %"
        mistakes.append([analysis.corpus.origin(each.row), each.label, answer, listed, describe_votes(each)])
    pairs = [[pair.label, pair.predicted, f"{pair.images:,}", f"{100 * pair.share:.1f} %"] for pair in analysis.pairs[:5]]
    if mistakes:
        head = ["image", "label", "answer", "twins", "votes"]
        print_table(head, mistakes, title="the most confident mistakes", left=5)
        print_table(["label", "answer", "images", "of the label"], pairs, title="the most confused classes", left=4)
    count = len(analysis.worst(worst))
    typer.echo(
        f"{summary['mistakes']:,} of {summary['images']:,} answers are not the label; cleanlab takes "
        f"{summary['label_issues']:,} labels for wrong; suspects.csv lists the worst {count:,}"
    )
    if summary["trained_on_these"]:
        typer.echo("these images trained the model: it may have learnt wrong labels by heart, and the list misses those")
    if summary["votes_differ"]:
        *shares, base = ((100 * float(share), 100 * value) for share, value in summary["votes_differ"].items())
        parts = ", ".join(f"{value:.0f} % of the worst {share:g} %" for share, value in shares)
        typer.echo(f"FER+'s voters prefer another class for {parts}, and for {base[1]:.0f} % of all")
    typer.echo(f"mean risk over all coverages (AURC): {summary['aurc']:.4f}")
