"""`mien train` as a user starts it: a process per core, one of which speaks."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mien.datasets import Corpus, load_corpus
from mien.engine import loader
from mien.engine.devices import create_fabric, default_devices
from mien.errors import RecipeError
from mien.recipe import load_recipe

GUARD = Path(__file__).parents[1] / "no_sockets.py"
QUICK = ["--set", "train.batch_size=64", "--set", "train.compile=false", "--epochs", "2", "--threads", "2"]
SMALL = ["--set", "model.name=dlib_resnet", "--set", "model.arguments={in_channels: 1, depth: 1}"]


@pytest.fixture
def corpus(fer2013_csv: Path) -> Corpus:
    return load_corpus("fer2013", fer2013_csv)


def train(data: Path, out: Path, *runner: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    words = ["sa_csp_ca/fer2013", "--data", str(data), "--out", str(out), *QUICK, *SMALL]
    command = [*runner, sys.executable, "-m", "mien", "train", *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def test_two_processes_train_and_one_speaks(tmp_path: Path, fer2013_csv: Path):
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    # By default torch lets processes meet at an IPv6 socket for every interface of the machine, and looks up their names.
    runner = [sys.executable, GUARD, str(int(socket.AF_INET6))]
    done = train(fer2013_csv, tmp_path / "run", *runner, TMPDIR=str(temporary))
    if done.returncode == 77:  # this system does not allow the guard
        done = train(fer2013_csv, tmp_path / "run", TMPDIR=str(temporary))
    assert done.returncode == 0, done.stderr
    assert list(temporary.iterdir()) == []
    assert done.stdout.count("epoch 2/2") == 1
    assert done.stdout.count("next: mien evaluate") == 1
    assert done.stderr == ""
    assert len((tmp_path / "run" / "history.csv").read_text().splitlines()) == 3  # the head and two epochs


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU there is one process")
def test_an_error_that_only_the_first_process_meets_ends_both_with_one_line(tmp_path: Path, fer2013_csv: Path):
    (tmp_path / "run" / "recipe.yaml").mkdir(parents=True)  # the first process alone writes it
    done = train(fer2013_csv, tmp_path / "run")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "recipe.yaml" in done.stderr
    assert done.stderr.count("\n") == 1


def test_more_gpus_than_there_are(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(RecipeError, match="--devices 2: this machine has only 1 GPU"):
        create_fabric(load_recipe("sa_csp_ca/fer2013"), 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU there is one process")
@pytest.mark.parametrize(("batch", "cores", "processes"), [(128, 2, 2), (128, 16, 4), (32, 8, 1), (16, 8, 1), (128, 1, 1)])
def test_each_process_has_images_for_its_batch_norms(corpus: Corpus, batch: int, cores: int, processes: int):
    assert default_devices(load_recipe("sa_csp_ca/fer2013", {"train.batch_size": batch}), corpus, cores) == processes


def test_one_process_for_a_large_network(corpus: Corpus):
    assert default_devices(load_recipe("resemotenet/fer2013"), corpus, 2) == 1


def test_one_process_where_images_do_not_fit_in_memory(corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(loader, "RESIDENT_BYTES", 1000)
    assert default_devices(load_recipe("sa_csp_ca/fer2013"), corpus, 2) == 1


@pytest.mark.parametrize(
    ("batch", "mixup", "cores", "processes"), [(98, 0.2, 2, 1), (98, 0, 2, 2), (128, 0, 3, 2), (129, 0, 2, 1)]
)
def test_every_process_gets_as_many_images(corpus: Corpus, batch: int, mixup: float, cores: int, processes: int):
    recipe = load_recipe("sa_csp_ca/fer2013", {"train.batch_size": batch, "augment.mixup": mixup})
    assert default_devices(recipe, corpus, cores) == processes


def test_another_precision_is_refused():
    with pytest.raises(RecipeError, match="bf16-mixed or 32-true"):
        create_fabric(load_recipe("sa_csp_ca/fer2013"), precision="16")
