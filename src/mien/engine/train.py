"""The training loop: recipe and corpus in, a run's folder out.

Read it from top to bottom: `train` tells the whole run, `Run.__init__` builds its parts (data, model, loss, teachers,
optimizer, augmentation), `Run.epoch` trains and validates, `Run.save` and `Run.resume` keep the state.

A run's folder holds `recipe.yaml`, `history.csv`, `curves.png`, the record of a tracker, `best.safetensors` (the epoch that is
best on the selection split) and `last.ckpt` (the state to resume from, written after every epoch).
"""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.logger import Logger
from torch import Tensor, nn
from torch.nn import functional as F

import mien
from mien.atomic import atomic_path, remove_unfinished
from mien.augment import Augment, Degrade, Mixup, Normalize
from mien.checkpoint import LOSS_PREFIX, save_checkpoint, save_state
from mien.datasets import Corpus
from mien.datasets.balance import epoch_order, sampling_weights
from mien.engine.checks import check_data, check_start, training_rows
from mien.engine.devices import create_fabric
from mien.engine.distill import Teachers
from mien.engine.history import Epoch, best_epoch, write_history
from mien.engine.loader import Loader
from mien.engine.loggers import create_logger
from mien.engine.loss import create_objective
from mien.engine.nodes import check_same, check_shared, in_every_process, report_lost_processes
from mien.engine.optim import clip_gradients, create_ema, create_optimizer, create_plateau, create_schedule, current_lr
from mien.errors import CheckpointError, MienError, RecipeError
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.provenance import current_commit
from mien.recipe import Recipe, pin_lists, recipe_hash
from mien.transfer import Transfer, restore_norms, start_from

NORM_IMAGES = 512
"""Training images that give the batch norms of an exported start their statistics."""


@dataclass(frozen=True, slots=True)
class TrainResult:
    """The outcome of a finished run.

    Attributes:
        folder: The run's folder.
        best: The epoch whose weights are in `best.safetensors`.
        epochs: The history.
    """

    folder: Path
    best: Epoch
    epochs: list[Epoch]


@report_lost_processes()
def train(
    recipe: Recipe,
    corpus: Corpus,
    out: Path,
    *,
    fabric: Fabric | None = None,
    on_epoch: Callable[[Epoch, int], None] | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
    on_start: Callable[[Transfer], None] | None = None,
    logger: str = "tensorboard",
) -> TrainResult:
    """Train a recipe on a corpus, or resume a run that was stopped.

    Args:
        recipe: The recipe.
        corpus: Its data, split as the recipe says.
        out: The run's folder. If it holds a run of the same recipe on the same data, that run resumes after its last complete
            epoch.
        fabric: Devices and precision; by default those of `create_fabric`.
        on_epoch: Called after each epoch, in the first process only, with its row and the number of epochs of the run.
        on_step: Called after each step with the number of the epoch, the steps done in it and the steps per epoch.
        on_start: Called, in the first process only, with what was loaded from start weights, if the recipe names any.
        logger: The experiment tracker: `tensorboard`, `wandb` or `mlflow`.

    Raises:
        RecipeError: The recipe does not fit the corpus or the number of processes, or the loss became nan or infinite. The
            folder keeps the epochs before that. Or the recipe, the data or mien's version differs between nodes.
        CheckpointError: The folder holds another run, or the start weights or a teacher cannot be read.
        OutputError: The folder cannot be written, or is not shared by the nodes.
        MienError: The tracker cannot record the run, or is not installed. Or another process of the training was lost.
    """
    run = Run(recipe, corpus, out, fabric or create_fabric(recipe))
    history = in_every_process(run.resume)
    check_same("number of epochs in last.ckpt", len(history), "start again: the folder shows an old state to one of them")
    run.start()
    first_process = run.fabric.is_global_zero
    if on_start is not None and run.transfer is not None and first_process:
        on_start(run.transfer)
    trackers, status = list[Logger](), "failed"  # one in the first process, none in others
    run._in_first_process(lambda: trackers.append(create_logger(logger, recipe, out, len(history))))
    try:
        for number in range(len(history) + 1, recipe.train.epochs + 1):
            if history and 0 < recipe.train.patience < number - best_epoch(history).epoch:
                break
            row = run.epoch(number, on_step)
            history.append(row)
            run.save(history)
            for tracker in trackers:
                tracker.log_metrics(asdict(row), number)
                tracker.save()
            if on_epoch is not None and first_process:
                on_epoch(row, recipe.train.epochs)
        status = "success"
    finally:
        for tracker in trackers:
            tracker.finalize(status)
    return TrainResult(out, best_epoch(history), history)


