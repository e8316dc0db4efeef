"""The history of a run: one row per epoch, as a CSV file and as a picture of the curves."""

from __future__ import annotations

import csv
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from mien.atomic import atomic_path
from mien.errors import DataError, reason


@dataclass(frozen=True, slots=True)
class Epoch:
    """One row of the history.

    Attributes:
        epoch: Number, from 1.
        lr: Learning rate of its last step.
        train_loss: Mean training loss, with label smoothing, on augmented images.
        train_accuracy: Share of augmented training images classified correctly, in training mode.
        val_loss: Cross-entropy on the selection split; nan without one.
        val_accuracy: Accuracy on the selection split, of the moving average of the weights if there is one; nan without one.
        seconds: Wall time, evaluation included.
        images_per_second: Training images per second, evaluation excluded.
    """

    epoch: int
    lr: float
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    seconds: float
    images_per_second: float


def best_epoch(history: list[Epoch]) -> Epoch:
    """Return the epoch whose weights are kept: the best on the selection split (the first of equals), or else the last."""
    if math.isnan(history[-1].val_accuracy):
        return history[-1]
    return max(history, key=lambda row: row.val_accuracy)


def read_history(folder: Path) -> list[Epoch]:
    """Return the history in a run's folder.

    Raises:
        DataError: There is none, or it is not as `write_history` writes it.
    """
    path = folder / "history.csv"
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        return [Epoch(epoch=int(row.pop("epoch")), **{key: float(text) for key, text in row.items()}) for row in rows]
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{path}: is not the history of a run ({reason(error) if isinstance(error, OSError) else error})"
        ) from None


def write_history(folder: Path, history: list[Epoch]) -> None:
    """Write `history.csv` and `curves.png` into a run's folder."""
    with atomic_path(folder / "history.csv") as tmp_path, tmp_path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Epoch)])
        writer.writeheader()
        writer.writerows({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(row).items()} for row in history)
    with atomic_path(folder / "curves.png") as tmp_path:
        _draw_curves(tmp_path, history)


def _draw_curves(path: Path, history: list[Epoch]) -> None:
    from matplotlib.figure import Figure  # not pyplot: no global state, no display

    epochs = [row.epoch for row in history]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    losses, accuracies = figure.subplots(1, 2)
    losses.plot(epochs, [row.train_loss for row in history], label="train")
    losses.set(xlabel="epoch", ylabel="cross-entropy")
    accuracies.plot(epochs, [100 * row.train_accuracy for row in history], label="train (augmented)")
    if not math.isnan(history[-1].val_accuracy):
        best = best_epoch(history)
        losses.plot(epochs, [row.val_loss for row in history], label="val")
        accuracies.plot(epochs, [100 * row.val_accuracy for row in history], label="val")
        label = f"best {100 * best.val_accuracy:.2f} (epoch {best.epoch})"
        accuracies.plot([best.epoch], [100 * best.val_accuracy], "o", label=label)
    accuracies.set(xlabel="epoch", ylabel="accuracy, %")
    for axes in (losses, accuracies):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120, format="png")
