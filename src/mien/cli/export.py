"""`mien export`, `mien calibrate` and `mien push`: what is done with a trained model."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from mien.cli.inputs import corpus_of
from mien.cli.options import option
from mien.cli.terminal import StepBar, echo, per_cent
from mien.errors import InputError, require


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or a .safetensors file.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .onnx file to write. Its card (.json) is written next to it.")
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write NAME-int8.onnx, calibrated on the training split. Needs --data.")
    ] = False,
    data: Annotated[
        Path | None, option("The corpus. Its training images are used to compare with torch and for --int8.", "DATA")
    ] = None,
    half_size: Annotated[
        bool,
        typer.Option(
            "--half-size", help="Store the weights in float16, for half the file size. The model still computes in float32."
        ),
    ] = False,
) -> None:
    """Export a trained model to ONNX and check that its logits agree with torch's."""
    require("torch", "train")
    require("onnxscript", "train")
    from mien.atomic import check_kind, check_outputs
    from mien.engine.export import calibration_crops, export_int8, export_onnx, write_card
    from mien.evaluate import predict_split
    from mien.explain import load_backend
    from mien.predict.onnx_backend import OnnxBackend
    from mien.weights import card_path

    if out.suffix != ".onnx":
        raise InputError(f"{out}: the exported file needs the suffix .onnx, such as model.onnx")
    if int8 and data is None:
        raise InputError("--int8 is calibrated on training images; give the corpus with --data")
    small = out.with_name(f"{out.stem}-int8.onnx")
    exported = [out, small] if int8 else [out]
    cards = list(map(card_path, exported))
    check_outputs([*exported, *cards], [run / "best.safetensors" if run.is_dir() else run, *([] if data is None else [data])])
    for path in cards:
        check_kind(path, "sha256", "arch")
    crops = None
    if data is not None:
        backend = load_backend(run)
        corpus, part = corpus_of(backend, data), backend.info.recipe.get("data") or {"train": "train", "select": None}
        crops = calibration_crops(corpus, part["train"])
    done = export_onnx(run, out, crops, half_size=half_size)
    write_card(done)
    echo(f"wrote {out}: logits within {done.max_difference:.1e} of torch")
    if int8 and crops is not None:
        done = export_int8(run, out, small, crops)
        split = part["select"] or part["train"]
        target = corpus.target[corpus.where(split)]
        before, after = (
            100 * float((predict_split(OnnxBackend(path), corpus, split).argmax(1) == target).mean()) for path in exported
        )
        write_card(done, points_lost={split: round(before - after, 3)})
        echo(f"wrote {small}: {before:.2f} % became {after:.2f} % on {split} ({before - after:+.2f} points lost)")


def calibrate(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="An .onnx file, a .safetensors file or a run's folder. It is changed.")
    ],
    data: Annotated[Path, option("The corpus that the model was trained on.", "DATA", show_default=False)],
    balance: Annotated[
        float, option("How far to correct for uneven classes of the training data, which changes labels: 0 to 1.", "SHARE")
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


def push(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run's folder, an .onnx file, or a bundled model.")],
    repo: Annotated[str, typer.Argument(metavar="USER/MODEL", help="Repository on the Hub; made if it is missing.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a private repository. Default: everyone can read it.")
    ] = False,
) -> None:
    """Upload a model to the Hugging Face Hub with its card and recipe.

    A run is exported first.
    """
    require("huggingface_hub", "hub")
    from mien import weights
    from mien.predict.onnx_backend import OnnxBackend
    from mien.weights import hub

    with TemporaryDirectory() as folder:
        if Path(model).is_dir():
            require("torch", "train")
            from mien.engine.export import export_onnx, write_card

            path = Path(folder) / "model.onnx"
            write_card(export_onnx(model, path))
        else:
            path = weights.resolve(model)
        address = hub.push(path, OnnxBackend(path, threads=1).info, repo, private)
    echo(f"uploaded {address}; use it with: mien predict photo.jpg --model {address.partition('@')[0]}")
