import csv
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mien.checkpoint import load_checkpoint
from mien.datasets import Corpus, apply_protocol, load_corpus
from mien.engine import train
from mien.engine.checks import check_files, check_names
from mien.engine.devices import default_fabric
from mien.engine.history import Epoch
from mien.engine.objective import create_objective
from mien.engine.optim import create_optimizer
from mien.engine.train import Run
from mien.errors import CheckpointError, MienError, OutputError, RecipeError
from mien.models import create_model
from mien.recipe import Recipe, load_recipe

TINY = {"train.epochs": 3, "train.batch_size": 16, "train.compile": False, "optim.warmup_epochs": 1}


@pytest.fixture
def corpus(fer2013_csv: Path) -> Corpus:
    return load_corpus("fer2013", fer2013_csv)


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("sa_csp_ca/fer2013", TINY)


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


def test_a_run_learns_and_leaves_its_files(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe(
        "sa_csp_ca/fer2013", TINY | {"train.epochs": 8, "optim.lr": 0.03, "augment.erase": 0, "train.ema_decay": 0}
    )
    steps: list[tuple[int, int, int]] = []
    result = train(recipe, corpus, tmp_path / "run", on_step=lambda *at: steps.append(at))
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss - 0.1
    assert steps[-1] == (8, 6, 6)
    assert len(steps) == 48
    assert len(history(tmp_path / "run")) == 8
    assert load_recipe(tmp_path / "run" / "recipe.yaml") == recipe
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        assert picture.size[0] > 600
    assert list((tmp_path / "run").glob("events.out.tfevents.*"))
    _, info = load_checkpoint(tmp_path / "run")
    assert info.classes == corpus.classes
    assert info.preprocess == recipe.preprocess.spec()
    assert info.recipe == recipe.to_dict()
    assert info.data_fingerprint == corpus.fingerprint
    assert info.results["public_test"]["accuracy"] == max(row.val_accuracy for row in result.epochs)


def test_the_seed_decides_everything(tmp_path: Path, corpus: Corpus, recipe: Recipe):
    for name in ("a", "b"):
        train(recipe, corpus, tmp_path / name)
    assert history(tmp_path / "a") == history(tmp_path / "b")
    train(load_recipe("sa_csp_ca/fer2013", TINY | {"seed": 1}), corpus, tmp_path / "c")
    assert history(tmp_path / "c") != history(tmp_path / "a")


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path, corpus: Corpus, recipe: Recipe):
    train(recipe, corpus, tmp_path / "whole")

    def stop(row: object, epochs: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(recipe, corpus, tmp_path / "stopped", on_epoch=stop)
    train(recipe, corpus, tmp_path / "stopped")
    assert history(tmp_path / "stopped") == history(tmp_path / "whole")
    for key, value in load_checkpoint(tmp_path / "whole")[0].state_dict().items():
        torch.testing.assert_close(load_checkpoint(tmp_path / "stopped")[0].state_dict()[key], value)
    assert train(recipe, corpus, tmp_path / "stopped").epochs[-1].epoch == 3  # finished: nothing more to do


def test_another_runs_folder_is_refused(tmp_path: Path, corpus: Corpus, recipe: Recipe):
    train(recipe, corpus, tmp_path / "run")
    with pytest.raises(CheckpointError, match="another recipe"):
        train(load_recipe("sa_csp_ca/fer2013", TINY | {"seed": 1}), corpus, tmp_path / "run")
    split = corpus.rows.split.copy()
    split[0] = 1
    with pytest.raises(CheckpointError, match="other splits"):
        train(recipe, replace(corpus, rows=replace(corpus.rows, split=split)), tmp_path / "run")
    (tmp_path / "run" / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(recipe, corpus, tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_found_out_first(tmp_path: Path, corpus: Corpus, recipe: Recipe):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        train(recipe, corpus, tmp_path / "file" / "run", on_step=lambda *at: pytest.fail("it trained"))


def test_a_recipe_that_does_not_fit_is_refused(tmp_path: Path, corpus: Corpus):
    for change, message in (
        ({"train.batch_size": 1000}, "has 96 images"),
        ({"train.batch_size": 1}, "at least 2 images a process"),
        ({"model.arguments": {"in_channels": 3}}, "preprocess.channels"),
        ({"optim.name": "no_such"}, "optim: no_such"),
        ({"optim.momentum": 0}, "optim: sgd refuses its values: Nesterov momentum requires a momentum"),
        ({"loss": {"name": "kl_divergence"}}, "takes votes"),
        ({"data.select": "private_test"}, "is a test split"),
        ({"augment.mixup": 0.2, "train.batch_size": 15}, "mixes pairs"),
        ({"loss.class_weights": "inverse", "loss.arguments.weight": [1] * 7}, "names no weight"),
    ):
        with pytest.raises(RecipeError, match=message):
            train(load_recipe("sa_csp_ca/fer2013", TINY | change), corpus, tmp_path / "run")


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "nadam", "rmsprop", "radam"])
def test_the_optimisers_of_the_papers_step(tmp_path: Path, corpus: Corpus, optimizer: str):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"optim.name": optimizer, "optim.lr": 1e-3, "train.epochs": 1})
    assert train(recipe, corpus, tmp_path / "run").best.train_loss > 0


