from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mien.augment import Mixup, Normalize
from mien.checkpoint import load_checkpoint, save_checkpoint
from mien.datasets import Corpus, apply_protocol
from mien.engine import train
from mien.engine.devices import create_fabric
from mien.engine.distill import Teachers, distillation_loss
from mien.engine.export import export_onnx
from mien.engine.train import Run
from mien.errors import CheckpointError, RecipeError
from mien.labels import label_set
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.preprocess import PreprocessSpec, preprocess
from mien.recipe import Recipe
from mien.recipe_parts import DistillPart

Recipes = Callable[..., Recipe]


def write_teacher(
    path: Path, size: int, seed: int, classes: tuple[str, ...] = label_set("fer2013"), smooth: float = 0.0
) -> Path:
    torch.manual_seed(seed)
    spec = PreprocessSpec(size=(size, size), channels=1, mean=(0.5,), std=(0.25,), smooth=smooth)
    arguments = {"in_channels": 1, "depth": 1}
    model = create_model("dlib_resnet", num_classes=len(classes), **arguments)
    save_checkpoint(path, model.state_dict(), ModelInfo("dlib_resnet", arguments, classes, "fer2013", spec))
    return path


def test_the_loss_is_hintons():
    """Against soft cross-entropy: their difference is the teachers' entropy, so their gradients are equal."""
    torch.manual_seed(0)
    logits = torch.randn(5, 7, dtype=torch.float64, requires_grad=True)
    probs = torch.randn(5, 7).softmax(1)
    ours = torch.autograd.grad(distillation_loss(logits, probs, 4.0), logits)[0]
    theirs = torch.autograd.grad(16 * F.cross_entropy(logits / 4, probs.double()), logits)[0]
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-8)


def test_it_is_zero_where_student_and_teacher_agree():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert distillation_loss(logits, (logits / 3).softmax(1), 3.0).abs() < 1e-6
    assert distillation_loss(logits, (logits / 2).softmax(1), 3.0) > 1e-3


