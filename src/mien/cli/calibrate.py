"""`mien calibrate`: make the probabilities of your own model honest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mien.cli.inputs import echo
from mien.errors import InputError, require


def calibrate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An .onnx file, a .safetensors file or a run's folder. It is changed.")
    ],
    data: Annotated[Path, typer.Option("--data", help="The corpus that the model was trained on.", show_default=False)],
    balance: Annotated[
        bool, typer.Option("--balance", help="Also make rare classes more probable, which changes labels.")
    ] = False,
) -> None:
    """Fit a model's probabilities on its selection split, so that its confidence equals its accuracy."""
    require("torch", "train")
    require("onnx", "train")
    from mien.cli.inputs import corpus_of, open_model
    from mien.cli.progress import StepBar
    from mien.engine.calibrate import calibrate as fit

    if not model.exists():
        raise InputError(f"{model}: no such file; to calibrate a bundled model, copy its .onnx file first")
    backend, file = open_model(str(model))
    corpus = corpus_of(backend, data)
    with StepBar() as bar:
        done = fit(file, corpus, partial(bar.step, "calibrating"), balance=balance)
    values, (before, after) = done.values, done.ece
    line = (
        f"wrote {file}: temperature {values['temperature']:g}, power {values['power']:g}, lead {values['lead']:g}; the "
        f"calibration error on {values['split']} was {before:.2%} and is {after:.2%}".replace("%", " %")
    )
    echo(line)
