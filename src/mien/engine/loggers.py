"""Experiment trackers behind Lightning Fabric's logger interface: TensorBoard, Weights & Biases, MLflow.

Fabric itself only has a logger for TensorBoard; the others are part of Lightning's trainer, which mien does not use. Both
record on this machine unless the environment asks for a server (`WANDB_MODE`, `MLFLOW_TRACKING_URI`). `tracker.json` in the
run's folder keeps the tracker's ID of the run, so that a resumed training continues the same record.
"""

from __future__ import annotations

import importlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_fabric.loggers import TensorBoardLogger
from lightning_fabric.loggers.logger import Logger

from mien.atomic import atomic_path
from mien.errors import MienError, RecipeError, reason, require
from mien.recipe import Recipe

LOGGERS = ("tensorboard", "wandb", "mlflow")

PROJECT = "mien"
"""The project (wandb) or experiment (MLflow) of the runs, unless the environment names another."""


def check_logger(name: str) -> None:
    """Check that a tracker is known and installed.

    Raises:
        RecipeError: There is no such tracker.
        MissingExtraError: Its package is not installed; the message names the pip command.
    """
    if name not in LOGGERS:
        raise RecipeError(f"--logger {name}: choose one of {', '.join(LOGGERS)}")
    if name != "tensorboard":
        require(name, name)


def create_logger(name: str, recipe: Recipe, out: Path, epochs_done: int) -> Logger:
    """Return the tracker of a run, with the recipe recorded.

    Args:
        name: One of `LOGGERS`.
        recipe: The recipe.
        out: The run's folder.
        epochs_done: Epochs that are complete; their record continues.

    Raises:
        RecipeError: There is no such tracker.
        MienError: Its package is not installed, or it cannot record the run.
    """
    check_logger(name)
    if name == "tensorboard":
        _import_tensorboard()
        return TensorBoardLogger(out, name="", version="", purge_step=epochs_done + 1)
    kept = out / "tracker.json"
    try:
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
        logger = (WandbLogger if name == "wandb" else MlflowLogger)(out, known.get(name))
        logger.log_hyperparams(recipe.to_dict())
    except Exception as error:  # each raises errors of its own: no server, no access, no such run
        raise MienError(f"{name} cannot record this run ({reason(error)[:200]}); try --logger tensorboard") from error
    with atomic_path(kept) as tmp_path:
        tmp_path.write_text(json.dumps(known | {name: logger.version}) + "\n", encoding="utf-8")
    return logger


def _import_tensorboard() -> None:
    """Import TensorBoard without botocore, which it would import if it is there, and which opens a socket to look for IPv6."""
    hidden = [name for name in ("botocore", "boto3") if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type] # None makes an import fail
    try:
        importlib.import_module("torch.utils.tensorboard")
    finally:
        for name in hidden:
            del sys.modules[name]


class WandbLogger(Logger):
    """Record a run with Weights & Biases: the recipe and the metrics, and nothing about this machine.

    Args:
        out: The run's folder; the record is in its folder `wandb`.
        version: The ID of the run to continue.
    """

    name = version = ""  # Fabric has them as abstract properties

    def __init__(self, out: Path, version: str | None) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # reports of its own crashes go to another company
        wandb = require("wandb", "wandb")
        settings = wandb.Settings(
            mode=os.environ.get("WANDB_MODE") or "offline",
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            silent=True,
            console="off",
            save_code=False,
            disable_git=True,
            x_disable_meta=True,
            x_disable_stats=True,
            x_disable_machine_info=True,
            x_save_requirements=False,
        )
        self.name = out.absolute().name
        self._run = wandb.init(id=version, name=self.name, dir=str(out), resume="allow", settings=settings)
        self.version = str(self._run.id)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record the metrics of an epoch."""
        self._run.log(_finite(metrics), step=step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Record the recipe."""
        self._run.config.update(params, allow_val_change=True)

    def finalize(self, status: str) -> None:
        """End the record; `status` is success or failed."""
        self._run.finish(exit_code=0 if status == "success" else 1)


class MlflowLogger(Logger):
    """Record a run with MLflow, on the server of `MLFLOW_TRACKING_URI` or in the folder `mlruns` next to the run's folder.

    Args:
        out: The run's folder.
        version: The ID of the run to continue.
    """

    name = version = ""

    def __init__(self, out: Path, version: str | None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny comes without a database
        uri = os.environ.get("MLFLOW_TRACKING_URI") or (out.absolute().parent / "mlruns").as_uri()
        self._client = require("mlflow.tracking", "mlflow").MlflowClient(uri)
        self.name = out.absolute().name
        if version is None:
            project = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
            found = self._client.get_experiment_by_name(project)
            experiment = self._client.create_experiment(project) if found is None else found.experiment_id
            version = self._client.create_run(experiment, run_name=self.name).info.run_id
        self._client.update_run(version, status="RUNNING")
        self.version = str(version)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Record the metrics of an epoch."""
        for key, value in _finite(metrics).items():
            self._client.log_metric(self.version, key, value, step=step)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Record the recipe as parameters such as `optim.lr`, to compare runs."""
        for key, value in _flat(params).items():
            self._client.log_param(self.version, key, value)

    def finalize(self, status: str) -> None:
        """End the record; `status` is success or failed."""
        self._client.set_terminated(self.version, "FINISHED" if status == "success" else "FAILED")


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics that are numbers; without a selection split, those of it are nan."""
    return {key: value for key, value in metrics.items() if math.isfinite(value)}


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, str]:
    """Return nested values by dotted key, as text of the length that servers take."""
    found = dict[str, str]()
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": str(value)[:500]}
    return found
