"""Run what a study lacks: train, measure, keep the small files. A killed study is resumed.

Each run is one folder, with a lock that the system releases when a process dies. So several processes, on one machine or on
several with a common disk, can work on one study: each takes the next run that nobody has.
"""

from __future__ import annotations

import functools
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import filelock
import numpy as np
from numpy.typing import NDArray

from mien.atomic import atomic_path
from mien.datasets import Corpus
from mien.engine import train
from mien.engine.checks import check_names
from mien.engine.devices import create_fabric
from mien.engine.history import Epoch, read_history
from mien.engine.torch_backend import TorchBackend
from mien.engine.train import Run
from mien.errors import DataError, EditedError
from mien.evaluate import Evaluation, evaluate, write_evaluation
from mien.recipe import Recipe, recipe_hash
from mien.results import read_results
from mien.study.specification import Job

LOCK = ".lock"
State = Literal["done", "stopped", "missing"]


@dataclass(frozen=True, slots=True)
class Folders:
    """Where a study's files are.

    Attributes:
        runs: The runs: weights, states to resume from, results.
        results: A copy of the small files, for example in a repository; a run whose results are there is done. None keeps none.
    """

    runs: Path
    results: Path | None = None

    def results_file(self, job: Job) -> Path | None:
        """Return the results file of a run; None if it has not been measured.

        A run of another study counts as well if recipe, seed and measured split are the same: tables share rows. Only files
        that a study wrote count. Others may be of an unfinished run, another corpus or another split.
        """
        roots = [folder for folder in (self.results, self.runs) if folder is not None]
        for root in roots:
            for path in sorted((root / job.path).glob("*.json")):
                if _measurement(path, job) is not None:
                    return path
        wanted = recipe_hash(job.recipe), job.recipe.seed
        for root in roots:
            for path in sorted(root.glob(f"**/{job.path.name}/*.json")):
                found = _measurement(path, job)
                if found is not None and (found.recipe_hash, found.seed) == wanted:
                    return path
        return None

    def history(self, job: Job) -> list[Epoch]:
        """Return the epochs a run has so far."""
        for folder in (self.results, self.runs):
            if folder is not None and (folder / job.path / "history.csv").is_file():
                return read_history(folder / job.path)
        return []

    def state(self, job: Job) -> State:
        """Return how far a run is."""
        if self.results_file(job):
            return "done"
        return "stopped" if (self.runs / job.path / "last.ckpt").is_file() else "missing"


def check_jobs(jobs: Sequence[Job], folders: Folders, open_corpus: Callable[[Job], Corpus]) -> None:
    """Check runs before the first of them starts: their networks, their data, and results that are there already.

    Raises:
        RecipeError: A recipe names an unknown network, loss or optimizer.
        DataError: A run was measured on other data or with another recipe than the study has now.
    """
    check_recipes(jobs, folders)
    for job in jobs:
        check_names(job.recipe)
        if (path := folders.results_file(job)) is None:
            continue
        results, corpus = read_results(path), open_corpus(job)
        for key, now in (("fingerprint", corpus.fingerprint), ("split_fingerprint", corpus.split_fingerprint)):
            if results["data"][key] != now:
                what = "data" if key == "fingerprint" else "splits"
                raise DataError(
                    f"{path}: was measured on other {what} than this copy of {corpus.name}; give the copy that made it, or "
                    "move the results away to run it again"
                )


def check_recipes(jobs: Sequence[Job], folders: Folders) -> None:
    """Check that what is measured was made with the recipes that the study has now.

    Raises:
        DataError: A run was measured with another recipe.
    """
    for job in jobs:
        if (path := folders.results_file(job)) is None:
            continue
        made = read_results(path)["model"]["recipe_hash"]
        if made is not None and made != recipe_hash(job.recipe):
            raise DataError(
                f"{path}: was made with another recipe than the study has now; move it away, or change the study back"
            )