def test_the_rate_warms_up_and_falls(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"train.epochs": 6, "optim.warmup_epochs": 2})
    rates = [row.lr for row in train(recipe, corpus, tmp_path / "run").epochs]
    assert rates[0] < rates[1]
    assert rates[1] > rates[2] > rates[3] > rates[5]
    assert 0 < rates[5] < 0.01
    constant = load_recipe("sa_csp_ca/fer2013", TINY | {"optim.schedule": "constant", "optim.warmup_epochs": 0})
    assert {row.lr for row in train(constant, corpus, tmp_path / "flat").epochs} == {0.1}


def test_the_history_has_the_rate_of_the_last_layer(tmp_path: Path, corpus: Corpus):
    """Not that of a lower one, nor the loss's own."""
    changes = {"optim.schedule": "constant", "optim.layer_decay": 0.5, "loss": {"name": "joint", "lr": 0.5}}
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | changes | {"optim.warmup_epochs": 0, "train.epochs": 1})
    assert train(recipe, corpus, tmp_path / "run").best.lr == pytest.approx(0.1)


def test_a_plateau_lowers_the_rate_and_resumes(tmp_path: Path, corpus: Corpus):
    """With a patience of 0 and a rate too low to learn, each epoch that is no better lowers the rate."""
    changes = {"optim.schedule": "plateau", "optim.plateau_patience": 0, "optim.warmup_epochs": 0, "optim.lr": 1e-9}
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | changes | {"optim.plateau_factor": 0.5, "train.epochs": 4})
    whole = [row.lr for row in train(recipe, corpus, tmp_path / "whole").epochs]
    assert whole[0] == 1e-9
    assert whole[-1] < 1e-9

    def stop(row: Epoch, epochs: int) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, corpus, tmp_path / "stopped", on_epoch=stop)
    assert [row.lr for row in train(recipe, corpus, tmp_path / "stopped").epochs] == whole


def test_the_joint_loss_trains_its_centers(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"loss": {"name": "joint", "lr": 0.5}, "train.epochs": 1})
    train(recipe, corpus, tmp_path / "run")
    first = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["objective"]["loss.centers"]
    assert first.shape == (7, 512)
    again = load_recipe("sa_csp_ca/fer2013", TINY | {"loss": {"name": "joint", "lr": 1e-9}, "train.epochs": 1})
    train(again, corpus, tmp_path / "still")
    still = torch.load(tmp_path / "still" / "last.ckpt", weights_only=True)["objective"]["loss.centers"]
    assert (first - still).abs().max() > 1e-4
    with safe_open(tmp_path / "run" / "best.safetensors", framework="pt") as kept:
        assert torch.equal(kept.get_tensor("loss.centers"), first)
    assert not any("centers" in name for name in load_checkpoint(tmp_path / "run")[0].state_dict())


def test_mixup_needs_a_loss_that_takes_mixed_targets(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"augment.mixup": 0.2, "loss": {"name": "focal"}})
    with pytest.raises(RecipeError, match=r"augment\.mixup"):
        train(recipe, corpus, tmp_path / "run")


def test_mixup_trains(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"augment.mixup": 0.2, "train.epochs": 1})
    assert train(recipe, corpus, tmp_path / "run").best.train_loss > 0


def test_bfloat16_trains(tmp_path: Path, corpus: Corpus, recipe: Recipe):
    result = train(recipe, corpus, tmp_path / "run", fabric=default_fabric(recipe, precision="bf16-mixed"))
    assert all(torch.isfinite(v).all() for v in load_checkpoint(result.folder)[0].state_dict().values())


