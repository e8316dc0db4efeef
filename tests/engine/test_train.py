import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from mien.checkpoint import load_checkpoint
from mien.datasets import Corpus, apply_protocol
from mien.engine import train
from mien.engine.checks import check_data, check_files, check_names
from mien.engine.devices import create_fabric
from mien.engine.history import Epoch
from mien.engine.loader import Loader
from mien.engine.loss import create_objective
from mien.engine.optim import create_optimizer
from mien.engine.train import Run
from mien.errors import CheckpointError, MienError, OutputError, RecipeError
from mien.models import create_model
from mien.recipe import Recipe, load_recipe

Recipes = Callable[..., Recipe]
LONG = {"train.epochs": 3, "optim.warmup_epochs": 1}


def history(folder: Path) -> list[dict[str, str]]:
    with (folder / "history.csv").open() as file:
        return [{k: v for k, v in row.items() if "second" not in k} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, corpus: Corpus, tiny_recipe: Recipes) -> Path:
    """The folder of a finished run of three epochs. Not to be changed."""
    folder = tmp_path_factory.mktemp("whole")
    train(tiny_recipe(LONG), corpus, folder)
    return folder


@pytest.fixture
def finished(tmp_path: Path, whole: Path) -> Path:
    """The test's own copy of a finished run."""
    return Path(shutil.copytree(whole, tmp_path / "finished"))