def test_teachers_are_averaged_each_in_its_own_size(tmp_path: Path, corpus: Corpus):
    paths = [str(write_teacher(tmp_path / f"{size}.safetensors", size, size)) for size in (40, 48)]
    images = torch.rand(6, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    probs = Teachers(DistillPart(teachers=paths, temperature=2.0), corpus).train()(images)
    expected = []
    for path in paths:
        network, info = load_checkpoint(path)
        expected.append((network(Normalize(info.preprocess)(images)) / 2).softmax(1))
    torch.testing.assert_close(probs, torch.stack(expected).mean(0), rtol=0, atol=1e-5)
    assert not probs.requires_grad


def test_an_exported_teacher_predicts_what_its_checkpoint_predicts(tmp_path: Path, corpus: Corpus):
    path = write_teacher(tmp_path / "t.safetensors", 40, 0)
    exported = export_onnx(path, tmp_path / "t.onnx").path
    images = torch.rand(20, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    probs = [Teachers(DistillPart(teachers=[str(teacher)]), corpus)(images) for teacher in (path, exported)]
    torch.testing.assert_close(probs[1], probs[0], rtol=0, atol=5e-3)  # bfloat16 where it is fast


def test_a_bundled_model_is_a_teacher(corpus: Corpus):
    network = Teachers(DistillPart(teachers=["sa_csp_ca-fer2013"]), corpus).networks[0]
    assert network.backend.info.arch == "sa_csp_ca"


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path, corpus: Corpus):
    path = write_teacher(tmp_path / "t.safetensors", 40, 0, label_set("ckplus"))
    with pytest.raises(RecipeError, match=r"does not have neutral \(it has the classes angry, contempt"):
        Teachers(DistillPart(teachers=[str(path)]), corpus)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Teachers(DistillPart(teachers=[str(tmp_path / "missing")]), corpus)


@pytest.mark.parametrize("name", ["rafdb", "ferplus"])
def test_teachers_classes_go_by_name(tmp_path: Path, corpus: Corpus, name: str):
    """In another order, or with a class that the student does not have: the others share its probability."""
    path = write_teacher(tmp_path / "t.safetensors", 40, 0, label_set(name))
    teachers = Teachers(DistillPart(teachers=[str(path)], temperature=1.0), corpus)
    images = torch.rand(6, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    network, info = load_checkpoint(path)
    probs = network(Normalize(info.preprocess)(images)).softmax(1)
    expected = torch.stack([probs[:, info.classes.index(each)] for each in corpus.classes], 1)
    torch.testing.assert_close(teachers(images), expected / expected.sum(1, keepdim=True))


def test_a_teacher_that_may_know_the_test_is_refused(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    random = {"name": "random_split", "test": 0.2, "val": 0.2}
    first = apply_protocol(corpus, random)
    train(tiny_recipe({"data.select": "val", "data.protocol": random}), first, tmp_path / "teacher")
    part = DistillPart(teachers=[str(tmp_path / "teacher")])
    Teachers(part, first)
    for other in (corpus, apply_protocol(corpus, random | {"seed": 1})):
        with pytest.raises(RecipeError, match="may have seen this run's test images"):
            Teachers(part, other)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_student_learns_from_its_teacher(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes, mixup: float):
    """With nothing but the teacher to learn from, the student's predictions come nearer to the teacher's."""
    teacher = str(write_teacher(tmp_path / "t.safetensors", 48, 0))
    changes = {"distill": {"teachers": [teacher], "weight": 1.0}, "augment.mixup": mixup, "train.ema_decay": 0}
    recipe = tiny_recipe(changes | {"optim.lr": 0.02, "augment.erase": 0})
    run = Run(recipe, corpus, tmp_path, create_fabric(recipe))
    losses = [run.fit(number)[0] for number in range(1, 7)]
    assert losses[-1] < 0.85 * losses[0]


def test_teachers_that_predict_once_see_every_image_unchanged(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    """For mixed images, the student gets the teacher's predictions mixed in the same shares."""
    teacher = str(write_teacher(tmp_path / "t.safetensors", 40, 0, smooth=0.5))
    part = {"teachers": [teacher], "weight": 1.0, "once": True}
    recipe = tiny_recipe({"distill": part, "augment.mixup": 0.4, "train.ema_decay": 0})
    run = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe))
    seen: list[torch.Tensor] = []
    run.teachers.networks[0].register_forward_hook(lambda module, arguments, out: seen.append(arguments[0]))
    run.start()
    network, info = load_checkpoint(teacher)
    inputs = torch.from_numpy(preprocess(list(corpus.read(corpus.where("train"))), info.preprocess))
    torch.testing.assert_close(torch.cat(seen), inputs)  # smoothed, as in evaluation: no augmentation has softened them
    torch.testing.assert_close(run.teacher_probs, (network(inputs) / 2).softmax(1), rtol=0, atol=5e-3)  # bfloat16 where fast
    run.teachers.register_forward_hook(lambda *_: pytest.fail("asked again"))
    run.teacher_probs = F.one_hot(run.loader.target, len(corpus.classes)).float()  # so they must come back as mixed labels
    passed: list[tuple[torch.Tensor, torch.Tensor]] = []
    run.unwrapped.register_forward_hook(lambda module, arguments, out: passed.append(arguments[1:]))
    run.fit(1)
    for target, teacher_probs in passed:
        torch.testing.assert_close(teacher_probs, target)
    assert any((teacher_probs.amax(1) < 0.999).any() for _, teacher_probs in passed)


def test_mirror_averages_the_image_and_its_mirror_image(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    """With two teachers: the mean of four predictions."""
    paths = [str(write_teacher(tmp_path / f"{size}.safetensors", size, size)) for size in (40, 48)]
    recipe = tiny_recipe({"distill": {"teachers": paths, "once": True, "mirror": True}})
    run = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe))
    seen: list[torch.Tensor] = []
    run.teachers.networks[1].register_forward_hook(lambda module, arguments, out: seen.append(arguments[0]))
    run.start()
    torch.testing.assert_close(seen[1], seen[0].flip(-1))
    assert not torch.equal(seen[1], seen[0])
    images, expected = corpus.read(corpus.where("train")), []
    for path in paths:
        network, info = load_checkpoint(path)
        for view in (images, images[:, :, ::-1]):
            expected.append((network(torch.from_numpy(preprocess(list(view), info.preprocess))) / 2).softmax(1))
    torch.testing.assert_close(run.teacher_probs, torch.stack(expected).mean(0), rtol=0, atol=5e-3)  # bfloat16 where fast
    with pytest.raises(RecipeError, match="mirror needs once"):
        tiny_recipe({"distill": {"teachers": paths, "mirror": True}})


def test_the_views_of_an_image_share_its_prediction(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    part = {"teachers": [str(write_teacher(tmp_path / "t.safetensors", 40, 0))], "once": True}
    probs = []
    for views in (1, 5):
        recipe = tiny_recipe({"distill": part, "augment.views": views})
        run = Run(recipe, corpus, tmp_path / str(views), create_fabric(recipe))
        run.start()
        probs.append(run.teacher_probs)
    torch.testing.assert_close(probs[1].reshape(96, 5, 7), probs[0][:, None].expand(-1, 5, -1))


@pytest.mark.parametrize("votes", [False, True])
def test_images_targets_and_predictions_are_mixed_in_the_same_shares(votes: bool):
    target = torch.arange(8) % 7
    known = F.one_hot(target, 7).float()
    x = torch.eye(8).reshape(8, 1, 1, 8)
    x, mixed, teacher_probs = Mixup(1.0, 7)(x.clone(), known if votes else target, 2 * known)
    torch.testing.assert_close(mixed, x.reshape(8, 8) @ known)
    torch.testing.assert_close(teacher_probs, 2 * mixed)
    assert not torch.equal(mixed, known)


def test_only_the_student_sees_degraded_images(tmp_path: Path, corpus: Corpus, tiny_recipe: Recipes):
    teacher = str(write_teacher(tmp_path / "t.safetensors", 40, 0))
    recipe = tiny_recipe({"distill": {"teachers": [teacher]}, "augment.noise": 0.5, "train.ema_decay": 0})
    run = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe))
    seen: dict[str, list[torch.Tensor]] = {"teacher": [], "student": []}
    run.teachers.normalizers[0].register_forward_hook(lambda module, arguments, x: seen["teacher"].append(x))
    run.normalize.register_forward_hook(lambda module, arguments, x: seen["student"].append(x))
    run.fit(1)
    mean, std = run.spec.mean[0], run.spec.std[0]
    for theirs, ours in zip(seen["teacher"], seen["student"], strict=True):
        assert (0.5 + 0.25 * theirs - (mean + std * ours)).std() > 0.1
