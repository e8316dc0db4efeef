"""`mien train`, `mien finetune` and `mien recipes`."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli import options
from mien.cli.inputs import open_corpus
from mien.cli.options import option
from mien.cli.terminal import Bar, echo, print_table
from mien.errors import InputError, OutputError, RecipeError, require
from mien.weights import DEFAULT

if TYPE_CHECKING:
    from mien.datasets import Corpus
    from mien.engine.history import Epoch
    from mien.recipe import Recipe

Threads = Annotated[int | None, option("Number of CPU threads. Default: all cores.", "N", min=1)]
Logger = Annotated[
    str,
    option(
        "Experiment tracker: tensorboard, wandb (offline unless WANDB_MODE=online is set) or mlflow (in the folder mlruns "
        "next to the run unless MLFLOW_TRACKING_URI is set).",
        "NAME",
    ),
]


def train(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A bundled recipe (see mien recipes), a YAML file, or FILE.yaml:VARIANT.")
    ],
    data: options.Data,
    out: Annotated[Path, option("Folder of the run. If it holds this run already, the run resumes.", "FOLDER")],
    change: Annotated[
        list[str] | None,
        option("Change a value of the recipe, such as --set train.epochs=2. Repeatable.", "KEY=VALUE", None, "--set"),
    ] = None,
    seed: Annotated[int | None, option("Use this seed instead of the recipe's.", "N")] = None,
    epochs: Annotated[int | None, option("Train this many epochs instead of the recipe's.", "N")] = None,
    devices: Annotated[
        int | None,
        option(
            "Number of GPUs, or of processes on the CPU. Default: 1 GPU, or 1 process per core for small networks.", "N", min=1
        ),
    ] = None,
    precision: Annotated[
        str | None,
        option("bf16-mixed or 32-true. Default: bf16-mixed where it is fast (GPUs, some CPUs), else 32-true.", "NAME"),
    ] = None,
    threads: Threads = None,
    logger: Logger = "tensorboard",
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
        overrides = options.parse_pairs(change, "--set", "train.epochs=2", RecipeError)
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


def finetune(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Cropped faces: <class>/*, or train, val and test with <class>/*; or a table with the columns path and label.",
        ),
    ],
    out: Annotated[
        Path, option("Folder of the run. If it holds this run already, the run resumes.", "FOLDER", show_default=False)
    ],
    subject: Annotated[
        str | None,
        option(
            "How a picture's path below its class names the person, such as 'S[0-9]+'. Nobody is then in two splits. A "
            "table names people in its column subject.",
            "REGEX",
        ),
    ] = None,
    model: Annotated[
        str, option("Where to start: a bundled float32 model, an exported .onnx file or a run.", "NAME|FILE")
    ] = DEFAULT,
    folds: Annotated[
        int | None, option("Cross-validate: train N times, so that each image is a test image once.", "N", min=2)
    ] = None,
    change: Annotated[
        list[str] | None,
        option("Change a value of the recipe, such as --set optim.lr=0.01. Repeatable.", "KEY=VALUE", None, "--set"),
    ] = None,
    seed: Annotated[int, option("Seed of the splits and of the training.", "N", min=0)] = 0,
    epochs: Annotated[int | None, option("Train at most this many epochs. Default: 30.", "N", min=1)] = None,
    threads: Threads = None,
    logger: Logger = "tensorboard",
) -> None:
    """Fine-tune a model on your own faces, and measure it before and after on images kept out of training.

    The names of the folders are the classes. The model keeps what it knows of the classes it has; others are new.
    """
    torch = require("torch", "train")
    from mien.atomic import atomic_path, check_outputs
    from mien.engine import train as run
    from mien.engine.checks import check_files, check_names
    from mien.engine.devices import create_fabric
    from mien.engine.finetune import cautions, check_classes, compare, fill_recipe, measure, summary
    from mien.engine.loggers import check_logger
    from mien.evaluate import write_evaluation
    from mien.explain import load_backend
    from mien.provenance import available_cores

    check_logger(logger)
    changes = options.parse_pairs(change, "--set", "optim.lr=0.01", RecipeError) | {"seed": seed}
    changes |= {} if epochs is None else {"train.epochs": epochs}
    own = ("data.corpus", "data.options", "model.start", *(("data.protocol",) if folds else ()))
    if given := next((key for key in changes if key.startswith(own)), None):
        raise InputError(f"--set {given}: mien finetune fills this in from its own options; leave it out")
    table = data.suffix.lower() in (".csv", ".tsv", ".parquet")
    if table and subject is not None:
        raise InputError(f"--subject is for folders; {data} is a table, so name people in its column subject")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in ("recipe.yaml", "fold-0")):
        raise OutputError(f"{out}: exists and holds no run of mien finetune; choose another --out")
    check_outputs([out / "finetune.json"], [data])
    start = load_backend(model)
    torch.set_num_threads(threads or available_cores())
    read_with: dict[str, Any] = {"size": 96, "colour": start.info.preprocess.channels == 3}
    read_with |= {} if subject is None else {"subject": subject}
    loaded = open_corpus({"corpus": "manifest" if table else "folder", "options": read_with}, data)
    check_classes(loaded, data)
    parts = []
    for fold in range(folds or 1):
        folder = out if folds is None else out / f"fold-{fold}"
        recipe, corpus = fill_recipe(loaded, model, read_with, changes, folds, fold)
        check_names(recipe)
        check_files(recipe, folder, [data])
        for line in [] if fold else cautions(corpus, folds):
            echo(line)
        shown = ", ".join(f"{len(corpus.where(name)):,} {name}" for name in corpus.splits)
        echo(f"{'' if folds is None else f'fold {fold + 1} of {folds}: '}{shown} images ({corpus.protocol})")
        with TrainingProgress(recipe.train.epochs) as progress:
            result = run(
                recipe,
                corpus,
                folder,
                fabric=create_fabric(recipe),
                on_epoch=progress.epoch,
                on_step=progress.step,
                on_start=echo,
                logger=logger,
            )
        echo(f"best epoch {result.best.epoch} of {len(result.epochs)}: {100 * result.best.val_accuracy:.2f} % on val")
        answers, evaluation = measure(start, folder, corpus)
        write_evaluation(folder / "test.json", evaluation)
        parts.append(answers)
    results = compare(recipe, corpus, start, parts)
    with atomic_path(out / "finetune.json") as tmp_path:
        tmp_path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    for line in summary(results):
        echo(line)
    echo(f"wrote {out / 'finetune.json'}")
    if folds is None:
        echo(f"next: mien export {out} mine.onnx, and then: mien predict photo.jpg --model mine.onnx")


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="RECIPE", help="Print this recipe, complete, as YAML.")] = None,
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