class Estimator:
    """Estimates how long runs take. It times each network once for each size of image.

    Args:
        folders: Where the study's files are.
    """

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self.timed: dict[str, float] = {}

    def seconds_left(self, job: Job, corpus: Corpus) -> float:
        """Return about how many seconds a run still needs: from its own epochs, or else from a few steps, timed now.

        Steps are timed without compiling, which takes a minute, so a run that compiles is faster than this.
        """
        history, part = self.folders.history(job), job.recipe.train
        left = part.epochs - len(history)
        final = min(left, part.final_epochs)
        if history and part.early_size is None:
            return left * sum(row.seconds for row in history) / len(history)
        full = self._epoch(job.recipe, corpus, early=False) if final or part.early_size is None else 0.0
        early = self._epoch(job.recipe, corpus, early=True) if part.early_size is not None else full
        return (left - final) * early + final * full

    def _epoch(self, recipe: Recipe, corpus: Corpus, early: bool) -> float:
        values = recipe.to_dict()
        size = recipe.train.early_size if early else recipe.preprocess.size
        same = (values["model"], values["train"]["batch_size"], values["train"]["channels_last"], values["distill"])
        key = json.dumps([same, size, len(corpus.where(recipe.data.train))])
        if key not in self.timed:
            eager = recipe.model_copy(update={"train": recipe.train.model_copy(update={"compile": False})})
            with tempfile.TemporaryDirectory() as folder:
                self.timed[key] = Run(eager, corpus, Path(folder), create_fabric(eager, 1)).time_epoch(early)
        return self.timed[key]


def run_job(
    job: Job,
    folders: Folders,
    corpus: Corpus,
    on_epoch: Callable[[Epoch, int], None],
    *,
    votes: NDArray[np.int64] | None = None,
    weights: bool = False,
) -> str:
    """Train a run, or resume it, and measure it. Return the outcome in a few words, such as `70.12 % on test`.

    Args:
        job: The run.
        folders: Where its files are.
        corpus: Its data, split as its recipe says. A copy without the split that is measured only trains.
        on_epoch: Called after each epoch, with its row and the number of epochs of the run.
        votes: FER+'s votes for every row of the corpus, (rows, K), to measure the agreement with them; None without.
        weights: Also keep the weights among the results, in float16.

    Raises:
        MienError: The run cannot be trained or measured, for example because it diverged; its folder keeps its epochs.
    """
    folder = folders.runs / job.path
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(folder / LOCK, timeout=0):
            if folders.state(job) == "done":  # by another process in the meantime
                return "done by another process"
            train(job.recipe, corpus, folder, fabric=create_fabric(job.recipe, 1), on_epoch=on_epoch)
            split = job.split or corpus.splits[-1]
            if split not in corpus.splits or not (corpus.rows.split == corpus.splits.index(split)).any():
                return f"trained, not measured: this copy of {corpus.name} has no {split}"
            evaluation = _measure(job, folder, corpus, split, votes)
            if folders.results is not None:
                _keep(folder, folders.results / job.path, weights)
            return f"{100 * evaluation.results['standard']['accuracy']:.2f} % on {split}"
    except filelock.Timeout:
        return "being run by another process"


def _measure(job: Job, folder: Path, corpus: Corpus, split: str, votes: NDArray[np.int64] | None) -> Evaluation:
    study = {"name": job.study, "row": job.row, "scale": job.scale, "fold": job.fold, "split": job.split}
    evaluation = evaluate(TorchBackend(folder), corpus, split, folder / "best.safetensors", votes=votes, study=study)
    write_evaluation(folder / f"{split}.json", evaluation)
    return evaluation


def _keep(folder: Path, target: Path, weights: bool) -> None:
    """Copy the small files of a run, and its weights in float16 if wanted."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".csv", ".yaml", ".png"):
            with atomic_path(target / path.name) as tmp_path:
                shutil.copyfile(path, tmp_path)
    if weights:
        with safe_open(folder / "best.safetensors", framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a mapping)
            metadata = file.metadata()
        halved = {key: value.half() if value.is_floating_point() else value for key, value in tensors.items()}
        with atomic_path(target / "best.safetensors") as tmp_path:
            save_file(halved, tmp_path, metadata=metadata)


class _Measurement(NamedTuple):
    """What a study's results file says of its run. `asked_split` is the split that the study names; None if it names none."""

    recipe_hash: str | None
    seed: int | None
    asked_split: str | None


def _measurement(path: Path, job: Job) -> _Measurement | None:
    """Return what a study's results file says, if the study asked for the split that this run asks for; else None."""
    found = _read_measurement(path, path.stat().st_mtime_ns)
    return found if found is not None and job.split in (found.asked_split, path.stem) else None


@functools.lru_cache(maxsize=10_000)
def _read_measurement(path: Path, changed: int) -> _Measurement | None:
    """Return what a study's results file says; None for any other file. `changed` is when it was written."""
    try:
        results = read_results(path)
    except EditedError:
        raise
    except DataError:  # such as the card of an exported model
        return None
    if results["study"] is None:  # `mien evaluate` wrote it
        return None
    return _Measurement(results["model"]["recipe_hash"], results["model"]["seed"], results["study"].get("split"))
