"""Fine-tuning: exported models as a start, early stopping, and how a folder of faces is checked and split."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mien.checkpoint import read_info
from mien.datasets import Corpus, load_corpus
from mien.engine.checks import check_files
from mien.engine.devices import create_fabric
from mien.engine.finetune import cautions, check_classes, fill_recipe
from mien.engine.loss import create_objective
from mien.engine.train import Run, train
from mien.errors import CheckpointError, DataError, RecipeError
from mien.models import create_model
from mien.predict.onnx_backend import OnnxBackend
from mien.recipe import Recipe
from mien.statistics import interval_of_units
from mien.transfer import restore_norms, start_from
from mien.weights import DEFAULT, bundled

OPTIONS = {"size": 48, "colour": False}


def faces(folder: Path, counts: dict[str, int], people: int = 6) -> Path:
    """Write noise under names like those of CK+48."""
    random = np.random.default_rng(len(counts))
    for number, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = random.integers(0, 256, (24, 24)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"S{i % people:03}_00{number}_{i:08}.png")
    return folder


def load(folder: Path, **options: object) -> Corpus:
    return load_corpus("folder", folder, options=OPTIONS | options)


@pytest.mark.parametrize("name", ["dlib_resnet-fer2013", DEFAULT, "sa_csp_ca-fer2013"])
def test_a_network_started_from_a_bundled_model_gives_its_answers_and_can_be_trained(name: str):
    backend = OnnxBackend(bundled()[name])
    model = create_model(backend.info.arch, num_classes=7, **backend.info.arguments).eval()
    report = start_from(model, name, backend.info.classes)
    assert (report.fresh, report.unused, report.classes) == ([], [], "")
    assert read_info(bundled()[name]) == backend.info
    batch = np.random.default_rng(0).normal(size=(8, 1, *backend.info.preprocess.size)).astype(np.float32)
    images, expected = torch.from_numpy(batch), backend.logits(batch)
    with torch.no_grad():
        np.testing.assert_allclose(model(images).numpy(), expected, atol=1e-4)
        restore_norms(model, report.folded, [images[:3], images[3:]])
        np.testing.assert_allclose(model(images).numpy(), expected, atol=1e-4)
        if backend.info.arch == "dlib_resnet":  # all of its norms are restored, so this batch's own statistics change nothing
            np.testing.assert_allclose(model.train()(images).numpy(), expected, atol=1e-3)


def test_classes_of_an_exported_start_are_matched_by_name():
    info = OnnxBackend(bundled()[DEFAULT]).info
    model = create_model(info.arch, num_classes=3, **info.arguments)
    before = model.classifier.weight[1].clone()
    report = start_from(model, DEFAULT, ["Happiness", "contempt", "anger"])
    whole = create_model(info.arch, num_classes=7, **info.arguments)
    start_from(whole, DEFAULT)
    assert report.classes == "classifier by class: Happiness, anger from the file; contempt new; " + (
        "disgust, fear, sad, surprise, neutral unused"
    )
    assert torch.equal(model.classifier.weight[[0, 2]], whole.classifier.weight[[3, 0]])
    assert torch.equal(model.classifier.weight[1], before)


@pytest.mark.parametrize("name", [f"{DEFAULT}-int8", "sa_csp_ca-fer2013"])
def test_an_int8_file_or_another_architecture_is_no_start(name: str):
    with pytest.raises(CheckpointError, match=r"does not have the weights blocks.* give a float32 file of mien export"):
        start_from(create_model("dlib_resnet", in_channels=1, depth=10), name)


def test_a_damaged_export_is_no_start(tmp_path: Path):
    (tmp_path / "cut.onnx").write_bytes(bundled()[DEFAULT].read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="corrupt"):
        start_from(create_model("dlib_resnet", in_channels=1, depth=10), tmp_path / "cut.onnx")
    with pytest.raises(CheckpointError, match="corrupt"):
        read_info(tmp_path / "cut.onnx")


def test_a_run_gives_the_norms_of_an_exported_start_statistics_of_its_images(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Callable[..., Recipe]
):
    recipe = tiny_recipe({"model.start": DEFAULT})
    check_files(recipe, tmp_path / "run")
    run = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe))
    norm = run.unwrapped.model.get_submodule("blocks.0.deep.1")
    assert run.transfer is not None
    assert "blocks.0.deep.1" in run.transfer.folded
    assert norm.running_var.std() > 0.01
    assert torch.allclose(norm.weight, (norm.running_var + norm.eps).sqrt())


def test_an_exported_start_that_may_have_seen_the_test_is_refused(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Callable[..., Recipe]
):
    """It says which data and split trained it, as a checkpoint does."""
    recipe, published = tiny_recipe({"model.start": DEFAULT}), OnnxBackend(bundled()[DEFAULT]).info.data_fingerprint
    with pytest.raises(RecipeError, match="was trained on another split of fer2013"):
        Run(recipe, replace(corpus, fingerprint=published), tmp_path / "run", create_fabric(recipe))


def test_frozen_norms_keep_their_statistics_and_train_their_weights(tiny_recipe: Callable[..., Recipe]):
    recipe = tiny_recipe({"model.frozen": ["norms"]})
    objective = create_objective(recipe, create_model("dlib_resnet", **recipe.model.arguments)).train()
    norms = [module for module in objective.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(norm.training for norm in norms)
    assert all(norm.weight.requires_grad for norm in norms)
    assert objective.model.training


def test_patience_ends_a_run_that_does_not_improve_and_it_does_not_resume(
    tmp_path: Path, corpus: Corpus, tiny_recipe: Callable[..., Recipe]
):
    recipe = tiny_recipe({"train.epochs": 9, "train.patience": 1, "optim.lr": 1e-9})
    first = train(recipe, corpus, tmp_path / "run")
    assert len(first.epochs) == first.best.epoch + 1 < 9
    assert train(recipe, corpus, tmp_path / "run").epochs == first.epochs
    with pytest.raises(RecipeError, match="patience watches the split"):
        tiny_recipe({"train.patience": 2, "data.select": None})


def test_no_person_is_in_two_splits(tmp_path: Path):
    found = load(faces(tmp_path / "faces", {"happy": 40, "sad": 40}, people=10), subject="S[0-9]+")
    recipe, split = fill_recipe(found, DEFAULT, OPTIONS | {"subject": "S[0-9]+"}, {})
    people = [{split.rows.subjects[row] for row in split.where(name)} for name in ("train", "val", "test")]
    assert sum(map(len, people)) == len(set.union(*people)) == 10
    assert recipe.data.protocol == {"name": "random_split", "test": 0.2, "val": 0.15, "by": "subject"}
    assert recipe.train.batch_size == len(split.where("train")) // 8
    tested = []
    for fold in range(3):
        _, split = fill_recipe(found, DEFAULT, OPTIONS, {}, 3, fold)
        tested += split.where("test").tolist()
    assert sorted(tested) == list(range(80))


def test_without_people_every_class_is_in_every_split_and_a_caution_says_so(tmp_path: Path):
    recipe, split = fill_recipe(load(faces(tmp_path / "faces", {"happy": 30, "sad": 12})), DEFAULT, OPTIONS, {})
    for name in ("train", "val", "test"):
        assert set(split.target[split.where(name)]) == {0, 1}
    assert "by" not in recipe.data.protocol
    said = " ".join(cautions(split))
    assert "only 9 test images" in said
    assert "fewer than 20 training images of sad (8)" in said
    assert "--subject" in said
    assert "only" not in " ".join(cautions(split, folds=5))


def test_splits_of_the_folder_are_kept(tmp_path: Path):
    for name, seed in (("train", {"happy": 20, "sad": 20}), ("test", {"happy": 9, "sad": 9, "fear": 3})):
        faces(tmp_path / "faces" / name, seed)
    with pytest.raises(DataError, match=r"training split has no image of fear.*add images"):
        fill_recipe(load(tmp_path / "faces"), DEFAULT, OPTIONS, {})
    faces(tmp_path / "faces/train", {"fear": 9})
    recipe, split = fill_recipe(load(tmp_path / "faces"), DEFAULT, OPTIONS, {})
    assert split.splits == ("train", "val", "test")
    assert (len(split.where("test")), recipe.data.protocol) == (21, {"name": "official", "val": 0.15})


def test_another_network_is_trained_whole(tmp_path: Path):
    found = load(faces(tmp_path / "faces", {"happy": 20, "sad": 20}))
    recipe, _ = fill_recipe(found, "sa_csp_ca-fer2013", OPTIONS, {"seed": 3, "train.batch_size": 5})
    assert (recipe.model.name, recipe.model.frozen, recipe.optim.layer_decay) == ("sa_csp_ca", ["norms"], 1.0)
    assert (recipe.seed, recipe.train.batch_size, recipe.preprocess.size) == (3, 5, (40, 40))
    assert recipe.data.protocol["seed"] == 3


def test_folders_that_cannot_be_fine_tuned_on(tmp_path: Path):
    one = faces(tmp_path / "one", {"happy": 9})
    with pytest.raises(DataError, match="has one class, happy; put the pictures of each expression in its own folder"):
        check_classes(load(one), one)
    few = faces(tmp_path / "few", {"happy": 9, "sad": 2})
    with pytest.raises(DataError, match=r"too few images to split of sad \(2\); each class needs 3 or more"):
        check_classes(load(few), few)
    alone = load(faces(tmp_path / "alone", {"happy": 9, "sad": 9}, people=2), subject="S[0-9]+")
    with pytest.raises(DataError, match="shows 2 people; a split by person needs 3 or more"):
        fill_recipe(alone, DEFAULT, OPTIONS, {})
    with pytest.raises(DataError, match=r"S000_000_00000000\.png: subject 'Z' finds nobody"):
        load(one, subject="Z")
    with pytest.raises(DataError, match="is not a regular expression"):
        load(one, subject="(")


def test_the_same_picture_in_two_splits_is_refused(tmp_path: Path):
    for name in ("train", "val", "test"):
        faces(tmp_path / "faces" / name, {"happy": 3, "sad": 3, name: 1})  # noise that depends on the classes
    for folder in ("train/train", "val/val", "test/test"):
        next((tmp_path / "faces" / folder).iterdir()).rename(tmp_path / "faces" / Path(folder).parent / "happy/other.png")
        (tmp_path / "faces" / folder).rmdir()
    with pytest.raises(
        DataError, match=r"train/happy/.*\(in train\) and .*val/happy/.*\(in val\) are the same picture; delete"
    ):
        fill_recipe(load(tmp_path / "faces"), DEFAULT, OPTIONS, {})


def test_images_of_one_person_count_together():
    differences = np.array([1.0, 1.0, 1.0, 0.0, 0.0, 0.0] * 5)
    low, high = interval_of_units(differences, np.arange(30).astype(str))
    wide = interval_of_units(differences, np.array((["a"] * 3 + ["b"] * 3) * 5))
    assert 0.3 < low < 0.5 < high < 0.7
    assert wide == (0.0, 1.0)
    assert interval_of_units(np.ones(4), np.arange(4).astype(str)) == (1.0, 1.0)
