"""The training loop: a recipe and a corpus in, a run's folder out.

A run's folder holds `recipe.yaml`, `history.csv`, `curves.png`, TensorBoard's events, `best.safetensors` (the epoch that did
best on the selection split) and `last.ckpt` (everything a killed run needs to go on; written every epoch).
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from timm.data.mixup import Mixup
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

import mien
from mien.atomic import atomic_path
from mien.augment import Augment
from mien.checkpoint import save_checkpoint
from mien.datasets import Corpus
from mien.engine.history import Epoch, write_history
from mien.engine.objective import create_objective
from mien.engine.optim import create_average, create_optimizer, create_plateau, create_schedule
from mien.errors import CheckpointError, RecipeError
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.preprocess import preprocess
from mien.provenance import current_commit
from mien.recipe import Recipe
from mien.transfer import Transfer, start_from


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a finished run reached.

    Attributes:
        folder: The run's folder.
        best: The epoch kept in `best.safetensors`.
        epochs: The history.
    """

    folder: Path
    best: Epoch
    epochs: list[Epoch]


def train(
    recipe: Recipe,
    corpus: Corpus,
    out: Path,
    *,
    fabric: Fabric | None = None,
    on_epoch: Callable[[Epoch, int], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_start: Callable[[Transfer], None] | None = None,
) -> TrainResult:
    """Train, or go on training, a recipe into a folder.

    Args:
        recipe: The run.
        corpus: Its data.
        out: The run's folder; a run of the same recipe on the same data found there goes on after its last whole epoch.
        fabric: Devices and precision; by default the GPU in bfloat16 where there is one, else the CPU in float32.
        on_epoch: Called with each finished epoch and the number of epochs of the run, by the first process only.
        on_step: Called with the number of the epoch, the steps done in it and the steps of an epoch.
        on_start: Called, by the first process, with what a start from other weights loaded, if the recipe has one.

    Raises:
        RecipeError: The recipe does not fit the corpus.
        CheckpointError: The folder holds another run.
        OutputError: The folder cannot be written.
    """
    run = Run(recipe, corpus, out, fabric or default_fabric())
    history = run.resume()
    run.begin()
    if on_start is not None and run.transfer is not None and run.fabric.is_global_zero:
        on_start(run.transfer)
    writer = SummaryWriter(str(out), purge_step=len(history) + 1) if run.fabric.is_global_zero else None
    for number in range(len(history) + 1, recipe.train.epochs + 1):
        history.append(run.epoch(number, on_step))
        run.save(history)
        if writer is not None:
            _log(writer, history[-1])
            if on_epoch is not None:
                on_epoch(history[-1], recipe.train.epochs)
    if writer is not None:
        writer.close()
    return TrainResult(out, _best(history), history)


def default_fabric(devices: int | str = 1, precision: str | None = None) -> Fabric:
    """Return the devices and precision to train with: CUDA in bfloat16 where there is a GPU, else the CPU in float32."""
    gpu = torch.cuda.is_available()
    chosen: Any = precision or ("bf16-mixed" if gpu else "32-true")
    return Fabric(accelerator="cuda" if gpu else "cpu", devices=devices, precision=chosen)


class Run:
    """The objects of one run; `epoch` advances them, `save` and `resume` keep them."""

    def __init__(self, recipe: Recipe, corpus: Corpus, out: Path, fabric: Fabric) -> None:
        self.recipe, self.out, self.fabric, self.fingerprint = recipe, out, fabric, corpus.fingerprint
        self.classes = corpus.classes
        fabric.launch()
        torch.manual_seed(recipe.seed)
        self.spec = recipe.preprocess.spec()
        model = create_model(recipe.model.name, num_classes=len(self.classes), **recipe.model.arguments)
        self.transfer = start_from(model, recipe.model.start) if recipe.model.start else None
        if model.in_channels != self.spec.channels:
            raise RecipeError(f"preprocess.channels is {self.spec.channels}, {recipe.model.name} takes {model.in_channels}")
        rows = corpus.where(recipe.data.train)
        self.images, self.target = (fabric.to_device(t) for t in _tensors(corpus, rows))
        self.steps = len(rows) // recipe.train.batch_size
        if self.steps == 0:
            raise RecipeError(f"train.batch_size is {recipe.train.batch_size}, the training split has {len(rows)} images")
        rows = corpus.where(recipe.data.select)
        self.val_inputs = torch.from_numpy(preprocess(list(corpus.images[rows]), self.spec))
        self.val_target = torch.from_numpy(corpus.target[rows])
        self.plain = create_objective(recipe, model)
        fabric.to_device(self.plain)
        self.average = create_average(recipe, self.plain.model)
        optimizer = create_optimizer(recipe, self.plain.model, self.plain.loss)
        self.schedule = create_schedule(recipe.optim, optimizer, self.steps, recipe.train.epochs)
        self.plateau = create_plateau(recipe.optim, optimizer)
        wrapped: Any = torch.compile(self.plain) if recipe.train.compile else self.plain
        self.objective, self.optimizer = fabric.setup(wrapped, optimizer)
        self.augment = fabric.to_device(Augment(recipe.augment, self.spec))
        self.mixup = _mixup(recipe, len(self.classes))

    def epoch(self, number: int, on_step: Callable[[int, int, int], None] | None) -> Epoch:
        """Train one pass, evaluate, and return its row. Seeds come from the number, so a resumed run repeats no draw."""
        start = time.perf_counter()
        loss, accuracy = self.fit(number, on_step)
        rate = self.steps * self.recipe.train.batch_size / (time.perf_counter() - start)
        val_loss, val_accuracy = self._evaluate()
        lr = self.optimizer.param_groups[0]["lr"]
        if self.plateau is not None:
            self.plateau.step(val_loss if self.recipe.optim.plateau_metric == "loss" else val_accuracy)
        return Epoch(number, lr, loss, accuracy, val_loss, val_accuracy, time.perf_counter() - start, rate)

    def fit(self, number: int, on_step: Callable[[int, int, int], None] | None = None) -> tuple[float, float]:
        """Train one pass; return the mean loss and accuracy of its steps."""
        seed = self.recipe.seed * 100_003 + number
        torch.manual_seed(seed + 50_021 * self.fabric.global_rank)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (timm's mixup draws from it)
        order = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(seed)).to(self.images.device)
        size = self.recipe.train.batch_size
        local = size // self.fabric.world_size
        sums = torch.zeros(2, device=self.images.device)
        self.objective.train()
        for step in range(self.steps):
            first = step * size + self.fabric.global_rank * local
            sums += self._step(order[first : first + local])
            done = (number - 1) * self.steps + step + 1
            if self.schedule is not None:
                self.schedule.step_update(done)
            if self.average is not None:
                self.average.update(self.plain.model, step=done)
            if on_step is not None:
                on_step(number, step + 1, self.steps)
        loss, accuracy = self.fabric.all_reduce(sums / self.steps, reduce_op="mean").tolist()  # type: ignore[union-attr]
        return loss, accuracy

    def _step(self, rows: Tensor) -> Tensor:
        """Return the loss and the accuracy of one optimiser step."""
        inputs, target = self.augment(self.images[rows]), self.target[rows]
        inputs, mixed = (inputs, target) if self.mixup is None else self.mixup(inputs, target)
        loss, logits = self.objective(inputs, mixed)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.recipe.optim.clip_norm:
            self.fabric.clip_gradients(self.objective, self.optimizer, max_norm=self.recipe.optim.clip_norm)
        self.optimizer.step()
        return torch.stack([loss.detach(), (logits.argmax(1) == target).float().mean()])

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, float]:
        """Return cross-entropy and accuracy on the selection split, single view."""
        model = self._kept().eval()
        device = self.images.device
        logits = torch.cat([model(part.to(device)).float().cpu() for part in self.val_inputs.split(512)])
        accuracy = (logits.argmax(1) == self.val_target).float().mean().item()
        return F.cross_entropy(logits, self.val_target).item(), accuracy

    def _kept(self) -> nn.Module:
        return self.plain.model if self.average is None else self.average.module

    def begin(self) -> None:
        """Write the recipe: a folder that cannot be written is found out before any work is done."""
        if self.fabric.is_global_zero:
            with atomic_path(self.out / "recipe.yaml") as beside:
                beside.write_text(self.recipe.to_yaml(), encoding="utf-8")

    def save(self, history: list[Epoch]) -> None:
        """Write the best weights, then the curves, then the state to resume from."""
        if not self.fabric.is_global_zero:
            return
        if history[-1] is _best(history):
            save_checkpoint(self.out / "best.safetensors", self._kept().state_dict(), self._info(history[-1]))
        write_history(self.out, history)
        state = {
            "recipe": self.recipe.to_dict(),
            "fingerprint": self.fingerprint,
            "objective": self.plain.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "history": [asdict(row) for row in history],
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        with atomic_path(self.out / "last.ckpt") as beside:
            beside.write_bytes(buffer.getbuffer())

    def resume(self) -> list[Epoch]:
        """Return the history of the run in the folder and take up its state; empty where there is none."""
        path = self.out / "last.ckpt"
        if not path.is_file():
            return []
        try:
            state = torch.load(path, map_location=self.images.device, weights_only=True)
            same = state["recipe"] == self.recipe.to_dict() and state["fingerprint"] == self.fingerprint
        except Exception as error:
            _refuse(path, f"cannot be read ({type(error).__name__})")
        if not same:
            _refuse(path, "belongs to a run of another recipe or on other data")
        self.plain.load_state_dict(state["objective"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.plateau is not None:
            self.plateau.load_state_dict(state["plateau"])
        return [Epoch(**row) for row in state["history"]]

    def _info(self, best: Epoch) -> ModelInfo:
        return ModelInfo(
            arch=self.recipe.model.name,
            arguments=self.recipe.model.arguments,
            classes=self.classes,
            label_set=self.recipe.data.corpus,
            preprocess=self.spec,
            recipe=self.recipe.to_dict(),
            data_fingerprint=self.fingerprint,
            commit=current_commit(),
            mien_version=mien.__version__,
            results={self.recipe.data.select: {"accuracy": best.val_accuracy, "epoch": best.epoch}},
        )


def _tensors(corpus: Corpus, rows: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(np.ascontiguousarray(corpus.images[rows])), torch.from_numpy(corpus.target[rows])


def _mixup(recipe: Recipe, classes: int) -> Mixup | None:
    if not recipe.augment.mixup:
        return None
    return Mixup(mixup_alpha=recipe.augment.mixup, label_smoothing=0.0, num_classes=classes)


def _best(history: list[Epoch]) -> Epoch:
    return max(history, key=lambda row: row.val_accuracy)  # the first of equals


def _refuse(path: Path, reason: str) -> NoReturn:
    raise CheckpointError(f"{path}: {reason}; choose another --out, or remove the folder to start again")


def _log(writer: SummaryWriter, row: Epoch) -> None:
    for name, value in asdict(row).items():
        writer.add_scalar(name, value, row.epoch)
    writer.flush()
