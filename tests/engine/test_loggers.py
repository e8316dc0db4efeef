"""Experiment trackers, offline: what they record, and that a resumed run continues its record."""

import json
import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2

from mien.datasets import Corpus
from mien.engine.loggers import check_logger
from mien.engine.train import train
from mien.errors import MienError, MissingExtraError, RecipeError
from mien.recipe import Recipe


def wandb_records(path: Path) -> Iterator[wandb_internal_pb2.Record]:
    """Read a .wandb file: a header of 7 bytes, then LevelDB's log format, records in blocks of 32 KiB."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        if at + 7 + length > len(data):
            return  # wandb's process is still writing
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the record is whole, or this is its last part
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def finished_records(path: Path) -> list[wandb_internal_pb2.Record]:
    """Read a .wandb file when wandb's process has written its last record, which may be after the run ended."""
    end = time.monotonic() + 60
    while not any(record.HasField("exit") for record in wandb_records(path)):
        assert time.monotonic() < end, f"{path} has no end"
        time.sleep(0.1)
    return list(wandb_records(path))


@pytest.fixture(autouse=True)
def _no_request(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be the proxy of every request, and see none. Without a network a tracker would hide that it tries."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            for spelling in (name, name.lower()):
                monkeypatch.setenv(spelling, f"http://127.0.0.1:{proxy.getsockname()[1]}")
        yield
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


class Stopped(Exception):
    """Ends a training in the middle, as Ctrl-C would."""


def stop(row: object, epochs: int) -> None:
    raise Stopped


def test_mlflow_records_recipe_and_metrics_and_continues_after_a_stop(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    recipe, out = tiny_recipe({"train.epochs": 2}), tmp_path / "run"
    with pytest.raises(Stopped):
        train(recipe, corpus, out, logger="mlflow", on_epoch=stop)
    client = MlflowClient((tmp_path / "mlruns").as_uri())
    (experiment,) = [each for each in client.search_experiments() if each.name == "mien"]
    (record,) = client.search_runs([experiment.experiment_id])
    assert record.info.status == "FAILED"
    result = train(recipe, corpus, out, logger="mlflow")
    (record,) = client.search_runs([experiment.experiment_id])
    assert (record.info.status, record.info.run_name) == ("FINISHED", "run")
    assert record.data.params["optim.lr"] == str(recipe.optim.lr)
    history = client.get_metric_history(record.info.run_id, "val_accuracy")
    assert [(entry.step, entry.value) for entry in history] == [(row.epoch, row.val_accuracy) for row in result.epochs]


def test_wandb_records_offline_under_one_id(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    for name in ("WANDB_MODE", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    recipe, out = tiny_recipe({"train.epochs": 2}), tmp_path / "run"
    with pytest.raises(Stopped):
        train(recipe, corpus, out, logger="wandb", on_epoch=stop)
    result = train(recipe, corpus, out, logger="wandb")
    run_id = json.loads((out / "tracker.json").read_text())["wandb"]
    logged, configured = {}, set()
    for path in sorted((out / "wandb").glob(f"offline-run-*/run-{run_id}.wandb")):
        for record in finished_records(path):
            row = {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
            logged |= {row["epoch"]: row["val_accuracy"]} if row else {}
            configured |= {item.key or item.nested_key[0] for item in (*record.config.update, *record.run.config.update)}
    assert logged == {row.epoch: row.val_accuracy for row in result.epochs}
    assert {"optim", "model"} <= configured


def test_tensorboard_is_the_default(tmp_path: Path, corpus: Corpus, tiny_recipe: Callable[..., Recipe]):
    result = train(tiny_recipe(), corpus, tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run")).Reload()
    (entry,) = events.Scalars("val_accuracy")
    assert (entry.step, entry.value) == (1, pytest.approx(result.best.val_accuracy))
    assert not (tmp_path / "run/tracker.json").exists()


def test_a_tracker_that_is_unknown_missing_or_broken(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(RecipeError, match="choose one of tensorboard, wandb, mlflow"):
        check_logger("comet")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere://at.all")
    with pytest.raises(MienError, match=r"mlflow cannot record this run .* try --logger tensorboard"):
        train(tiny_recipe(), corpus, tmp_path / "run", logger="mlflow")
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'mien\[wandb\]'"):
        check_logger("wandb")
