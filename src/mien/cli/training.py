"""`mien train`, `mien evaluate`, `mien export`, `mien recipes`: what needs the train extra."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli.pairs import parse_pairs
from mien.errors import InputError, RecipeError, require

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mien.datasets import Corpus
    from mien.engine.history import Epoch
    from mien.predict.recognizer import Backend

DataOption = Annotated[Path, typer.Option("--data", help="The corpus: the file or folder its makers or Kaggle give out.")]


def train(
    recipe: Annotated[str, typer.Argument(help="A bundled recipe (see mien recipes) or a YAML file.")],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="The run's folder; a run found there goes on where it stopped.")],
    change: Annotated[list[str] | None, typer.Option("--set", help="Change a value: --set train.epochs=2")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed, in place of the recipe's.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs, in place of the recipe's.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, help="Number of GPUs, or of processes on the CPU; by default 1 GPU, else one a core.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="bf16-mixed or 32-true; by default bfloat16 on a GPU, or on a CPU that has it with channels_last."),
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default every core.")] = None,
) -> None:
    """Train a recipe, or go on with a run that was stopped."""
    torch = require("torch", "train")
    from mien.engine import train as run
    from mien.engine.checks import check_files, check_names
    from mien.engine.devices import default_devices, default_fabric
    from mien.provenance import available_cores
    from mien.recipe import load_recipe

    overrides = parse_pairs(change, "--set", "train.epochs=2", RecipeError)
    overrides |= {key: value for key, value in (("seed", seed), ("train.epochs", epochs)) if value is not None}
    chosen = load_recipe(recipe, overrides)
    check_names(chosen)
    check_files(chosen, out)
    corpus = open_corpus(chosen.data.model_dump(), data)
    devices = devices or default_devices(chosen, corpus, threads or available_cores())
    if threads:
        torch.set_num_threads(max(1, threads // devices))
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # what Fabric goes by
    with _TrainingProgress(chosen.train.epochs) as progress:
        fabric = default_fabric(chosen, devices, precision)
        result = run(chosen, corpus, out, fabric=fabric, on_epoch=progress.epoch, on_step=progress.step, on_start=typer.echo)
    if not fabric.is_global_zero:
        return
    if chosen.data.select is None:
        typer.echo(f"kept the last epoch, {result.best.epoch}, in {out}: the recipe selects on no split")
    else:
        best = f"best epoch {result.best.epoch}: {100 * result.best.val_accuracy:.2f} % on {chosen.data.select}"
        typer.echo(f"{best}; kept in {out}")
    typer.echo(f"next: mien evaluate {out} --data {data} --split {corpus.splits[-1]}")


def evaluate(
    model: Annotated[str, typer.Argument(help="A run's folder, a .safetensors or .onnx file, or a bundled model's name.")],
    data: DataOption,
    split: Annotated[str, typer.Option(help="The split; touch a test split once, at the end.")] = "public_test",
    out: Annotated[Path | None, typer.Option("--out", help="The results file to write (.json).")] = None,
) -> None:
    """Measure a model on a split: a results file, its predictions, a confusion matrix."""
    require("torchmetrics", "train")
    from rich.console import Console
    from rich.progress import Progress

    from mien.atomic import check_place
    from mien.evaluate import evaluate as measure
    from mien.evaluate import write_evaluation

    if out is not None and out.suffix != ".json":
        raise InputError(f"{out}: the results file is JSON; name it with --out results.json")
    backend, file = _open_model(model)
    out = out or _results_place(model, file, split)
    check_place(out)
    corpus = _corpus_of(backend, data)
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"measuring on {split}", total=None)
        evaluation = measure(
            backend, corpus, split, file, lambda done, total: progress.update(task, completed=done, total=total)
        )
    _show(evaluation.results)
    for path in write_evaluation(out, evaluation):
        typer.echo(f"wrote {path}")


def _results_place(model: str, file: Path, split: str) -> Path:
    """Return where results go if nobody says: beside the weights; a bundled model's, into the working folder."""
    if Path(model).is_dir():
        return file.with_name(f"{split}.json")
    folder = file.parent if Path(model).exists() else Path()
    return folder / f"{file.stem}-{split}.json"


def export(
    run: Annotated[Path, typer.Argument(help="A run's folder or a .safetensors file.")],
    out: Annotated[Path, typer.Argument(help="The .onnx file to write; its card is written beside it.")],
    int8: Annotated[bool, typer.Option("--int8", help="Also write NAME-int8.onnx, calibrated on the training split.")] = False,
    data: Annotated[
        Path | None, typer.Option("--data", help="The corpus: parity is proven on its training images. Needed for --int8.")
    ] = None,
    half_size: Annotated[
        bool, typer.Option("--half-size", help="Round the weights to float16: half the size, computed in float32.")
    ] = False,
) -> None:
    """Write a trained model as ONNX, prove that it says the same, and on request round it to float16 or int8."""
    require("torch", "train")
    require("onnxscript", "train")
    from mien.engine.export import calibration_crops, export_onnx, write_card

    if out.suffix != ".onnx":
        raise InputError(f"{out}: name the exported file with the suffix .onnx")
    if int8 and data is None:
        raise InputError("--int8 is calibrated on training images; say where they are with --data")
    crops, corpus = None, None
    if data is not None:
        backend, _ = _open_model(str(run))
        corpus = _corpus_of(backend, data)
        crops = calibration_crops(corpus, (backend.info.recipe.get("data") or {"train": "train"})["train"])
    done = export_onnx(run, out, crops, half_size=half_size)
    write_card(done)
    typer.echo(f"wrote {out}: logits within {done.max_difference:.1e} of torch's")
    if int8 and corpus is not None and crops is not None:
        _export_int8(run, out, corpus, crops)


