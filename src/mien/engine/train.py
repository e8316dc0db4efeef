"""The training loop: a recipe and a corpus in, a run's folder out.

A run's folder holds `recipe.yaml`, `history.csv`, `curves.png`, TensorBoard's events, `best.safetensors` (the epoch that did
best on the selection split) and `last.ckpt` (everything a killed run needs to go on; written every epoch).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

import mien
from mien.atomic import atomic_path, remove_unfinished
from mien.augment import Augment, Damage, Finish
from mien.checkpoint import LOSS, save_checkpoint, save_state
from mien.datasets import Corpus
from mien.datasets.balance import epoch_order, sampling_weights
from mien.engine.checks import check_start
from mien.engine.devices import default_fabric
from mien.engine.fabric import Fabric
from mien.engine.feed import Feed, inputs_of
from mien.engine.history import Epoch, write_history
from mien.engine.memory import give_back_large_blocks, keep_freed_blocks
from mien.engine.mixing import create_mixup, mix
from mien.engine.objective import create_objective
from mien.engine.optim import create_average, create_optimizer, create_plateau, create_schedule, current_rate
from mien.engine.teacher import Teachers, ask_once
from mien.errors import CheckpointError, MienError, RecipeError
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.provenance import current_commit
from mien.recipe import Recipe, Sampling
from mien.transfer import Transfer, start_from

TESTS = ("test", "private_test")
"""Splits that no run is fitted on or selected by."""


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
        fabric: Devices and precision; by default what `default_fabric` chooses.
        on_epoch: Called with each finished epoch and the number of epochs of the run, by the first process only.
        on_step: Called with the number of the epoch, the steps done in it and the steps of an epoch.
        on_start: Called, by the first process, with what a start from other weights loaded, if the recipe has one.

    Raises:
        RecipeError: The recipe does not fit the corpus or the number of processes, or the loss became nan or infinite; the
            folder keeps what the epochs before that left.
        CheckpointError: The folder holds another run.
        OutputError: The folder cannot be written.
    """
    run = Run(recipe, corpus, out, fabric or default_fabric(recipe))
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


