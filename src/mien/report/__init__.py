"""Figures for papers: confusion matrices, accuracy curves, sweeps, rates by class, reliability, accuracy against cost.

Each `*_figure` function returns a matplotlib `Figure`, and `write_figure` writes it as PNG or SVG.
`contents.create_report` and `page.write_report` make the page of a run, a results file or a study.
"""

from __future__ import annotations

from mien.report.analysis import Analysis, analyse, write_analysis
from mien.report.cost import measure_latencies, read_latencies
from mien.report.figures import confusion_figure, cost_figure, curves_figure, rates_figure, reliability_figure, sweep_figure
from mien.report.inputs import Measured, Run, pool_folds, read_runs
from mien.report.mistakes import mistakes_figure, risk_coverage_figure
from mien.report.style import write_figure

__all__ = [
    "Analysis",
    "Measured",
    "Run",
    "analyse",
    "confusion_figure",
    "cost_figure",
    "curves_figure",
    "measure_latencies",
    "mistakes_figure",
    "pool_folds",
    "rates_figure",
    "read_latencies",
    "read_runs",
    "reliability_figure",
    "risk_coverage_figure",
    "sweep_figure",
    "write_analysis",
    "write_figure",
]
