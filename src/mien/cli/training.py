"""`mien train`, `mien evaluate`, `mien export` and `mien recipes`: the commands that need the train extra."""

from __future__ import annotations

import math
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from mien.cli import options
from mien.cli.options import parse_pairs
from mien.errors import DataError, InputError, RecipeError, require
from mien.labels import label_set
from mien.text import printable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from mien.datasets import Corpus
    from mien.engine.history import Epoch
    from mien.groups import Groups
    from mien.predict.recognizer import Backend

PICTURE_DPI = 150
"""Pixels per inch of the confusion matrix next to the results; for print, mien figure draws it at 300."""

DataOption = Annotated[
    Path, typer.Option("--data", help="The corpus: its file or folder, as published by its authors or on Kaggle.")
]


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A bundled recipe (see mien recipes), a YAML file, or FILE.yaml:VARIANT.")
    ],
    data: DataOption,
    out: Annotated[Path, typer.Option("--out", help="Folder of the run. If it holds this run already, the run resumes.")],
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
) -> None:
    """Train a recipe, or resume a run that was stopped."""
    torch = require("torch", "train")
    from mien.engine import train as run
    from mien.engine.checks import check_files, check_names
    from mien.engine.devices import create_fabric, default_devices
    from mien.provenance import available_cores
    from mien.recipe import load_recipe, recipe_file

    overrides = parse_pairs(change, "--set", "train.epochs=2", RecipeError)
    overrides |= {key: value for key, value in (("seed", seed), ("train.epochs", epochs)) if value is not None}
    chosen = load_recipe(recipe, overrides)
    check_names(chosen)
    written = recipe_file(recipe)
    own = written is not None and written.is_file() and written.read_text(encoding="utf-8") == chosen.to_yaml()
    check_files(chosen, out, [data, *([written] if written and not own else [])])  # a run's own recipe resumes it
    corpus = open_corpus(chosen.data.model_dump(), data)
    cores = threads or available_cores()
    devices = devices or default_devices(chosen, corpus, cores)
    if threads or torch.get_num_threads() * devices > cores:
        torch.set_num_threads(max(1, cores // devices))
        os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # Fabric reads it
    with _TrainingProgress(chosen.train.epochs) as progress:
        fabric = create_fabric(chosen, devices, precision)
        result = run(chosen, corpus, out, fabric=fabric, on_epoch=progress.epoch, on_step=progress.step, on_start=_echo)
    if not fabric.is_global_zero:
        return
    if chosen.data.select is None:
        _echo(f"kept the last epoch, {result.best.epoch}, in {out} (the recipe has no selection split)")
    else:
        best = f"best epoch {result.best.epoch}: {100 * result.best.val_accuracy:.2f} % on {chosen.data.select}"
        _echo(f"{best}; kept in {out}")
    _echo(f"next: mien evaluate {out} --data {data} --split {corpus.splits[-1]}")


def evaluate(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A run's folder, a .safetensors or .onnx file, or the name of a bundled model."),
    ],
    data: DataOption,
    split: Annotated[
        str | None,
        typer.Option(
            help="Split to measure on. Use a test split only once, at the end. Default: public_test, or the only split."
        ),
    ] = None,
    corpus: Annotated[
        str | None,
        typer.Option(
            "--corpus",
            metavar="NAME",
            help="What the data are, such as folder, manifest or ckplus. Default: the corpus that trained the model.",
        ),
    ] = None,
    option: options.CorpusOptions = None,
    map_to: Annotated[
        str | None,
        typer.Option(
            metavar="LABELSET",
            help="Measure these classes only, such as ckplus, as far as the model has them. Default: all classes of the model.",
        ),
    ] = None,
    training_data: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help="The data that trained the model, to count the images that it has seen in training."),
    ] = None,
    view: Annotated[
        str,
        typer.Option(
            metavar="VIEW",
            help="single: each image as it is. mirror: the mean with its mirror image. ten: the mean of corners and centre, "
            "mirrored or not.",
        ),
    ] = "single",
    group_by: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Also measure each group of this column: of the manifest, of --groups, or gender, race or age of RAF-DB. "
            "Repeat it for several columns.",
        ),
    ] = None,
    groups: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.csv", help="Table with the columns of --group-by, and path or row to say which image it is."
        ),
    ] = None,
    detect: Annotated[
        bool,
        typer.Option(
            "--detect",
            help="The data are a table of photos (path, label, and left, top, right, bottom of each face): find the faces as "
            "mien predict does, and also measure how many are found.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", help="Results file to write (.json). Default: next to the weights.")
    ] = None,
) -> None:
    """Measure a model on a corpus or on your own labelled pictures.

    Writes the results, the predictions and a confusion matrix. Classes are matched by name.
    """
    require("torchmetrics", "train")
    from mien.atomic import check_kind, check_outputs, check_place
    from mien.cli.groups import open_photos, show_groups
    from mien.cli.progress import StepBar
    from mien.datasets.cache import files_outside
    from mien.datasets.corpus import CORPORA
    from mien.evaluate import View, notes, write_evaluation
    from mien.evaluate import evaluate as measure
    from mien.faces import DEFAULT_DETECTOR
    from mien.groups import read_groups
    from mien.report import Measured, confusion_figure, write_figure
    from mien.results import predictions_path
    from mien.weights import card_path

    if out is not None and out.suffix != ".json":
        raise InputError(f"{out}: the results file is JSON; use a name such as --out results.json")
    if view not in get_args(View):
        raise InputError(f"--view {view}: choose one of {', '.join(get_args(View))}")
    if option and not corpus:
        raise InputError("--option is an option of a corpus; say which with --corpus")
    if groups is not None and not group_by:
        raise InputError(f"--groups {groups}: say by which of its columns, with --group-by COLUMN")
    if detect and (corpus or groups):
        raise InputError("--detect reads a table of photos with all its columns; leave out --corpus and --groups")
    columns = list(dict.fromkeys(group_by or []))
    if columns:
        require("fairlearn", "analyse")
    if map_to is not None:
        label_set(map_to)  # an unknown one is refused before anything is read
    read_with = parse_pairs(option, "--option", "size=48", DataError) if corpus else None
    backend, file = open_model(model)
    if out is not None:
        check_place(out)
    members: Groups | None = None
    if detect:
        measured, members = open_photos(backend, data, columns)
        read_with = {"detector": DEFAULT_DETECTOR}
    else:
        measured = _measured_corpus(backend, data, corpus, read_with)
        if columns:
            members = read_groups(measured, data, columns, groups)
    split = split or (measured.splits[0] if len(measured.splits) == 1 else "public_test")
    if out is None:
        parts = (
            data.stem if corpus or detect else "",
            split,
            "" if view == "single" else view,
            f"as-{map_to}" if map_to else "",
        )
        out = _default_results(model, file, "-".join(part for part in parts if part))
    picture = out.with_name(f"{out.stem}-confusion.png")
    read = [file, card_path(file), data, *(given for given in (groups, training_data) if given is not None)]
    read += [] if detect else files_outside(CORPORA.get(measured.name), data, read_with or {})
    check_outputs([out, predictions_path(out), picture], read)
    check_kind(out, "model", "standard")
    trained = None if training_data is None else corpus_of(backend, training_data)
    votes = votes_on(measured, data)
    with StepBar() as bar:
        evaluation = measure(
            backend,
            measured,
            split,
            file,
            partial(bar.step, f"measuring on {split}"),
            view=cast(View, view),
            votes=votes,
            map_to=map_to,
            options=read_with,
            training=trained,
            groups=members,
        )
    _show(evaluation.results)
    show_groups(evaluation.results)
    for line in notes(evaluation.results):
        _echo(line)
    written = write_evaluation(out, evaluation)
    write_figure(picture, confusion_figure(Measured((out,), (evaluation.results,))), PICTURE_DPI)
    for path in (*written, picture):
        _echo(f"wrote {path}")