class Run:
    """The objects of one run; `epoch` advances them, `save` and `resume` keep them."""

    def __init__(self, recipe: Recipe, corpus: Corpus, out: Path, fabric: Fabric) -> None:
        self.recipe, self.corpus, self.out, self.fabric = recipe, corpus, out, fabric
        fabric.launch()
        if recipe.train.batch_size % fabric.world_size:
            raise RecipeError(
                f"train.batch_size is {recipe.train.batch_size}, which {fabric.world_size} processes cannot share evenly; "
                "choose another --devices or another batch size"
            )
        if recipe.train.batch_size < 2 * fabric.world_size:
            raise RecipeError("train.batch_size: batch norms need at least 2 images a process; make it larger")
        torch.manual_seed(recipe.seed)
        self.commit = current_commit()  # of the code that runs, whatever is committed meanwhile
        self.spec = recipe.preprocess.spec()
        self.feed = _feed(recipe, corpus, fabric.device)
        if self.feed.resident is None:
            give_back_large_blocks()
        elif fabric.device.type == "cpu":
            keep_freed_blocks()
        self.steps = len(self.feed) // recipe.train.batch_size
        model = create_model(recipe.model.name, num_classes=len(corpus.classes), **recipe.model.arguments)
        self.transfer = start_from(model, recipe.model.start) if recipe.model.start else None
        if self.transfer is not None:
            check_start(self.transfer.source, corpus)
        if model.in_channels != self.spec.channels:
            raise RecipeError(f"preprocess.channels is {self.spec.channels}, {recipe.model.name} takes {model.in_channels}")
        self.plain = create_objective(recipe, model, self.feed.target.cpu().numpy())
        fabric.to_device(self.plain)
        if recipe.train.channels_last:
            self.plain.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.average = create_average(recipe, self.plain.model)
        self.teachers = Teachers(recipe.distill, corpus) if recipe.distill else None
        if self.teachers is not None:
            fabric.to_device(self.teachers)
        self.said: Tensor | None = None  # what the teachers say of each training image, where they are asked once
        optimizer = create_optimizer(recipe, self.plain.model, self.plain.loss)
        self.schedule = create_schedule(recipe.optim, optimizer, self.steps, recipe.train.epochs)
        self.plateau = create_plateau(recipe.optim, optimizer)
        wrapped: Any = torch.compile(self.plain) if recipe.train.compile else self.plain
        self.objective, self.optimizer = fabric.setup(wrapped, optimizer)
        self.augment, self.damage = Augment(recipe.augment), Damage(recipe.augment)
        self.finish = fabric.to_device(Finish(self.spec))
        self.mixup = create_mixup(recipe, len(corpus.classes), fabric.world_size)

    def epoch(self, number: int, on_step: Callable[[int, int, int], None] | None) -> Epoch:
        """Train one pass, evaluate, and return its row. Seeds come from the number, so a resumed run repeats no draw."""
        start = time.perf_counter()
        loss, accuracy, lr = self.fit(number, on_step)
        self._check_numbers(number, loss)
        rate = self.steps * self.recipe.train.batch_size / (time.perf_counter() - start)
        val_loss, val_accuracy = self.fabric.broadcast(self._evaluate())  # batch norms differ a little between processes
        if self.plateau is not None:
            self.plateau.step(val_loss if self.recipe.optim.plateau_metric == "loss" else val_accuracy)
        return Epoch(number, lr, loss, accuracy, val_loss, val_accuracy, time.perf_counter() - start, rate)

    def fit(self, number: int, on_step: Callable[[int, int, int], None] | None = None) -> tuple[float, float, float]:
        """Train one pass; return the mean loss and accuracy of its steps, and the learning rate of the last."""
        seed = self.recipe.seed * 100_003 + number
        torch.manual_seed(seed + 50_021 * self.fabric.global_rank)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (timm's mixup draws from it)
        sums, lr = torch.zeros(2, device=self.fabric.device), 0.0
        self.objective.train()
        for step, (images, places) in enumerate(self.feed.batches(self._parts(seed)), start=1):
            lr = current_rate(self.optimizer)
            sums += self._step(images, places)
            done = (number - 1) * self.steps + step
            if self.schedule is not None:
                self.schedule.step_update(done)
            if self.average is not None:
                self.average.update(self.plain.model, step=done)
            if on_step is not None:
                on_step(number, step, self.steps)
        loss, accuracy = self.fabric.all_reduce(sums / self.steps, reduce_op="mean").tolist()  # type: ignore[union-attr]
        return loss, accuracy, lr

    def _check_numbers(self, number: int, loss: float) -> None:
        """End the run, before anything is kept of it, where its numbers are no numbers any more."""
        weights = torch.stack([weight.detach().isfinite().all() for weight in self.plain.parameters()])
        if not (math.isfinite(loss) and weights.all()):
            raise RecipeError(
                f"epoch {number} ended in nan or infinity (loss {loss:g}): training went astray; lower optim.lr (it is "
                f"{self.recipe.optim.lr:g}) or set optim.clip_norm, with another --out; this one keeps the epochs before"
            )

    def _parts(self, seed: int) -> Iterator[Tensor]:
        """Yield, for each step, this process's places in the training split."""
        size, rank = self.recipe.train.batch_size, self.fabric.global_rank
        local = size // self.fabric.world_size
        order = _order(self.feed.target, len(self.corpus.classes), self.recipe.data.sampling, seed)
        for first in range(rank * local, self.steps * size, size):
            yield order[first : first + local]

    def _step(self, images: Tensor, places: Tensor) -> Tensor:
        """Return the loss and the accuracy of one optimiser step."""
        target = self.feed.target[places]
        wanted = self.feed.votes[places] if self.recipe.data.votes and self.feed.votes is not None else target
        taught = None if self.said is None else self.said[places]
        x = self.augment(images)
        if self.mixup is not None:
            x, wanted, taught = mix(self.mixup, x, wanted, taught)
        if taught is None and self.teachers is not None:
            with self.fabric.autocast():
                taught = self.teachers(x)
        loss, logits = self.objective(self.finish(self.damage(x)), wanted, taught)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if self.recipe.optim.clip_norm:
            most = self.recipe.optim.clip_norm
            self.fabric.clip_gradients(self.objective, self.optimizer, max_norm=most, error_if_nonfinite=False)
        self.optimizer.step()
        return torch.stack([loss.detach(), (logits.argmax(1) == target).float().mean()])

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, float]:
        """Return cross-entropy and accuracy on the selection split, single view; not numbers where there is none."""
        if self.recipe.data.select is None:
            return math.nan, math.nan
        split = Feed(self.corpus, self.corpus.where(self.recipe.data.select), torch.device("cpu"))
        model, step = self._kept().eval(), self.recipe.train.batch_size // self.fabric.world_size  # so memory has room for it
        with self.fabric.autocast():
            parts = [model(x.to(self.fabric.device)).float().cpu() for x in inputs_of(split, self.spec, step)]
        logits, target = torch.cat(parts), split.target
        return F.cross_entropy(logits, target).item(), (logits.argmax(1) == target).float().mean().item()

    def _kept(self) -> nn.Module:
        return self.plain.model if self.average is None else self.average.module

    def begin(self) -> None:
        """Write the recipe, so that a folder that cannot be written is found out first; then ask the teachers, if once."""
        self._by_the_first(self._begin_folder)
        if self.teachers is not None and self.recipe.distill is not None and self.recipe.distill.once:
            self.said = ask_once(self.teachers, self.feed, self.fabric)

    def save(self, history: list[Epoch]) -> None:
        """Write the best weights, then the curves, then the state to resume from."""
        self._by_the_first(lambda: self._write(history))

    def _by_the_first(self, act: Callable[[], None]) -> None:
        """Let the first process do something; what it fails by ends them all alike."""
        failure: MienError | None = None
        if self.fabric.is_global_zero:
            try:
                act()
            except MienError as error:
                failure = error
        failure = self.fabric.broadcast(failure)
        if failure is not None:
            raise failure

    def _begin_folder(self) -> None:
        remove_unfinished(self.out)
        with atomic_path(self.out / "recipe.yaml") as beside:
            beside.write_text(self.recipe.to_yaml(), encoding="utf-8")

    def _write(self, history: list[Epoch]) -> None:
        if history[-1] is _best(history):
            loss = {LOSS + name: value for name, value in self.plain.loss.state_dict().items()}
            save_checkpoint(self.out / "best.safetensors", self._kept().state_dict() | loss, self._info(history[-1]))
        write_history(self.out, history)
        state = {
            "recipe": self.recipe.to_dict(),
            "fingerprint": self.corpus.fingerprint,
            "split": self.corpus.split_fingerprint,
            "objective": self.plain.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "history": [asdict(row) for row in history],
        }
        save_state(self.out / "last.ckpt", state)

    def resume(self) -> list[Epoch]:
        """Return the history of the run in the folder and take up its state; empty where there is none."""
        path = self.out / "last.ckpt"
        if not path.is_file():
            return []
        try:
            state = torch.load(path, map_location=self.fabric.device, weights_only=True)
            data = self.corpus.fingerprint, self.corpus.split_fingerprint
            same = state["recipe"] == self.recipe.to_dict() and (state["fingerprint"], state.get("split")) == data
        except Exception as error:
            _refuse(path, f"cannot be read ({type(error).__name__})")
        if not same:
            _refuse(path, "belongs to a run of another recipe, on other data or on other splits")
        try:
            self.plain.load_state_dict(state["objective"])
            if self.average is not None:
                self.average.module.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.plateau is not None:
                self.plateau.load_state_dict(state["plateau"])
            return [Epoch(**row) for row in state["history"]]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            _refuse(path, "was written by another version of mien")

    def _info(self, best: Epoch) -> ModelInfo:
        select = self.recipe.data.select
        return ModelInfo(
            arch=self.recipe.model.name,
            arguments=self.recipe.model.arguments,
            classes=self.corpus.classes,
            label_set=self.recipe.data.corpus,
            preprocess=self.spec,
            recipe=self.recipe.to_dict(),
            data_fingerprint=self.corpus.fingerprint,
            split_fingerprint=self.corpus.split_fingerprint,
            commit=self.commit,
            mien_version=mien.__version__,
            results={} if select is None else {select: {"accuracy": best.val_accuracy, "epoch": best.epoch}},
        )


