"""`mien models` lists models and networks; `mien info` shows the contents of a model file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.cli.terminal import per_cent
from mien.errors import CheckpointError, InputError, require
from mien.text import escape_json, printable

NARROW = 76
"""Columns below which the list of models has no column for their use."""

CAPTION = """FER2013: accuracy on private_test. CK+48: accuracy without training on it.
mien info NAME shows all figures; mien info NAME --card is a model card.
"""

if TYPE_CHECKING:
    from rich.table import Table

    from mien.model_info import ModelInfo
    from mien.models import Model
    from mien.models.cost import Cost


def models(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show only this network. timm/<name> works too.")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="Show the network layer by layer.")] = False,
) -> None:
    """List the bundled models and the networks you can train, with their size and number of operations."""
    from importlib.util import find_spec

    from rich.console import Console

    console = Console(highlight=False)
    if name is not None:
        console.print(_layers(name) if layers else _costs([name]))
    elif layers:
        raise InputError("--layers shows one network; name it: mien models sa_csp_ca --layers")
    else:
        console.print(_bundled(console.width))
        console.print(CAPTION)
        if any(find_spec(package) is None for package in ("torch", "timm")):
            console.print("Networks to train: pip install 'mien[train]'", markup=False)
        else:
            from mien.models import names

            console.print(_costs(names()))


def _bundled(width: int) -> Table:
    """Return one row per bundled model; on a narrow terminal, what it is for stands below its name."""
    from rich.text import Text

    from mien import weights
    from mien.weights.card import accuracy, uses

    narrow, use = width < NARROW, uses()
    table = _table("Bundled model", "Parameters", "FER2013", "CK+48", *(() if narrow else ("Use",)))
    for name, path in weights.files().items():
        info, card = _read_info(path), weights.read_card(path)
        size = f"{card['parameters'] / 1e6:.1f} M {info.precision}" if "parameters" in card else info.precision
        shares = [accuracy(card, "private_test"), card.get("selection", {}).get("ckplus48")]
        cells = [size, *map(per_cent, shares)]
        names = f"{printable(name)}\n  {use[name]}" if narrow and name in use else printable(name)
        table.add_row(Text(names), *map(Text, map(printable, cells if narrow else [*cells, use.get(name, "")])))
    return table


def _costs(names: list[str]) -> Table:
    """Return one row per network: the cost of one image of its input size, with 7 classes."""
    from mien.models.cost import model_cost

    table = _table("Network", "Input", "Parameters", "MACs", "Activations")
    table.columns[0].no_wrap = False  # on a narrow terminal, names are divided, not numbers
    for column in table.columns[1:]:
        column.no_wrap = True
    for name in names:
        cost = model_cost(_blank(name))
        table.add_row(name, _shape(cost.input_shape), *_figures(cost))
    return table


def _layers(name: str) -> Table:
    """Return one row per layer, as in Table 1 of sa_csp_ca's paper, and the total."""
    from mien.models.cost import layer_costs, model_cost

    model = _blank(name)
    table = _table("Layer", "Operator", "Input", "Output", "Parameters", "MACs", "Activations")
    for cost in [*layer_costs(model), model_cost(model)]:
        shapes = _shape(cost.input_shape), _shape(cost.output_shape)
        table.add_row(cost.name or "total", cost.operator, *shapes, *_figures(cost))
    return table


def _table(first: str, *headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column(first, no_wrap=True, overflow="fold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _blank(name: str) -> Model:
    """Return a network without weights in memory; its shapes are enough."""
    torch = require("torch", "train")
    from mien.models import create_model

    with torch.device("meta"):
        return create_model(name)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def _figures(cost: Cost) -> tuple[str, str, str]:
    return f"{cost.parameters:,}", f"{cost.macs / 1e6:,.1f} M", f"{cost.activation_bytes / 2**20:,.2f} MiB"


def info(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|FILE", help="Bundled model, ensemble, .onnx file, hf://user/model or .safetensors checkpoint."
        ),
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    card: Annotated[
        bool,
        typer.Option(
            "--card", help="Print a model card in Markdown, in Hugging Face's format: mien info NAME --card > README.md"
        ),
    ] = False,
) -> None:
    """Show everything that is stored in a model file and its card: classes, preprocessing, training and results."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mien import weights

    path = Path(model) if model.endswith(".safetensors") else weights.model_file(model)
    stored = _read_info(path)
    if card:
        from mien.weights.card import markdown

        typer.echo("\n".join(map(printable, markdown(path, stored).removesuffix("\n").split("\n"))))
        return
    values = {"file": str(path), "bytes": path.stat().st_size, "sha256": weights.sha256(path), **json.loads(stored.to_json())}
    values["card"] = {key: value for key, value in weights.read_card(path).items() if key == "results" or key not in values}
    if as_json:
        typer.echo("\n".join(map(escape_json, json.dumps(values, indent=1).split("\n"))))
        return
    sheet = Table(box=None, show_header=False, pad_edge=False)
    sheet.add_column(style="bold", max_width=17, overflow="fold")
    sheet.add_column(overflow="fold")
    measured = values.pop("card")
    for key, value in [*values.items(), *((key.replace("results", "measured"), value) for key, value in measured.items())]:
        sheet.add_row(Text(printable(key)), Text("\n".join(map(printable, _lines(key, value))) or "not stated"))
    Console(highlight=False).print(sheet)


def _lines(key: str, value: Any) -> list[str]:
    if key == "classes":
        return [f"{index} {name}" for index, name in enumerate(value)]
    if isinstance(value, dict):
        return [f"{name}: {json.dumps(_rounded(held))}" for name, held in value.items()]
    if isinstance(value, list):
        return [held if isinstance(held, str) else json.dumps(_rounded(held)) for held in value]
    return [f"{value:,}" if isinstance(value, int) else str(value)] if value != "" else []


def _rounded(value: Any) -> Any:
    """Return JSON values with four digits after the point, which is what a person reads."""
    if isinstance(value, dict):
        return {key: _rounded(held) for key, held in value.items()}
    if isinstance(value, list):
        return [_rounded(held) for held in value]
    return round(value, 4) if isinstance(value, float) and abs(value) >= 0.001 else value


def _read_info(path: Path) -> ModelInfo:
    from mien.model_info import METADATA_KEY, ModelInfo, check_file_digest

    if path.suffix != ".safetensors":
        from mien.predict.backend import open_backend

        return open_backend(path, threads=1).info
    if not path.is_file():
        raise CheckpointError(f"{path}: no such model file")
    try:  # without torch: the file begins with a length (8 bytes) and a JSON header
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), path.stat().st_size)))
        metadata = header.get("__metadata__", {}).get(METADATA_KEY)
    except (ValueError, TypeError, AttributeError, OSError, RecursionError, MemoryError):
        raise CheckpointError(f"{path}: is not a safetensors file or is corrupt; train or download it again") from None
    return ModelInfo.from_json(metadata, str(path), check_file_digest(path))