def recipes(name: Annotated[str | None, typer.Argument(help="Show this recipe's YAML.")] = None) -> None:
    """List the bundled recipes, or show one."""
    require("yaml", "train")
    from rich.console import Console
    from rich.table import Table

    from mien.recipe import load_recipe, recipe_names

    if name is not None:
        typer.echo(load_recipe(name).to_yaml(), nl=False)
        return
    table = Table("recipe", "what it trains", "stands for")
    for known in recipe_names():
        recipe = load_recipe(known)
        table.add_row(known, recipe.summary, recipe.paper.table if recipe.paper else "")
    Console().print(table)


def _open_model(model: str) -> tuple[Backend, Path]:
    """Return a backend for a run's folder, a checkpoint, an exported file or a bundled name, and the weights file."""
    path = Path(model)
    if path.is_dir() or path.suffix == ".safetensors":
        require("torch", "train")
        from mien.engine.torch_backend import TorchBackend

        return TorchBackend(path), path / "best.safetensors" if path.is_dir() else path
    from mien.predict.onnx_backend import OnnxBackend
    from mien.weights import resolve

    file = resolve(model)
    return OnnxBackend(file), file


def _export_int8(run: Path, fp32: Path, corpus: Corpus, crops: list[NDArray[np.uint8]]) -> None:
    from mien.engine.export import export_int8, write_card
    from mien.evaluate import predict_split
    from mien.predict.onnx_backend import OnnxBackend

    path = fp32.with_name(f"{fp32.stem}-int8.onnx")
    full = OnnxBackend(fp32)
    data_part = full.info.recipe.get("data") or {"train": "train", "select": None}
    done = export_int8(run, fp32, path, crops)
    split = data_part["select"] or data_part["train"]
    target = corpus.target[corpus.where(split)]
    before, after = (
        100 * float((predict_split(b, corpus, split).argmax(1) == target).mean()) for b in (full, OnnxBackend(path))
    )
    write_card(done, points_lost={split: round(before - after, 3)})
    typer.echo(f"wrote {path}: {before:.2f} % became {after:.2f} % on {split} ({before - after:+.2f} points lost)")


def _corpus_of(backend: Backend, data: Path) -> Corpus:
    """Return the corpus of the recipe that trained a model, in that recipe's splits; what softened its labels is not needed."""
    return open_corpus(backend.info.recipe.get("data") or {"corpus": backend.info.label_set}, data, soft_labels=False)


def open_corpus(part: dict[str, Any], source: Path, soft_labels: bool = True) -> Corpus:
    """Return the corpus of a recipe's section `data`, with a bar while pictures are decoded; list what was left out."""
    from rich.console import Console
    from rich.progress import Progress

    from mien.datasets import load_corpus

    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"reading {part['corpus']}", total=None)
        corpus = load_corpus(
            part["corpus"],
            source,
            options=part.get("options"),
            protocol=part.get("protocol"),
            soft_labels=soft_labels,
            on_step=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for line in corpus.skipped[:5]:
        typer.echo(f"left out: {line}", err=True)
    if len(corpus.skipped) > 5:
        typer.echo(f"left out: {len(corpus.skipped) - 5:,} more; mien audit lists them all", err=True)
    return corpus


def _show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    model, split, parts = results["model"], results["data"], ("standard", "twin_free")
    table = Table(title=f"{model['arch']} ({results['precision']}) on {split['corpus']} {split['split']}, single view")
    table.add_column("figure")
    for part in parts:
        table.add_column(part.replace("_", "-"), justify="right")
    table.add_row("images", *(f"{results[p]['images']:,}" if results[p] else "-" for p in parts))
    for key in ("accuracy", "macro_f1", "uar", "ece"):
        table.add_row(key, *(f"{100 * results[p][key]:.2f} %" if results[p] else "-" for p in parts))
    for name in results["classes"]:
        recalls = [results[p]["recall"][name] if results[p] else None for p in parts]
        table.add_row(f"recall {name}", *("-" if r is None else f"{100 * r:.2f} %" for r in recalls))
    Console().print(table)


def is_first_process() -> bool:
    """Return whether this is the process the user started, and not one that Fabric started to share the work."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class _TrainingProgress:
    """Time left and figures: a bar in a terminal, a line an epoch elsewhere."""

    def __init__(self, epochs: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = Console()
        shown = self.console.is_terminal and is_first_process()
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self.bar = Progress(*columns, console=self.console, disable=not shown, transient=True)
        self.task = self.bar.add_task("training", total=epochs, start=True)

    def __enter__(self) -> _TrainingProgress:
        self.bar.start()
        return self

    def __exit__(self, *details: object) -> None:
        self.bar.stop()

    def step(self, epoch: int, step: int, steps: int) -> None:
        """Move the bar by a step."""
        self.bar.update(self.task, completed=epoch - 1 + step / steps)

    def epoch(self, row: Epoch, epochs: int) -> None:
        """Print a finished epoch."""
        left = row.seconds * (epochs - row.epoch) / 60
        val = f"val loss {row.val_loss:.3f}  val accuracy {100 * row.val_accuracy:.2f} %  "
        if math.isnan(row.val_accuracy):  # the recipe selects on no split
            val = ""
        self.console.print(
            f"epoch {row.epoch}/{epochs}  train loss {row.train_loss:.3f}  {val}"
            f"{row.images_per_second:.0f} images/s  {left:.0f} min left",
            highlight=False,
            soft_wrap=True,
        )