@pytest.mark.slow
def test_a_run_killed_with_signal_9_goes_on(tmp_path: Path, fer2013_csv: Path):
    """The command is killed in the middle of an epoch and given again; the history is that of a run left alone."""
    changes = [f"--set={key}={value}" for key, value in (TINY | {"train.epochs": 4}).items()]

    def command(out: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "mien",
            "train",
            "sa_csp_ca/fer2013",
            f"--data={fer2013_csv}",
            f"--out={tmp_path / out}",
            *changes,
        ]

    killed = subprocess.Popen(command("killed"), stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    assert killed.stdout is not None
    while not re.match("epoch 2/4", killed.stdout.readline()):
        assert killed.poll() is None
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = subprocess.run(command("killed"), capture_output=True, text=True, check=True)
    assert "epoch 1/4" not in again.stdout
    subprocess.run(command("whole"), capture_output=True, check=True)
    assert history(tmp_path / "killed") == history(tmp_path / "whole")


def with_votes(corpus: Corpus) -> Corpus:
    """Give each image the votes of ten raters who agree seven to three."""
    votes = 0.7 * np.eye(7, dtype=np.float32)[corpus.target] + 0.3 * np.eye(7, dtype=np.float32)[(corpus.target + 1) % 7]
    return replace(corpus, rows=replace(corpus.rows, votes=votes))


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_cross_entropy", "kl_divergence"])
@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_votes_are_learnt(tmp_path: Path, corpus: Corpus, loss: str, mixup: float):
    changes = {"data.votes": True, "loss": {"name": loss}, "augment.mixup": mixup, "train.epochs": 1}
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | changes)
    assert train(recipe, with_votes(corpus), tmp_path / "run").best.train_loss > 0
    with pytest.raises(RecipeError, match="one label an image"):
        train(recipe, corpus, tmp_path / "none")


def test_class_weights_are_counted_from_the_training_split(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"loss.class_weights": "inverse"})
    weight = Run(recipe, corpus, tmp_path / "run", default_fabric(recipe)).plain.loss.weight
    counts = np.bincount(corpus.target[corpus.where("train")], minlength=7)
    assert weight.tolist() == pytest.approx(((1 / counts) / (1 / counts).mean()).tolist())
    with pytest.raises(RecipeError, match="for cross_entropy alone"):
        train(
            load_recipe("sa_csp_ca/fer2013", TINY | {"loss": {"name": "focal", "class_weights": "inverse"}}), corpus, tmp_path
        )


def test_balanced_sampling_shows_every_class_equally_often(tmp_path: Path, corpus: Corpus):
    keep = np.flatnonzero((corpus.target > 0) | (np.arange(160) % 3 == 0))
    uneven = replace(corpus, images=corpus.images[keep], rows=corpus.rows.take(keep))
    seen = {}
    for sampling in ("natural", "balanced"):
        recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"data.sampling": sampling})
        run = Run(recipe, uneven, tmp_path / sampling, default_fabric(recipe))
        seen[sampling] = np.bincount(run.feed.target[torch.cat(list(run._parts(seed=5)))].numpy(), minlength=7)
    assert np.ptp(seen["balanced"]) <= 3
    assert seen["natural"][0] < 8 < seen["balanced"][0]


def test_without_a_selection_split_the_last_epoch_is_kept(tmp_path: Path, corpus: Corpus):
    result = train(load_recipe("sa_csp_ca/fer2013", TINY | {"data.select": None}), corpus, tmp_path / "run")
    assert result.best.epoch == 3
    assert load_checkpoint(tmp_path / "run")[1].results == {}
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_channels_last_says_the_same(tmp_path: Path, corpus: Corpus):
    losses = []
    for last in (False, True):
        recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"train.channels_last": last})
        fabric = default_fabric(recipe, precision="32-true")
        losses.append(train(recipe, corpus, tmp_path / str(last), fabric=fabric).epochs[0].train_loss)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("select", ["public_test", None])
def test_a_run_that_goes_astray_ends_and_keeps_what_was(tmp_path: Path, corpus: Corpus, select: str | None):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"data.select": select})
    run = Run(recipe, corpus, tmp_path / "run", default_fabric(recipe))
    run.save([run.epoch(1, None)])
    kept = [(tmp_path / "run" / name).read_bytes() for name in ("best.safetensors", "last.ckpt", "history.csv")]
    with torch.no_grad():
        run.plain.model.stem[0].weight.fill_(torch.nan)
    with pytest.raises(RecipeError, match=r"epoch 2 ended in nan or infinity \(loss nan\).* optim.lr \(it is 0.1\)"):
        run.epoch(2, None)
    assert [(tmp_path / "run" / name).read_bytes() for name in ("best.safetensors", "last.ckpt", "history.csv")] == kept


def test_a_rate_no_network_stands_is_named(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"optim.lr": 1e30, "optim.clip_norm": 0, "optim.warmup_epochs": 0})
    with pytest.raises(RecipeError, match="went astray; lower optim"):
        train(recipe, corpus, tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir() if "tfevents" not in file.name] == ["recipe.yaml"]


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path, corpus: Corpus, recipe: Recipe):
    (tmp_path / "run").mkdir()
    for name in (".best-0123abcd.safetensors", ".last-0123abcd.ckpt", "mine.txt"):
        (tmp_path / "run" / name).write_bytes(b"half")
    Run(recipe, corpus, tmp_path / "run", default_fabric(recipe)).begin()
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["mine.txt", "recipe.yaml"]