def test_a_run_learns_and_leaves_its_files(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    recipe = tiny_recipe({"train.epochs": 4, "optim.lr": 0.03, "augment.erase": 0, "train.ema_decay": 0})
    steps: list[tuple[int, int, int]] = []
    result = train(recipe, corpus, tmp_path / "run", on_step=lambda *at: steps.append(at))
    assert result.epochs[-1].train_loss < result.epochs[0].train_loss - 0.1
    assert steps[-1] == (4, 6, 6)
    assert len(steps) == 24
    assert len(history(tmp_path / "run")) == 4
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


def test_the_seed_decides_everything(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, whole: Path):
    train(tiny_recipe(LONG), corpus, tmp_path / "again")
    assert history(tmp_path / "again") == history(whole)
    train(tiny_recipe(LONG | {"train.epochs": 1, "seed": 1}), corpus, tmp_path / "other")
    assert history(tmp_path / "other") != history(whole)[:1]


def test_a_stopped_run_resumes_as_if_it_had_not_stopped(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, whole: Path):
    def stop(row: object, epochs: int) -> None:
        raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(tiny_recipe(LONG), corpus, tmp_path / "stopped", on_epoch=stop)
    train(tiny_recipe(LONG), corpus, tmp_path / "stopped")
    assert history(tmp_path / "stopped") == history(whole)
    for key, value in load_checkpoint(whole)[0].state_dict().items():
        torch.testing.assert_close(load_checkpoint(tmp_path / "stopped")[0].state_dict()[key], value)
    assert train(tiny_recipe(LONG), corpus, tmp_path / "stopped").epochs[-1].epoch == 3  # finished: nothing more to do


def test_another_runs_folder_is_refused(corpus: Corpus, tiny_recipe: Recipes, finished: Path):
    with pytest.raises(CheckpointError, match="another recipe"):
        train(tiny_recipe(LONG | {"seed": 1}), corpus, finished)
    split = corpus.rows.split.copy()
    split[0] = 1
    with pytest.raises(CheckpointError, match="other splits"):
        train(tiny_recipe(LONG), replace(corpus, rows=replace(corpus.rows, split=split)), finished)
    (finished / "last.ckpt").write_bytes(b"damaged")
    with pytest.raises(CheckpointError, match="cannot be read"):
        train(tiny_recipe(LONG), corpus, finished)


def test_a_state_of_other_code_is_refused(corpus: Corpus, tiny_recipe: Recipes, finished: Path):
    path = finished / "last.ckpt"
    state = torch.load(path, weights_only=True)
    for key, value in (("objective", {"model.other": torch.zeros(1)}), ("history", [{"epoch": 1, "speed": 3}])):
        torch.save(state | {key: value}, path)
        with pytest.raises(CheckpointError, match="was written by another version"):
            train(tiny_recipe(LONG), corpus, finished)


def test_a_folder_that_cannot_be_written_is_found_out_first(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        train(tiny_recipe(), corpus, tmp_path / "file" / "run", on_step=lambda *at: pytest.fail("it trained"))


def test_a_recipe_that_does_not_fit_is_refused(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    for change, message in (
        ({"train.batch_size": 1000}, "has 96 images"),
        ({"train.batch_size": 1}, "at least 2 images per process"),
        ({"model.arguments": {"in_channels": 3, "depth": 1}}, "preprocess.channels"),
        ({"preprocess.size": [2, 40]}, "preprocess.size is 2x40 px, but dlib_resnet needs"),
        ({"train.early_size": [2, 2], "train.final_epochs": 1}, "train.early_size is 2x2 px"),
        ({"optim.name": "no_such"}, "optim: no_such"),
        ({"loss": {"name": "kl_divergence"}}, "needs votes"),
        ({"data.select": "private_test"}, "is a test split"),
        ({"augment.mixup": 0.2, "train.batch_size": 15}, "mixes pairs"),
        ({"augment.mixup": 0.2, "loss": {"name": "focal"}}, r"augment\.mixup makes soft targets"),
        ({"loss.class_weights": "inverse", "loss.arguments.weight": [1] * 7}, r"no loss\.arguments\.weight"),
        ({"loss": {"name": "focal", "class_weights": "inverse"}}, "needs loss.name cross_entropy"),
    ):
        with pytest.raises(RecipeError, match=message):
            train(tiny_recipe(change), corpus, tmp_path / "run")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this optimizer needs a GPU")
def test_an_optimizer_that_cannot_be_made_is_refused(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    with pytest.raises(RecipeError, match="optim: fusedsgd does not accept these values: CUDA required"):
        train(tiny_recipe({"optim.name": "fusedsgd"}), corpus, tmp_path / "run")


@pytest.mark.parametrize("processes", [3, 64])
def test_processes_that_cannot_share_a_batch_are_refused(corpus: Corpus, tiny_recipe: Recipes, processes: int):
    message = "is 64, which 3 processes cannot share evenly; choose another" if processes == 3 else "2 images per process"
    with pytest.raises(RecipeError, match=message):
        check_data(tiny_recipe({"train.batch_size": 64}), corpus, processes)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "nadam", "rmsprop", "radam"])
def test_the_optimizers_of_the_papers_step(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, optimizer: str):
    recipe = tiny_recipe({"optim.name": optimizer, "optim.lr": 1e-3})
    run = Run(recipe, corpus, tmp_path, create_fabric(recipe))
    before = [parameter.detach().clone() for parameter in run.unwrapped.parameters()]
    assert run.fit(1)[0] > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, run.unwrapped.parameters(), strict=True))


@pytest.mark.parametrize("name", ["sgd", "momentum", "rmsprop"])
def test_without_momentum_they_are_plain(name: str):
    """A step of SGD is the gradient times the rate, with the name of Nesterov momentum too."""
    network = create_model("dlib_resnet", in_channels=1, depth=1)
    recipe = load_recipe("sa_csp_ca/fer2013", {"optim": {"name": name, "lr": 0.01, "momentum": 0}})
    objective = create_objective(recipe, network)
    optimizer = create_optimizer(recipe, objective.model, objective.loss)
    assert {(group["momentum"], group.get("nesterov", False)) for group in optimizer.param_groups} == {(0, False)}
    weight = network.classifier.weight
    for _ in range(2):
        before = weight.detach().clone()
        optimizer.zero_grad()
        objective(torch.rand(4, 1, 48, 48), torch.arange(4))[0].backward()
        optimizer.step()
        if name != "rmsprop":
            torch.testing.assert_close(weight.detach(), before - 0.01 * weight.grad)