def _measured_corpus(backend: Backend, data: Path, name: str | None, options: dict[str, Any] | None) -> Corpus:
    """Return the corpus of a name, by default the one that trained the model."""
    if name is not None:
        return open_corpus({"corpus": name, "options": options}, data, soft_labels=False)
    try:
        return corpus_of(backend, data)
    except DataError as error:
        raise DataError(
            f"{error}. The model was trained on this corpus; if your data are another, say so with --corpus"
        ) from None


def _default_results(model: str, file: Path, split: str) -> Path:
    """Return the default results file: next to the weights, or in the working folder for a bundled model."""
    if Path(model).is_dir():
        return file.with_name(f"{split}.json")
    folder = file.parent if Path(model).exists() else Path()
    return folder / f"{file.stem}-{split}.json"


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
        typer.Option("--data", help="The corpus. Its training images are used to compare with torch and for --int8."),
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
        backend, _ = open_model(str(run))
        corpus = corpus_of(backend, data)
        crops = calibration_crops(corpus, (backend.info.recipe.get("data") or {"train": "train"})["train"])
    done = export_onnx(run, out, crops, half_size=half_size)
    write_card(done)
    _echo(f"wrote {out}: logits within {done.max_difference:.1e} of torch")
    if int8 and corpus is not None and crops is not None:
        _export_int8(run, out, corpus, crops)


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="[RECIPE]", help="Print this recipe, complete, as YAML.")] = None,
) -> None:
    """List the bundled recipes, or print one."""
    require("yaml", "train")
    from rich.console import Console
    from rich.table import Table

    from mien.recipe import load_recipe, recipe_names

    if name is not None:
        typer.echo(load_recipe(name).to_yaml(), nl=False)
        return
    table = Table("recipe", "what it trains", "row of the paper")
    for known in recipe_names():
        recipe = load_recipe(known)
        table.add_row(known, recipe.summary, recipe.paper.table if recipe.paper else "")
    Console().print(table)


