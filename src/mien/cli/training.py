"""`mien train`, `mien export` and `mien recipes`."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mien.cli.inputs import DataOption, corpus_of, open_corpus
from mien.cli.options import parse_pairs
from mien.cli.terminal import Bar, echo, print_table
from mien.errors import InputError, RecipeError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mien.datasets import Corpus
    from mien.engine.history import Epoch
    from mien.recipe import Recipe

LoggerOption = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Experiment tracker: tensorboard, wandb (offline unless WANDB_MODE=online is set) or mlflow (in the folder mlruns "
        "next to the run unless MLFLOW_TRACKING_URI is set).",
    ),
]


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A bundled recipe (see mien recipes), a YAML file, or FILE.yaml:VARIANT.")
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Folder of the run. If it holds this run already, the run resumes.")],
    change: Annotated[
        list[str] | None,
        typer.Option("--set", help="Change a value of the recipe, such as --set train.epochs=2. Repeat it to change several."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Use this seed instead of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Train this many epochs instead of the recipe's.")] = None,
    devices: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of GPUs, or of processes on the CPU. Default: 1 GPU, or 1 process per core for small networks."
        ),
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="bf16-mixed or 32-true. Default: bf16-mixed where it is fast (GPUs, some CPUs), else 32-true."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads. Default: all cores.")] = None,
    logger: LoggerOption = "tensorboard",
) -> None:
    """Train a recipe, or resume a run that was stopped."""
    torch = require("torch", "train")
    from mien.engine import train as run
    from mien.engine.checks import check_files, check_names
    from mien.engine.devices import create_fabric, default_devices
    from mien.engine.loggers import check_logger
    from mien.engine.nodes import in_every_process, meet, torchrun_layout
    from mien.provenance import available_cores
    from mien.recipe import load_recipe, recipe_file

    def read() -> tuple[Recipe, Corpus]:
        overrides = parse_pairs(change, "--set", "train.epochs=2", RecipeError)
        overrides |= {key: value for key, value in (("seed", seed), ("train.epochs", epochs)) if value is not None}
        chosen = load_recipe(recipe, overrides)
        check_names(chosen)
        check_logger(logger)
        written = recipe_file(recipe)
        own = written is not None and written.is_file() and written.read_text(encoding="utf-8") == chosen.to_yaml()
        check_files(chosen, out, [data, *([written] if written and not own else [])])  # a run's own recipe resumes it
        return chosen, open_corpus(chosen.data.model_dump(), data)

    meet()
    chosen, corpus = in_every_process(read)
    cores = threads or available_cores()
    _, started = torchrun_layout() or (1, None)
    devices = devices or started or default_devices(chosen, corpus, cores)
    if threads or torch.get_num_threads() * devices > cores:
        torch.set_num_threads(max(1, cores // devices))
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # Fabric reads it
    with TrainingProgress(chosen.train.epochs) as progress:
        fabric = create_fabric(chosen, devices, precision)
        result = run(
            chosen,
            corpus,
            out,
            fabric=fabric,
            on_epoch=progress.epoch,
            on_step=progress.step,
            on_start=echo,
            logger=logger,
        )
    if not fabric.is_global_zero:
        return
    if chosen.data.select is None:
        echo(f"kept the last epoch, {result.best.epoch}, in {out} (the recipe has no selection split)")
    else:
        best = f"best epoch {result.best.epoch}: {100 * result.best.val_accuracy:.2f} % on {chosen.data.select}"
        echo(f"{best}; kept in {out}")
    echo(f"next: mien evaluate {out} --data {data} --split {corpus.splits[-1]}")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder or a .safetensors file.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The .onnx file to write. Its card (.json) is written next to it.")
    ],
    int8: Annotated[
        bool, typer.Option("--int8", help="Also write NAME-int8.onnx, calibrated on the training split. Needs --data.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="The corpus. Its training images are used to compare with torch and for --int8."),
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
    from mien.engine.export import calibration_crops, export_onnx, write_card
    from mien.explain import load_backend
    from mien.weights import card_path

    if out.suffix != ".onnx":
        raise InputError(f"{out}: the exported file needs the suffix .onnx, such as model.onnx")
    if int8 and data is None:
        raise InputError("--int8 is calibrated on training images; give the corpus with --data")
    exported = [out, *([int8_path(out)] if int8 else [])]
    written = [*exported, *map(card_path, exported)]
    check_outputs(written, [run / "best.safetensors" if run.is_dir() else run, *([] if data is None else [data])])
    for path in map(card_path, exported):
        check_kind(path, "sha256", "arch")
    crops, corpus = None, None
    if data is not None:
        backend = load_backend(run)
        corpus = corpus_of(backend, data)
        crops = calibration_crops(corpus, (backend.info.recipe.get("data") or {"train": "train"})["train"])
    done = export_onnx(run, out, crops, half_size=half_size)
    write_card(done)
    echo(f"wrote {out}: logits within {done.max_difference:.1e} of torch")
    if int8 and corpus is not None and crops is not None:
        _export_int8(run, out, corpus, crops)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Print this recipe, complete, as YAML.")] = None,
) -> None:
    """List the bundled recipes, or print one."""
    require("yaml", "train")
    from mien.recipe import load_recipe, recipe_names

    if name is not None:
        typer.echo(load_recipe(name).to_yaml(), nl=False)
        return
    found = {known: load_recipe(known) for known in recipe_names()}
    rows = [[known, recipe.summary, recipe.paper.table if recipe.paper else ""] for known, recipe in found.items()]
    print_table(["recipe", "what it trains", "row of the paper"], rows, left=3)


def int8_path(fp32: Path) -> Path:
    """Return the path of the int8 copy of an exported model."""
    return fp32.with_name(f"{fp32.stem}-int8.onnx")


def _export_int8(run: Path, fp32: Path, corpus: Corpus, crops: list[NDArray[np.uint8]]) -> None:
    from mien.engine.export import export_int8, write_card
    from mien.evaluate import predict_split
    from mien.predict.onnx_backend import OnnxBackend

    path = int8_path(fp32)
    full = OnnxBackend(fp32)
    data_part = full.info.recipe.get("data") or {"train": "train", "select": None}
    done = export_int8(run, fp32, path, crops)
    split = data_part["select"] or data_part["train"]
    target = corpus.target[corpus.where(split)]
    before, after = (
        100 * float((predict_split(b, corpus, split).argmax(1) == target).mean()) for b in (full, OnnxBackend(path))
    )
    write_card(done, points_lost={split: round(before - after, 3)})
    echo(f"wrote {path}: {before:.2f} % became {after:.2f} % on {split} ({before - after:+.2f} points lost)")


def is_first_process() -> bool:
    """Return whether this is the process the user started, or torchrun's first on this node: one that may print errors."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class TrainingProgress(Bar):
    """The output of `mien train`: one line per epoch and, in a terminal, a progress bar."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import TextColumn, TimeElapsedColumn

        self.console = Console()
        shown = self.console.is_terminal and is_first_process() and os.environ.get("RANK", "0") == "0"
        super().__init__(TimeElapsedColumn(), TextColumn("left"), shown=shown, console=self.console)
        self.task = self.bar.add_task("training", total=epochs)

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Advance the bar by one step."""
        self.bar.update(self.task, completed=epoch - 1 + step / steps)

    def epoch(self, row: Epoch, epochs: int) -> None:
        """Print a finished epoch."""
        val = f"val loss {row.val_loss:.3f}  val accuracy {100 * row.val_accuracy:.2f} %  "
        if math.isnan(row.val_accuracy):  # no selection split
            val = ""
        self.console.print(
            f"epoch {row.epoch}/{epochs}  train loss {row.train_loss:.3f}  {val}{row.images_per_second:.0f} images/s  "
            f"{row.seconds * (epochs - row.epoch) / 60:.0f} min left",
            highlight=False,
            soft_wrap=True,
        )