def _feed(recipe: Recipe, corpus: Corpus, device: torch.device) -> Feed:
    """Return the training images.

    Raises:
        RecipeError: They are fewer than a batch, the recipe wants votes and the corpus has none, or looks at a test split.
    """
    for key, split in (("train", recipe.data.train), ("select", recipe.data.select)):
        if split in TESTS:
            raise RecipeError(f"data.{key}: {split} is a test split; it is measured once, at the end, with mien evaluate")
    rows = corpus.where(recipe.data.train)
    if recipe.data.select is not None:
        corpus.where(recipe.data.select)
    if len(rows) < recipe.train.batch_size:
        raise RecipeError(f"train.batch_size is {recipe.train.batch_size}, the training split has {len(rows)} images")
    if recipe.data.votes and corpus.rows.votes is None:
        raise RecipeError(f"data.votes: {corpus.name} has one label an image; set it to false")
    return Feed(corpus, rows, device)


def _order(target: Tensor, classes: int, sampling: Sampling, seed: int) -> Tensor:
    """Return the places of an epoch's images in the training split."""
    if sampling == "natural":
        return torch.randperm(len(target), generator=torch.Generator().manual_seed(seed))
    labels = target.cpu().numpy()
    return torch.from_numpy(epoch_order(labels, sampling_weights(labels, classes, sampling), seed))


def _best(history: list[Epoch]) -> Epoch:
    """Return the epoch that is kept: the first of the best on the selection split, the last where there is none."""
    if math.isnan(history[-1].val_accuracy):
        return history[-1]
    return max(history, key=lambda row: row.val_accuracy)


def _refuse(path: Path, reason: str) -> NoReturn:
    raise CheckpointError(f"{path}: {reason}; choose another --out, or remove the folder to start again")


def _log(writer: SummaryWriter, row: Epoch) -> None:
    for name, value in asdict(row).items():
        writer.add_scalar(name, value, row.epoch)
    writer.flush()
