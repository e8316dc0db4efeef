"""`mien finetune`: fine-tune a bundled model on one's own faces, and measure it before and after."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from mien.cli.inputs import open_corpus
from mien.cli.options import parse_pairs
from mien.cli.terminal import echo
from mien.cli.training import LoggerOption, TrainingProgress
from mien.errors import InputError, OutputError, RecipeError, require
from mien.weights import DEFAULT


def finetune(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="Cropped faces: <class>/*, or train, val and test with <class>/*; or a table with the columns path and label.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(help="Folder of the run. If it holds this run already, the run resumes.", show_default=False),
    ],
    subject: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="How a picture's path below its class names the person, such as 'S[0-9]+'. Nobody is then in two splits. A "
            "table names people in its column subject.",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(metavar="NAME|FILE", help="Where to start: a bundled float32 model, an exported .onnx file or a run.")
    ] = DEFAULT,
    folds: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Cross-validate: train N times, so that each image is a test image once."),
    ] = None,
    change: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value of the recipe, such as --set optim.lr=0.01. Repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the splits and of the training.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Train at most this many epochs. Default: 30.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Number of CPU threads. Default: all cores.")] = None,
    logger: LoggerOption = "tensorboard",
) -> None:
    """Fine-tune a model on your own faces, and measure it before and after on images kept out of training.

    The names of the folders are the classes. The model keeps what it knows of the classes it has; others are new.
    """
    torch = require("torch", "train")
    from mien.atomic import atomic_path, check_outputs
    from mien.engine import train
    from mien.engine.checks import check_files, check_names
    from mien.engine.devices import create_fabric
    from mien.engine.finetune import cautions, check_classes, compare, fill_recipe, measure, summary
    from mien.engine.loggers import check_logger
    from mien.evaluate import write_evaluation
    from mien.explain import load_backend
    from mien.provenance import available_cores

    check_logger(logger)
    changes = parse_pairs(change, "--set", "optim.lr=0.01", RecipeError) | {"seed": seed}
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
    options: dict[str, Any] = {"size": 96, "colour": start.info.preprocess.channels == 3}
    options |= {} if subject is None else {"subject": subject}
    loaded = open_corpus({"corpus": "manifest" if table else "folder", "options": options}, data)
    check_classes(loaded, data)
    parts = []
    for fold in range(folds or 1):
        folder = out if folds is None else out / f"fold-{fold}"
        recipe, corpus = fill_recipe(loaded, model, options, changes, folds, fold)
        check_names(recipe)
        check_files(recipe, folder, [data])
        for line in [] if fold else cautions(corpus, folds):
            echo(line)
        shown = ", ".join(f"{len(corpus.where(name)):,} {name}" for name in corpus.splits)
        echo(f"{'' if folds is None else f'fold {fold + 1} of {folds}: '}{shown} images ({corpus.protocol})")
        with TrainingProgress(recipe.train.epochs) as progress:
            result = train(
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