class Run:
    """The parts of one run: built once, advanced by `epoch`, kept by `save`, restored by `resume`.

    Attributes:
        loader: The training images.
        weights: How often each of them is drawn relative to the others, (M,); None equally.
        steps: Optimizer steps per epoch.
        transfer: What was loaded from start weights; None without any.
        unwrapped: Network and loss as one module, as they are saved; `objective` is the same, compiled and distributed.
        ema: Moving average of the network's weights; None if the recipe has none.
        teachers: The teachers; None without distillation.
        teacher_probs: Their probabilities for each training image, (M, K), if they predict once; otherwise None.
    """

    def __init__(self, recipe: Recipe, corpus: Corpus, out: Path, fabric: Fabric) -> None:
        recipe = pin_lists(recipe)
        self.recipe, self.corpus, self.out, self.fabric = recipe, corpus, out, fabric
        fabric.launch()
        if fabric.world_size > 1:
            for name, value, source in (
                ("version of mien", mien.__version__, "mien"),
                ("recipe", f"{recipe_hash(recipe)[:16]}, seed {recipe.seed}", "RECIPE and the same options"),
                ("corpus", corpus.fingerprint[:16], "--data"),
                ("split of the corpus", corpus.split_fingerprint[:16], "--data"),
                ("precision", fabric.strategy.precision.precision, "--precision"),
            ):
                check_same(name, value, f"give every node the same {source}")
            check_shared(out)
        check_data(recipe, corpus, fabric.world_size)
        torch.manual_seed(recipe.seed)
        self.commit = current_commit()  # of the running code, whatever is committed in the meantime

        # Data
        self.spec = recipe.preprocess.spec()
        rows, weights = training_rows(recipe, corpus)
        self.loader = Loader(corpus, rows, fabric.device, recipe.augment.views)
        self.weights = None if weights is None else np.repeat(weights, recipe.augment.views)
        self.steps = len(self.loader) // recipe.train.batch_size

        # Model, from scratch or from start weights
        model = create_model(recipe.model.name, num_classes=len(corpus.classes), **recipe.model.arguments)
        self.transfer = start_from(model, recipe.model.start, corpus.classes) if recipe.model.start else None
        if self.transfer is not None:
            check_start(self.transfer.source, corpus)
            if self.transfer.folded:
                some = Loader(corpus, rows[:: max(1, len(rows) // NORM_IMAGES)], torch.device("cpu"))
                restore_norms(model, self.transfer.folded, some.inputs(self.spec, 64))
        if model.in_channels != self.spec.channels:
            raise RecipeError(
                f"preprocess.channels is {self.spec.channels}, but {recipe.model.name} takes {model.in_channels}; set "
                "preprocess.channels or model.arguments.in_channels"
            )

        for key, size in (("preprocess.size", self.spec.size), ("train.early_size", recipe.train.early_size)):
            if size is not None and min(size) < model.minimum_size:
                raise RecipeError(
                    f"{key} is {size[0]}x{size[1]} px, but {recipe.model.name} needs {model.minimum_size} or more"
                )

        # Loss, moving average and teachers
        self.unwrapped = create_objective(recipe, model, self.loader.target.cpu().numpy())
        fabric.to_device(self.unwrapped)
        if recipe.train.channels_last:
            self.unwrapped.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.ema = create_ema(recipe, self.unwrapped.model)
        self.teachers = Teachers(recipe.distill, corpus) if recipe.distill else None
        if self.teachers is not None:
            fabric.to_device(self.teachers)
        self.teacher_probs: Tensor | None = None

        # Optimizer and schedule
        optimizer = create_optimizer(recipe, self.unwrapped.model, self.unwrapped.loss)
        self.schedule = create_schedule(recipe.optim, optimizer, self.steps, recipe.train.epochs)
        self.plateau = create_plateau(recipe.optim, optimizer)
        compiled: Any = torch.compile(self.unwrapped) if recipe.train.compile else self.unwrapped
        self.objective, self.optimizer = fabric.setup(compiled, optimizer)

        # Augmentation
        self.augment, self.degrade = Augment(recipe.augment), Degrade(recipe.augment)
        self.mixup = Mixup(recipe.augment.mixup, len(corpus.classes)) if recipe.augment.mixup else None
        self.normalize = fabric.to_device(Normalize(self.spec))
        early_spec = replace(self.spec, size=recipe.train.early_size or self.spec.size)
        self.normalize_early = fabric.to_device(Normalize(early_spec))

    def start(self) -> None:
        """Write the recipe, so that an unwritable folder is noticed at once, and let the teachers predict, if only once."""

        def write_recipe() -> None:
            remove_unfinished(self.out, idle=0)
            with atomic_path(self.out / "recipe.yaml") as tmp_path:
                tmp_path.write_text(self.recipe.to_yaml(), encoding="utf-8")

        self._in_first_process(write_recipe)
        if self.teachers is not None and self.recipe.distill is not None and self.recipe.distill.once:
            self.teacher_probs = self.teachers.predict_all(self.loader, self.fabric)

    def epoch(self, number: int, on_step: Callable[[int, int, int], None] | None = None) -> Epoch:
        """Train and validate one epoch; return its row of the history.

        Raises:
            RecipeError: The loss or a weight became nan or infinite.
        """
        start = time.perf_counter()
        loss, accuracy, lr = self.fit(number, on_step)
        finite = torch.stack([weight.detach().isfinite().all() for weight in self.unwrapped.parameters()])
        if not (math.isfinite(loss) and finite.all()):
            raise RecipeError(
                f"epoch {number} ended in nan or infinity (loss {loss:g}): training has diverged. Lower optim.lr (it is "
                f"{self.recipe.optim.lr:g}) or set optim.clip_norm, with another --out; this folder keeps the epochs before"
            )
        rate = self.steps * self.recipe.train.batch_size / (time.perf_counter() - start)
        val_loss, val_accuracy = self.fabric.broadcast(self._validate())  # batch norms differ a little between processes
        if self.plateau is not None:
            self.plateau.step(val_loss if self.recipe.optim.plateau_metric == "loss" else val_accuracy)
        return Epoch(number, lr, loss, accuracy, val_loss, val_accuracy, time.perf_counter() - start, rate)

    def fit(self, number: int, on_step: Callable[[int, int, int], None] | None = None) -> tuple[float, float, float]:
        """Train one epoch; return the mean loss and accuracy of its steps, and the learning rate of the last step.

        The seeds depend on the number of the epoch, so a resumed run draws what an uninterrupted one would.
        """
        seed = self.recipe.seed * 100_003 + number
        torch.manual_seed(seed + 50_021 * self.fabric.global_rank)
        np.random.seed(seed % 2**32)  # noqa: NPY002 (timm's mixup draws from it)
        sums, lr = torch.zeros(2, device=self.fabric.device), 0.0
        early = number <= self.recipe.train.epochs - self.recipe.train.final_epochs
        self.objective.train()
        for step, (images, indices) in enumerate(self.loader.batches(self._batch_indices(seed)), start=1):
            lr = current_lr(self.optimizer)
            sums += self._step(images, indices, early)
            steps_done = (number - 1) * self.steps + step
            if self.schedule is not None:
                self.schedule.step_update(steps_done)
            if self.ema is not None:
                self.ema.update(self.unwrapped.model, step=steps_done)
            if on_step is not None:
                on_step(number, step, self.steps)
        loss, accuracy = self.fabric.all_reduce(sums / self.steps, reduce_op="mean").tolist()  # type: ignore[union-attr]
        return loss, accuracy, lr

    def time_epoch(self, early: bool, steps: int = 3) -> float:
        """Return about how many seconds an epoch takes, timed over a few steps. They change the weights: train another run.

        Args:
            early: Time an epoch before the recipe's final epochs.
            steps: Number of steps that count; one more goes first.
        """
        self.objective.train()
        seconds, start = list[float](), time.perf_counter()
        for images, indices in itertools.islice(self.loader.batches(self._batch_indices(self.recipe.seed)), steps + 1):
            self._step(images, indices, early).tolist()  # waits for a GPU
            seconds.append(time.perf_counter() - start)
            start = time.perf_counter()
        return self.steps * statistics.median(seconds[1:] or seconds)

    def _batch_indices(self, seed: int) -> Iterator[Tensor]:
        """Yield, for each step, the indices of this process's images in the training split."""
        sampling, labels, weights = self.recipe.data.sampling, self.loader.target.cpu().numpy(), self.weights
        if sampling != "natural":
            of_class = sampling_weights(labels, len(self.corpus.classes), sampling)
            weights = of_class if weights is None else weights * of_class
        if weights is None:
            order = torch.randperm(len(self.loader), generator=torch.Generator().manual_seed(seed))
        else:
            order = torch.from_numpy(epoch_order(labels, weights, seed))
        batch_size = self.recipe.train.batch_size
        share = batch_size // self.fabric.world_size
        for first in range(self.fabric.global_rank * share, self.steps * batch_size, batch_size):
            yield order[first : first + share]

    def _step(self, images: Tensor, indices: Tensor, early: bool) -> Tensor:
        """Take one optimizer step; return its loss and accuracy. `early` says that the final epochs are still to come."""
        label = self.loader.target[indices]
        target = self.loader.votes[indices] if self.recipe.data.votes and self.loader.votes is not None else label
        teacher_probs = None if self.teacher_probs is None else self.teacher_probs[indices]
        x = self.augment(images)
        if self.mixup is not None and early:
            x, target, teacher_probs = self.mixup(x, target, teacher_probs)
        if teacher_probs is None and self.teachers is not None:
            with self.fabric.autocast():
                teacher_probs = self.teachers(x)
        normalize = self.normalize_early if early and self.recipe.train.early_size else self.normalize
        loss, logits = self.objective(normalize(self.degrade(x)), target, teacher_probs)
        self.optimizer.zero_grad()
        self.fabric.backward(loss)
        if max_norm := self.recipe.optim.clip_norm:
            clip_gradients(self.optimizer, max_norm)
        self.optimizer.step()
        return torch.stack([loss.detach(), (logits.argmax(1) == label).float().mean()])

    @torch.no_grad()
    def _validate(self) -> tuple[float, float]:
        """Return cross-entropy and accuracy on the selection split; nan without one."""
        if self.recipe.data.select is None:
            return math.nan, math.nan
        loader = Loader(self.corpus, self.corpus.where(self.recipe.data.select), torch.device("cpu"))
        model = self._selected_model().eval()
        max_batch = self.recipe.train.batch_size // self.fabric.world_size  # a training step of it fits in memory
        with self.fabric.autocast():
            parts = [model(x.to(self.fabric.device)).float().cpu() for x in loader.inputs(self.spec, max_batch)]
        logits, target = torch.cat(parts), loader.target
        return F.cross_entropy(logits, target).item(), (logits.argmax(1) == target).float().mean().item()

    def _selected_model(self) -> nn.Module:
        """Return the network that is validated and kept: the moving average if there is one."""
        return self.unwrapped.model if self.ema is None else self.ema.module

    def save(self, history: list[Epoch]) -> None:
        """Write the best weights, then the curves, then the state to resume from."""
        self._in_first_process(lambda: self._write(history))

    def _write(self, history: list[Epoch]) -> None:
        best = best_epoch(history)
        if history[-1] is best:
            loss_weights = {LOSS_PREFIX + name: value for name, value in self.unwrapped.loss.state_dict().items()}
            weights = self._selected_model().state_dict() | loss_weights
            save_checkpoint(self.out / "best.safetensors", weights, self._model_info(best))
        write_history(self.out, history)
        state = {
            "recipe": self.recipe.to_dict(),
            "fingerprint": self.corpus.fingerprint,
            "split": self.corpus.split_fingerprint,
            "classes": list(self.corpus.classes),
            "objective": self.unwrapped.state_dict(),
            "average": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "plateau": None if self.plateau is None else self.plateau.state_dict(),
            "history": [asdict(row) for row in history],
        }
        save_state(self.out / "last.ckpt", state)

    def resume(self) -> list[Epoch]:
        """Restore the state of the run in the folder and return its history; empty if there is none.

        Raises:
            CheckpointError: The state cannot be read, or belongs to another run.
        """
        path = self.out / "last.ckpt"
        if not path.is_file():
            return []
        try:
            state = torch.load(path, map_location=self.fabric.device, weights_only=True)
            data = self.corpus.fingerprint, self.corpus.split_fingerprint
            began = Recipe.model_validate(state["recipe"])  # its texts may have changed since
            same = (recipe_hash(began), began.seed) == (recipe_hash(self.recipe), self.recipe.seed)
            same = same and (state["fingerprint"], state.get("split")) == data
            same = same and tuple(state.get("classes", self.corpus.classes)) == self.corpus.classes  # older states lack them
        except Exception as error:
            _refuse(path, f"cannot be read ({type(error).__name__})")
        if not same:
            _refuse(path, "belongs to a run of another recipe, on other data or on other splits")
        try:
            self.unwrapped.load_state_dict(state["objective"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.plateau is not None:
                self.plateau.load_state_dict(state["plateau"])
            return [Epoch(**row) for row in state["history"]]
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError):
            _refuse(path, "was written by another version of mien")

    def _model_info(self, best: Epoch) -> ModelInfo:
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

    def _in_first_process(self, action: Callable[[], None]) -> None:
        """Do something in the first process only; if it fails, raise its error in every process."""
        failure: MienError | None = None
        if self.fabric.is_global_zero:
            try:
                action()
            except MienError as error:
                failure = error
        failure = self.fabric.broadcast(failure)
        if failure is not None:
            raise failure


def _refuse(path: Path, reason: str) -> NoReturn:
    raise CheckpointError(f"{path}: {reason}; choose another --out, or remove the folder to start again")