def open_model(model: str) -> tuple[Backend, Path]:
    """Return a backend and its weights file for a run's folder, a checkpoint, an exported file or a bundled model."""
    path = Path(model)
    if path.is_dir() or path.suffix == ".safetensors":
        require("torch", "train")
        from mien.engine.torch_backend import TorchBackend

        return TorchBackend(path), path / "best.safetensors" if path.is_dir() else path
    from mien.predict.recognizer import open_backend

    backend = open_backend(model)
    return backend, backend.path


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
    _echo(f"wrote {path}: {before:.2f} % became {after:.2f} % on {split} ({before - after:+.2f} points lost)")


def corpus_of(backend: Backend, data: Path) -> Corpus:
    """Return the corpus with the splits a model was trained on. Files that only soften the labels are not needed."""
    return open_corpus(backend.info.recipe.get("data") or {"corpus": backend.info.label_set}, data, soft_labels=False)


def votes_on(corpus: Corpus, data: Path) -> NDArray[np.int64] | None:
    """Return FER+'s votes on a corpus; None if they are not at hand. A file that cannot be used is named, and not used."""
    from mien.datasets import vote_counts

    try:
        return vote_counts(corpus, data)
    except DataError as error:
        typer.echo(f"without agreement with votes: {error}", err=True)
        return None


def open_corpus(part: dict[str, Any], source: Path, soft_labels: bool = True) -> Corpus:
    """Return the corpus of a recipe's section `data`, with a progress bar while its images are first decoded.

    The images that were left out are listed.
    """
    from mien.cli.progress import StepBar
    from mien.datasets import load_corpus

    name, options, protocol = part["corpus"], part.get("options"), part.get("protocol")
    with StepBar() as bar:
        on_step = partial(bar.step, f"reading {name}")
        corpus = load_corpus(name, source, options=options, protocol=protocol, soft_labels=soft_labels, on_step=on_step)
    list_skipped(corpus)
    return corpus


def list_skipped(corpus: Corpus) -> None:
    """Print how many images of a corpus were left out, and the first of them."""
    for line in corpus.skipped[:5]:
        typer.echo(f"left out: {printable(line)}", err=True)
    if len(corpus.skipped) > 5:
        typer.echo(f"left out: {len(corpus.skipped) - 5:,} more; mien audit lists them all", err=True)


def _echo(line: object) -> None:
    typer.echo(printable(str(line)))


def _show(results: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    model, data, parts = results["model"], results["data"], ("standard", "twin_free")
    on = f"{data['corpus']} {data['split']} ({data['protocol']})"
    title = f"{model['arch']} ({results['precision']}) on {on}, view: {results['view']}"
    table = Table(title=Text(printable(title)))
    table.add_column("metric")
    for part in parts:
        table.add_column(part.replace("_", "-"), justify="right")
    table.add_row("images", *(f"{results[p]['images']:,}" if results[p] else "-" for p in parts))

    def add(title: str, values: list[float | None], form: str = "{:.2%}") -> None:
        table.add_row(
            Text(printable(title)), *("-" if value is None else form.format(value).replace("%", " %") for value in values)
        )

    if detection := results["detection"]:
        low, high = detection["interval"]
        table.add_row("faces found", f"{detection['found']:,} of {detection['faces']:,}")
        table.add_row("  95 % interval", f"{low:.1%} to {high:.1%}".replace("%", " %"))
    for key in ("accuracy", "macro_f1", "uar", "kappa", "ece", "votes_agreement"):
        values = [results[p][key] if results[p] else None for p in parts]
        if key != "votes_agreement" or any(value is not None for value in values):
            add(key, values, "{:.4f}" if key == "kappa" else "{:.2%}")
        if key == "accuracy":
            ranges = [results[p]["accuracy_interval"] if results[p] else None for p in parts]
            table.add_row(
                "  95 % interval", *("-" if r is None else f"{r[0]:.1%} to {r[1]:.1%}".replace("%", " %") for r in ranges)
            )
    for coverage, found in (results["sets"] or {}).items():
        shown = f"{found['coverage']:.2%}, {found['size']:.2f} classes".replace("%", " %")
        table.add_row(f"sets for {float(coverage):.0%}".replace("%", " %"), shown)
    for key in ("recall", "fpr"):
        for name in results["classes"]:
            add(f"{key} {name}", [results[p][key][name] if results[p] else None for p in parts])
    Console().print(table)


def is_first_process() -> bool:
    """Return whether this is the process the user started, and not one that Fabric started to share the work."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


class _TrainingProgress:
    """The output of `mien train`: one line per epoch and, in a terminal, a progress bar."""

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
        """Advance the bar by one step."""
        self.bar.update(self.task, completed=epoch - 1 + step / steps)

    def epoch(self, row: Epoch, epochs: int) -> None:
        """Print a finished epoch."""
        left = row.seconds * (epochs - row.epoch) / 60
        val = f"val loss {row.val_loss:.3f}  val accuracy {100 * row.val_accuracy:.2f} %  "
        if math.isnan(row.val_accuracy):  # no selection split
            val = ""
        self.console.print(
            f"epoch {row.epoch}/{epochs}  train loss {row.train_loss:.3f}  {val}"
            f"{row.images_per_second:.0f} images/s  {left:.0f} min left",
            highlight=False,
            soft_wrap=True,
        )
