"""`mien split`: split a corpus and write the rows of each split to a file, to share and use again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli import options
from mien.cli.inputs import open_corpus
from mien.cli.terminal import echo, print_table
from mien.errors import DataError, OutputError, require

if TYPE_CHECKING:
    from mien.datasets import Corpus

EXAMPLE = "'{name: kfold, folds: 10, fold: 0, by: subject}'"


def split(
    data: options.CorpusData,
    corpus: options.CorpusName,
    protocol: Annotated[
        str, typer.Option(metavar="YAML", help=f"How to split it: {EXAMPLE}, or a list of such steps.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The protocol file to write (.json).", show_default=False)],
    option: options.CorpusOptions = None,
) -> None:
    """Split a corpus and write a file that says which image is in which split. Recipes can read the file."""
    from mien.atomic import check_kind, check_outputs
    from mien.datasets import write_protocol
    from mien.datasets.cache import files_outside
    from mien.datasets.corpus import CORPORA

    if out.suffix != ".json":
        raise OutputError(f"{out}: the protocol file is JSON; name a .json file, for example --out split.json")
    steps = _parse_protocol(protocol)
    chosen = options.parse_pairs(option)
    protocols = [step["path"] for step in steps if isinstance(step.get("path"), str)]
    check_outputs([out], [data, *protocols, *files_outside(CORPORA.get(corpus), data, chosen)])
    check_kind(out, "format", "splits")
    made = open_corpus({"corpus": corpus, "options": chosen, "protocol": steps}, data)
    write_protocol(out, made)
    _show(made)
    echo(f"wrote {out}")
    echo(f"a recipe reads it with data.protocol: {_in_a_recipe(steps, out)}")
    if made.skipped:
        raise typer.Exit(3)


def _parse_protocol(text: str) -> list[dict[str, Any]]:
    """Return the steps of `--protocol`, one mapping or a list of them in YAML."""
    yaml = require("yaml", "train")
    from mien.yaml_files import read_yaml

    try:
        value = read_yaml(text)
    except (yaml.YAMLError, ValueError):  # ValueError: an impossible date
        raise DataError(f"--protocol {text}: cannot be read; write it as {EXAMPLE}") from None
    steps = value if isinstance(value, list) else [value]
    if not steps or not all(isinstance(step, dict) and step for step in steps):
        raise DataError(f"--protocol {text}: is neither a protocol nor a list of them; write it as {EXAMPLE}")
    return steps


def _in_a_recipe(steps: list[dict[str, Any]], out: Path) -> str:
    """Return the protocol that reads the file, after the steps that change the classes."""
    yaml = require("yaml", "train")
    needed = [step for step in steps if step.get("name") == "map_to"] + [{"name": "file", "path": str(out)}]
    text: str = yaml.safe_dump(needed if len(needed) > 1 else needed[0], default_flow_style=True, sort_keys=False, width=1000)
    return text.strip()


def _show(corpus: Corpus) -> None:
    """Print the number of images of each class in each split."""
    import numpy as np

    echo(f"{corpus.name}: {corpus.protocol}")
    counts = np.array(
        [np.bincount(corpus.target[corpus.rows.split == i], minlength=len(corpus.classes)) for i in range(len(corpus.splits))]
    )
    rows = [
        [name, *(f"{n:,}" for n in (*row, row.sum()))]
        for name, row in zip((*corpus.classes, "together"), (*counts.T, counts.sum(1)), strict=True)
    ]
    print_table(["class", *corpus.splits, "together"], rows, sums=True)
    if left := len(corpus.target) - counts.sum():
        echo(f"{left:,} of {len(corpus.target):,} images are in no split")
