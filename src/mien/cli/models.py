"""`mien models` and `mien info`: what is there, and what a model file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mien.errors import CheckpointError

if TYPE_CHECKING:
    from mien.model_info import ModelInfo


def models() -> None:
    """List the bundled models and the architectures that can be trained."""
    from rich.console import Console
    from rich.table import Table

    from mien import weights

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("Name", no_wrap=True)
    for heading in ("Network", "Classes", "Parameters", "Measured accuracy"):
        table.add_column(heading, overflow="fold")
    for name, path in weights.bundled().items():
        table.add_row(name, *_summary(_read_info(path), weights.read_card(path)))
    console = Console(highlight=False)
    console.print(table)
    console.print(_architectures(), soft_wrap=True, markup=False)


def _summary(info: ModelInfo, card: dict[str, Any]) -> list[str]:
    parameters = card.get("parameters")
    measured = {**info.results, **(card.get("results") or {})}
    accuracy = [f"{split}\n{figures['accuracy']:.2%}" for split, figures in measured.items() if _has_accuracy(figures)]
    size = f"{parameters / 1e6:.1f} M {info.precision}" if parameters else info.precision
    return [info.arch, f"{len(info.classes)} {info.label_set}", size, "\n".join(accuracy) or "not stated"]


def _has_accuracy(figures: Any) -> bool:
    return isinstance(figures, dict) and isinstance(figures.get("accuracy"), float)


def _architectures() -> str:
    from importlib.util import find_spec

    if find_spec("torch") is None:
        return "Architectures to train: pip install 'mien[train]'"
    from mien.models import names

    return f"Architectures to train: {', '.join(names())}"


def info(
    model: Annotated[str, typer.Argument(metavar="NAME|FILE", help="Bundled model, .onnx file or .safetensors checkpoint.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show everything a model file says about itself."""
    from rich.console import Console

    from mien import weights

    path = Path(model) if model.endswith(".safetensors") else weights.resolve(model)
    held = json.loads(_read_info(path).to_json())
    values = {"file": str(path), "bytes": path.stat().st_size, "sha256": weights.sha256(path), **held}
    if as_json:
        typer.echo(json.dumps(values, indent=1))
    else:
        Console(highlight=False).print(_sheet(values))


def _sheet(values: dict[str, Any]) -> Any:
    from rich.table import Table
    from rich.text import Text

    sheet = Table(box=None, show_header=False, pad_edge=False)
    sheet.add_column(style="bold", no_wrap=True)
    sheet.add_column(overflow="fold")
    for key, value in values.items():
        sheet.add_row(key, Text("\n".join(_lines(key, value)) or "not stated"))
    return sheet


def _lines(key: str, value: Any) -> list[str]:
    if key == "classes":
        return [f"{index} {name}" for index, name in enumerate(value)]
    if isinstance(value, dict):
        return [f"{name}: {json.dumps(held)}" for name, held in value.items()]
    return [f"{value:,}" if isinstance(value, int) else str(value)] if value != "" else []


def _read_info(path: Path) -> ModelInfo:
    from mien.model_info import METADATA_KEY, ModelInfo

    if path.suffix != ".safetensors":
        from mien.runtime.onnx_backend import OnnxBackend

        return OnnxBackend(path, threads=1).info
    return ModelInfo.from_json(_safetensors_metadata(path).get(METADATA_KEY), str(path))


def _safetensors_metadata(path: Path) -> dict[str, str]:
    """Return a checkpoint's metadata without torch: a length of eight bytes, then a JSON header."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such model file")
    try:
        with path.open("rb") as file:
            header = json.loads(file.read(min(int.from_bytes(file.read(8), "little"), path.stat().st_size)))
        return dict(header.get("__metadata__", {}))
    except (ValueError, AttributeError, OSError):
        raise CheckpointError(f"{path}: is not a safetensors file or is damaged; train or download it again") from None
