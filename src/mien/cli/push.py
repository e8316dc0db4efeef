"""`mien push`: upload a model to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from mien.cli.terminal import echo
from mien.errors import require


def push(
    model: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run's folder, an .onnx file, or a bundled model.", show_default=False)
    ],
    repo: Annotated[
        str, typer.Argument(metavar="USER/MODEL", help="Repository on the Hub; made if it is missing.", show_default=False)
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Make a private repository. Default: everyone can read it.")
    ] = False,
) -> None:
    """Upload a model to the Hugging Face Hub with its card and recipe. A run is exported first."""
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
