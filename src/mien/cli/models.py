"""`mien models` lists models and networks; `mien info` shows the contents of a model file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import CheckpointError, InputError, require
from mien.text import escape_json, printable

if TYPE_CHECKING:
    from rich.table import Table

    from mien.model_info import ModelInfo
    from mien.models import Model
    from mien.models.cost import Cost


def models(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Show only this network. timm/<name> works too.")] = None,
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
        console.print(_bundled())
        if any(find_spec(package) is None for package in ("torch", "timm")):
            console.print("Networks to train: pip install 'mien[train]'", markup=False)
        else:
            from mien.models import names

            console.print(_costs(names()))


def _bundled() -> Table:
    from rich.text import Text

    from mien import weights

    table = _table("Bundled model", "Network", "Classes", "Parameters", "Measured accuracy")
    ensemble = {weights.ENSEMBLE: weights.ensemble_file()} if weights.ensemble_file().is_file() else {}
    for name, path in (weights.bundled() | ensemble).items():
        info, card = _read_info(path), weights.read_card(path)
        parts = info.arguments["members"] if name == weights.ENSEMBLE else [name]
        parameters = sum(weights.read_card(weights.bundled()[part]).get("parameters", 0) for part in parts)
        size = f"{parameters / 1e6:.1f} M {info.precision}" if parameters else info.precision
        accuracy = [
            text
            for split, figures in (card.get("results") or info.results).items()
            if isinstance(figures, dict) and isinstance(figures.get("accuracy"), float)
            for text in (split, f"{figures['accuracy']:.2%}")
        ]
        cells = (name, info.arch, f"{len(info.classes)} {info.label_set}", size)
        table.add_row(*map(Text, map(printable, cells)), Text("\n".join(map(printable, accuracy)) or "not stated"))
    return table


def _costs(names: list[str]) -> Table:
    """Return one row per network: the cost of one image of its input size, with 7 classes."""
    from mien.models.cost import model_cost

    table = _table("Network", "Input", "Parameters", "MACs", "Activations")
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

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first, no_wrap=True)
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
        str, typer.Argument(metavar="NAME|FILE", help="Bundled model, ensemble, .onnx file or .safetensors checkpoint.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show everything that is stored in a model file: classes, preprocessing, training and results."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mien import weights

    path = Path(model) if model.endswith(".safetensors") else weights.model_file(model)
    stored = json.loads(_read_info(path).to_json())
    values = {"file": str(path), "bytes": path.stat().st_size, "sha256": weights.sha256(path), **stored}
    if as_json:
        typer.echo("\n".join(map(escape_json, json.dumps(values, indent=1).split("\n"))))
        return
    sheet = Table(box=None, show_header=False, pad_edge=False)
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")
    for key, value in values.items():
        sheet.add_row(Text(printable(key)), Text("\n".join(map(printable, _lines(key, value))) or "not stated"))
    Console(highlight=False).print(sheet)


def _lines(key: str, value: Any) -> list[str]:
    if key == "classes":
        return [f"{index} {name}" for index, name in enumerate(value)]
    if isinstance(value, dict):
        return [f"{name}: {json.dumps(held)}" for name, held in value.items()]
    return [f"{value:,}" if isinstance(value, int) else str(value)] if value != "" else []


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