def test_with_momentum_sgd_keeps_nesterovs():
    network = create_model("dlib_resnet", in_channels=1, depth=1)
    for name, nesterov in (("sgd", True), ("momentum", False)):
        recipe = load_recipe("sa_csp_ca/fer2013", {"optim.name": name})
        objective = create_objective(recipe, network)
        groups = create_optimizer(recipe, objective.model, objective.loss).param_groups
        assert {(group["momentum"], group["nesterov"]) for group in groups} == {(0.9, nesterov)}


def rates(recipe: Recipe, corpus: Corpus, folder: Path) -> list[float]:
    run = Run(recipe, corpus, folder, create_fabric(recipe))
    return [run.fit(number)[2] for number in range(1, recipe.train.epochs + 1)]


def test_the_rate_warms_up_and_falls(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    found = rates(tiny_recipe({"train.epochs": 6, "optim.warmup_epochs": 2}), corpus, tmp_path)
    assert found[0] < found[1]
    assert found[1] > found[2] > found[3] > found[5]
    assert 0 < found[5] < 0.01
    assert set(rates(tiny_recipe({"optim.schedule": "constant", "train.epochs": 2}), corpus, tmp_path)) == {0.1}


def test_the_history_has_the_rate_of_the_last_layer(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    """Not that of a lower one, nor the loss's own."""
    changes = {"optim.schedule": "constant", "optim.layer_decay": 0.5, "loss": {"name": "joint", "lr": 0.5}}
    assert rates(tiny_recipe(changes), corpus, tmp_path) == [pytest.approx(0.1)]


def test_a_plateau_lowers_the_rate_and_resumes(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    """With a patience of 0 and a rate too low to learn, each epoch that is no better lowers the rate."""
    changes = {"optim.schedule": "plateau", "optim.plateau_patience": 0, "optim.lr": 1e-9}
    recipe = tiny_recipe(changes | {"optim.plateau_factor": 0.5, "train.epochs": 4})
    whole = [row.lr for row in train(recipe, corpus, tmp_path / "whole").epochs]
    assert whole[0] == 1e-9
    assert whole[-1] < 1e-9

    def stop(row: Epoch, epochs: int) -> None:
        if row.epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(recipe, corpus, tmp_path / "stopped", on_epoch=stop)
    assert [row.lr for row in train(recipe, corpus, tmp_path / "stopped").epochs] == whole


def test_the_joint_loss_trains_its_centers(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    train(tiny_recipe({"loss": {"name": "joint", "lr": 0.5}}), corpus, tmp_path / "run")
    first = torch.load(tmp_path / "run" / "last.ckpt", weights_only=True)["objective"]["loss.centers"]
    assert first.shape == (7, 32)
    again = tiny_recipe({"loss": {"name": "joint", "lr": 1e-9}})
    run = Run(again, corpus, tmp_path / "still", create_fabric(again))
    run.fit(1)
    assert (first - run.unwrapped.loss.centers).abs().max() > 1e-4
    with safe_open(tmp_path / "run" / "best.safetensors", framework="pt") as kept:
        assert torch.equal(kept.get_tensor("loss.centers"), first)
    assert not any("centers" in name for name in load_checkpoint(tmp_path / "run")[0].state_dict())


def test_the_final_epochs_are_at_full_size_and_without_mixup(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    phases = {"train.epochs": 3, "train.final_epochs": 1, "train.early_size": [40, 40], "augment.mixup": 0.2}
    phases |= {"preprocess.size": [48, 48]}
    recipe = tiny_recipe(phases)
    run = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe))
    seen: list[tuple[int, bool]] = []

    def note(module: object, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.append((inputs[0].shape[-1], inputs[1].ndim == 2))  # side, and whether targets are mixed

    run.unwrapped.register_forward_pre_hook(note)
    for number in (1, 2, 3):
        run.fit(number)
    assert seen == [(40, True)] * 12 + [(48, False)] * 6
    for change, message in (
        ({"train.final_epochs": 4}, "train.final_epochs is 4"),
        ({"train.final_epochs": 0}, "needs train.final"),
    ):
        with pytest.raises(RecipeError, match=message):
            tiny_recipe(phases | change)


def test_a_run_resumes_when_only_texts_of_its_recipe_changed(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, finished: Path
):
    texts = {"summary": "another text", "deviations": ["another"], "paper": None}
    assert train(tiny_recipe(LONG | texts), corpus, finished).epochs[-1].epoch == 3


def test_mixup_trains(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    assert train(tiny_recipe({"augment.mixup": 0.2}), corpus, tmp_path / "run").best.train_loss > 0


def test_bfloat16_trains(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    recipe = tiny_recipe()
    result = train(recipe, corpus, tmp_path / "run", fabric=create_fabric(recipe, precision="bf16-mixed"))
    assert all(torch.isfinite(v).all() for v in load_checkpoint(result.folder)[0].state_dict().values())


@pytest.mark.slow
def test_a_run_killed_with_signal_9_resumes(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, whole: Path, shared_fer2013_csv: Path
):
    """The command is killed in the middle of an epoch; the history is that of a run left alone."""
    (tmp_path / "recipe.yaml").write_text(tiny_recipe(LONG).to_yaml())
    command = [sys.executable, "-m", "mien", "train", str(tmp_path / "recipe.yaml"), f"--data={shared_fer2013_csv}"]
    killed = subprocess.Popen(
        [*command, f"--out={tmp_path / 'killed'}"],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    assert killed.stdout is not None
    while not re.match("epoch 2/3", killed.stdout.readline()):
        assert killed.poll() is None
    time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    seen: list[int] = []
    train(tiny_recipe(LONG), corpus, tmp_path / "killed", on_epoch=lambda row, epochs: seen.append(row.epoch))
    assert 1 not in seen
    assert history(tmp_path / "killed") == history(whole)


@pytest.fixture(scope="module")
def with_votes(corpus: Corpus) -> Corpus:
    """The corpus with votes: ten raters of each image who agree seven to three."""
    votes = 0.7 * np.eye(7, dtype=np.float32)[corpus.target] + 0.3 * np.eye(7, dtype=np.float32)[(corpus.target + 1) % 7]
    return replace(corpus, rows=replace(corpus.rows, votes=votes))


@pytest.mark.parametrize("loss", ["cross_entropy", "soft_cross_entropy", "kl_divergence"])
@pytest.mark.parametrize("mixup", [0.0, 0.2])
def test_votes_are_learnt(tmp_path: Path, corpus: Corpus, with_votes: Corpus, tiny_recipe: Recipes, loss: str, mixup: float):
    recipe = tiny_recipe({"data.votes": True, "loss": {"name": loss}, "augment.mixup": mixup})
    assert Run(recipe, with_votes, tmp_path, create_fabric(recipe)).fit(1)[0] > 0
    with pytest.raises(RecipeError, match="one label per image"):
        train(recipe, corpus, tmp_path / "none")


def test_class_weights_are_counted_from_the_training_split(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    recipe = tiny_recipe({"loss.class_weights": "inverse"})
    weight = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe)).unwrapped.loss.weight
    counts = np.bincount(corpus.target[corpus.where("train")], minlength=7)
    assert weight.tolist() == pytest.approx(((1 / counts) / (1 / counts).mean()).tolist())


def test_balanced_sampling_shows_every_class_equally_often(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    keep = np.flatnonzero((corpus.target > 0) | (np.arange(160) % 3 == 0))
    uneven = replace(corpus, images=corpus.images[keep], rows=corpus.rows.take(keep))
    seen = {}
    for sampling in ("natural", "balanced"):
        recipe = tiny_recipe({"data.sampling": sampling})
        run = Run(recipe, uneven, tmp_path / sampling, create_fabric(recipe))
        seen[sampling] = np.bincount(run.loader.target[torch.cat(list(run._batch_indices(seed=5)))].numpy(), minlength=7)
    assert np.ptp(seen["balanced"]) <= 3
    assert seen["natural"][0] < 8 < seen["balanced"][0]


def test_without_a_selection_split_the_last_epoch_is_kept(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    result = train(tiny_recipe({"data.select": None, "train.epochs": 2}), corpus, tmp_path / "run")
    assert result.best.epoch == 2
    assert load_checkpoint(tmp_path / "run")[1].results == {}
    assert (tmp_path / "run" / "curves.png").stat().st_size > 1000


def test_lambda_does_not_move_the_centers_in_a_run(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    """With a network that stands still, centers end where they end with any other lambda; clipping leaves them alone too."""
    ends = []
    for number, (island_weight, clip_norm) in enumerate(((0.0005, 0.0), (0.05, 0.0), (0.05, 1e-4))):
        loss = {"name": "joint", "lr": 0.0025, "arguments": {"island_weight": island_weight}}
        recipe = tiny_recipe({"loss": loss, "optim.lr": 1e-12, "optim.clip_norm": clip_norm})
        run = Run(recipe, corpus, tmp_path / str(number), create_fabric(recipe))
        before = run.unwrapped.loss.centers.detach().clone()
        run.fit(1)
        ends.append(run.unwrapped.loss.centers.detach())
        assert (ends[-1] - before).abs().max() > 1e-3
    torch.testing.assert_close(ends[1], ends[0])
    torch.testing.assert_close(ends[2], ends[0])


def test_fixed_views_make_a_training_epoch_longer_and_nothing_else(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, monkeypatch: pytest.MonkeyPatch
):
    recipe = tiny_recipe({"augment.views": 5, "augment.flip": 0})
    run = Run(recipe, corpus, tmp_path, create_fabric(recipe))
    assert (len(run.loader), run.steps) == (5 * 96, 5 * 96 // 16)
    loaders: list[tuple[int, int]] = []
    made = Loader.__init__

    def note(self: Loader, corpus: Corpus, rows: np.ndarray, *arguments: object) -> None:
        made(self, corpus, rows, *arguments)
        loaders.append((len(rows), len(self)))

    monkeypatch.setattr(Loader, "__init__", note)
    row = run.epoch(1)
    assert loaders == [(32, 32)], "the selection split has one version of each image"
    assert row.train_loss > 0


def test_channels_last_says_the_same(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    losses = []
    for last in (False, True):
        recipe = tiny_recipe({"train.channels_last": last})
        losses.append(Run(recipe, corpus, tmp_path, create_fabric(recipe, precision="32-true")).fit(1)[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("select", ["public_test", None])
def test_a_run_that_diverges_ends_and_keeps_what_was(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, select: str | None):
    recipe = tiny_recipe({"data.select": select})
    run = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe))
    run.save([run.epoch(1)])
    kept = [(tmp_path / "run" / name).read_bytes() for name in ("best.safetensors", "last.ckpt", "history.csv")]
    with torch.no_grad():
        run.unwrapped.model.stem[0].weight.fill_(torch.nan)
    with pytest.raises(RecipeError, match=r"epoch 2 ended in nan or infinity \(loss nan\).* optim.lr \(it is 0.1\)"):
        run.epoch(2)
    assert [(tmp_path / "run" / name).read_bytes() for name in ("best.safetensors", "last.ckpt", "history.csv")] == kept


def test_a_rate_no_network_stands_is_named(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    with pytest.raises(RecipeError, match=r"diverged\. Lower optim"):
        train(tiny_recipe({"optim.lr": 1e30, "optim.clip_norm": 0}), corpus, tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").iterdir() if "tfevents" not in file.name] == ["recipe.yaml"]


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    (tmp_path / "run").mkdir()
    for name in (".best-0123abcd.safetensors", ".last-0123abcd.ckpt", "mine.txt"):
        (tmp_path / "run" / name).write_bytes(b"half")
    Run(tiny_recipe(), corpus, tmp_path / "run", create_fabric(tiny_recipe())).start()
    assert sorted(file.name for file in (tmp_path / "run").iterdir()) == ["mine.txt", "recipe.yaml"]


def test_a_start_that_may_know_the_test_is_refused(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    random = {"name": "random_split", "test": 0.2, "val": 0.2}
    changes = {"data.select": "val", "data.protocol": random}
    first = apply_protocol(corpus, random)
    train(tiny_recipe(changes), first, tmp_path / "first")
    begun = tiny_recipe(changes | {"model.start": str(tmp_path / "first")})
    assert Run(begun, first, tmp_path / "again", create_fabric(begun)).transfer.fresh == []
    with pytest.raises(RecipeError, match=r"model\.start: .*first.* was trained on another split of fer2013"):
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
    distilled = {"distill": {"teachers": ["sa_csp_ca-fer2013", str(tmp_path / "none")]}}
    for change, key in ((distilled, "distill.teachers"), ({"model.start": str(tmp_path / "none")}, "model.start")):
        with pytest.raises(CheckpointError, match=f"{key}: .*none: no such checkpoint"):
            check_files(load_recipe("sa_csp_ca/fer2013", change), tmp_path / "run")
    check_files(load_recipe("sa_csp_ca/fer2013", {"model.start": "imagenet"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_momentum_is_the_first_beta_of_adam():
    with torch.device("meta"):
        network = create_model("sa_csp_ca")
    for name, expected in (("nadam", (0.7, 0.999)), ("adamw", (0.7, 0.999)), ("sgd", None)):
        recipe = load_recipe("sa_csp_ca/fer2013", {"optim.name": name, "optim.momentum": 0.7})
        objective = create_objective(recipe, network)
        [group, *_] = create_optimizer(recipe, objective.model, objective.loss).param_groups
        assert group.get("betas") == expected
        assert group.get("momentum", 0.7) == 0.7


def test_networks_of_one_size_and_of_tokens():
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


def test_the_commit_is_of_the_code_that_began(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, monkeypatch: pytest.MonkeyPatch
):
    commits = iter(["first", "second", "third"])
    monkeypatch.setattr(sys.modules[Run.__module__], "current_commit", lambda: next(commits))
    train(tiny_recipe(), corpus, tmp_path / "run")
    assert load_checkpoint(tmp_path / "run")[1].commit == "first"


def test_a_run_replaces_nothing_that_it_reads_and_no_weights_of_another_run(tmp_path: Path):
    run, start, bundled = tmp_path / "run", tmp_path / "run" / "best.safetensors", load_recipe("sa_csp_ca/fer2013")
    run.mkdir()
    start.write_bytes(b"weights")
    (run / "recipe.yaml").write_text("# mine")
    for change in ({"model.start": str(start)}, {"model.start": str(run)}, {"distill": {"teachers": [str(start)]}}):
        with pytest.raises(OutputError, match=r"best.safetensors: is read by this run, which would overwrite it"):
            check_files(load_recipe("sa_csp_ca/fer2013", change), run)
    with pytest.raises(OutputError, match=r"recipe.yaml: is read by this run, which would overwrite it"):
        check_files(bundled, run, [run / "recipe.yaml"])
    with pytest.raises(OutputError, match=r"holds trained weights, but no last.ckpt to resume from"):
        check_files(bundled, run)
    (run / "last.ckpt").touch()
    check_files(bundled, run)
    start.unlink()
    check_files(bundled, run, [tmp_path])
    assert (run / "recipe.yaml").read_text() == "# mine"