def test_a_start_that_may_know_the_test_is_refused(tmp_path: Path, corpus: Corpus):
    random = {"name": "random_split", "test": 0.2, "val": 0.2}
    changes = TINY | {"data.select": "val", "data.protocol": random, "train.epochs": 1}
    first = apply_protocol(corpus, random)
    train(load_recipe("sa_csp_ca/fer2013", changes), first, tmp_path / "first")
    begun = load_recipe("sa_csp_ca/fer2013", changes | {"model.start": str(tmp_path / "first")})
    assert train(begun, first, tmp_path / "again").epochs
    with pytest.raises(RecipeError, match=r"model\.start: .*first.* was trained on other rows of fer2013"):
        train(begun, apply_protocol(corpus, random | {"seed": 1}), tmp_path / "other")


def test_a_step_is_compiled_where_there_is_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecipeError, match=r"no C\+\+ compiler .*train\.compile=false"):
        check_names(load_recipe("sa_csp_ca/fer2013"))
    check_names(load_recipe("sa_csp_ca/fer2013", {"train.compile": False}))
    compiler = tmp_path / "compiler"
    compiler.touch(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    check_names(load_recipe("sa_csp_ca/fer2013"))


def test_files_that_are_missing_are_found_out_before_the_corpus_is_read(tmp_path: Path):
    taught = {"distill": {"teachers": ["sa_csp_ca-fer2013", str(tmp_path / "none")]}}
    for change, key in ((taught, "distill.teachers"), ({"model.start": str(tmp_path / "none")}, "model.start")):
        with pytest.raises(CheckpointError, match=f"{key}: .*none: no such checkpoint"):
            check_files(load_recipe("sa_csp_ca/fer2013", change), tmp_path / "run")
    check_files(load_recipe("sa_csp_ca/fer2013", {"model.start": "imagenet"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_state_of_other_code_is_refused(tmp_path: Path, corpus: Corpus):
    recipe = load_recipe("sa_csp_ca/fer2013", TINY | {"train.epochs": 1})
    train(recipe, corpus, tmp_path / "run")
    path = tmp_path / "run" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    for key, value in (("objective", {"model.other": torch.zeros(1)}), ("history", [{"epoch": 1, "speed": 3}])):
        torch.save(state | {key: value}, path)
        with pytest.raises(CheckpointError, match="was written by another version"):
            train(recipe, corpus, tmp_path / "run")


def test_momentum_is_the_first_beta_of_adam(corpus: Corpus):
    for name, expected in (("nadam", (0.7, 0.999)), ("adamw", (0.7, 0.999)), ("sgd", None)):
        recipe = load_recipe("sa_csp_ca/fer2013", {"optim.name": name, "optim.momentum": 0.7})
        objective = create_objective(recipe, create_model("sa_csp_ca"))
        [group, *_] = create_optimizer(recipe, objective.model, objective.loss).param_groups
        assert group.get("betas") == expected
        assert group.get("momentum", 0.7) == 0.7


def test_networks_of_one_size_and_of_tokens(corpus: Corpus):
    name = "timm/vit_tiny_patch16_224"
    recipe = load_recipe("sa_csp_ca/fer2013", {"model.name": name, "model.arguments": {"in_channels": 1}})
    with torch.device("meta"):
        network = create_model(name, in_channels=1)
        create_objective(recipe, network)
    assert network.num_classes == 7
    swin = "timm/swin_tiny_patch4_window7_224"
    for other, words in ((name, "tokens instead of a feature map"), (swin, "its channels last")):
        joint = load_recipe("sa_csp_ca/fer2013", {"model.name": other, "loss": {"name": "joint"}})
        with torch.device("meta"), pytest.raises(RecipeError, match=words):
            create_objective(joint, create_model(other, in_channels=1))


def test_a_loss_with_centers_refuses_small_images_like_any_other():
    objective = create_objective(load_recipe("sa_csp_ca/fer2013", {"loss": {"name": "joint"}}), create_model("sa_csp_ca"))
    with pytest.raises(MienError, match="too small for this network"):
        objective(torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))


def test_the_commit_is_of_the_code_that_began(tmp_path: Path, corpus: Corpus, monkeypatch: pytest.MonkeyPatch):
    commits = iter(["first", "second", "third"])
    monkeypatch.setattr(sys.modules[Run.__module__], "current_commit", lambda: next(commits))
    train(load_recipe("sa_csp_ca/fer2013", TINY), corpus, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")[1].commit == "first"
