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
        float,
        typer.Option(
            "--balance", help="How far to correct for uneven classes of the training data, which changes labels: 0 to 1."
        ),
    ] = 0.0,
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
    values, before, after = done.values, done.before, done.after
    line = (
        f"wrote {file}: temperature {values['temperature']:g}, power {values['power']:g}, lead {values['lead']:g}; the "
        f"calibration error on {values['split']} was {before['ece']:.2%} and is {after['ece']:.2%}".replace("%", " %")
    )
    echo(line)
    if balance:
        for name, key in (("accuracy", "accuracy"), ("balanced accuracy", "uar")):
            echo(f"{name} on {values['split']}: was {before[key]:.2%} and is {after[key]:.2%}".replace("%", " %"))
