"""Figures for papers: confusion matrices, accuracy curves, sweeps, rates by class, reliability, accuracy against cost.

The page about a run or a study and the analysis of errors are here too.

inputs     reads results files (`pool_folds`) and folders of runs (`read_runs`); everything here starts from these
figures    one `*_figure` function per kind; `mistakes` has those of an error analysis, `cost` the speed of networks
style      sizes and colours of figures, and `write_figure`; `titles` writes their titles
contents   `read_subject` finds out what a path is, `create_report` writes the sections of its page
blocks     the tables and figures in these sections; `faces` has those with faces, `study` those of a study
page       `write_report` writes the page as HTML or Markdown
analysis   `analyse` finds confident mistakes and suspect labels, `write_analysis` writes them as tables
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
