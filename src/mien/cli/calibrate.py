"""`mien calibrate`: make the probabilities of your own model honest."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mien.cli.inputs import corpus_of
from mien.cli.terminal import StepBar, echo, per_cent
from mien.errors import InputError, require


def calibrate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An .onnx file, a .safetensors file or a run's folder. It is changed.")
    ],
    data: Annotated[Path, typer.Option(help="The corpus that the model was trained on.", show_default=False)],
    balance: Annotated[
        float,
        typer.Option(help="How far to correct for uneven classes of the training data, which changes labels: 0 to 1."),
    ] = 0.0,
) -> None:
    """Fit a model's probabilities on its selection split, so that its confidence equals its accuracy."""
    require("torch", "train")
    require("onnx", "train")
    from mien.engine.calibrate import calibrate as fit
    from mien.explain import load_backend

    if not model.exists():
        raise InputError(f"{model}: no such file; to calibrate a bundled model, copy its .onnx file first")
    backend = load_backend(model)
    corpus, file = corpus_of(backend, data), backend.path
    with StepBar() as bar:
        done = fit(file, corpus, partial(bar.step, "calibrating"), balance=balance)
    values, before, after = done.values, done.before, done.after
    echo(
        f"wrote {file}: temperature {values['temperature']:g}, power {values['power']:g}, lead {values['lead']:g}; the "
        f"calibration error on {values['split']} was {per_cent(before['ece'])} and is {per_cent(after['ece'])}"
    )
    if balance:
        for name, key in (("accuracy", "accuracy"), ("balanced accuracy", "uar")):
            echo(f"{name} on {values['split']}: was {per_cent(before[key])} and is {per_cent(after[key])}")
