from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from mien.augment import Finish
from mien.checkpoint import load_checkpoint, save_checkpoint
from mien.datasets import Corpus, apply_protocol, load_corpus
from mien.engine import train
from mien.engine.devices import default_fabric
from mien.engine.export import export_onnx
from mien.engine.mixing import create_mixup, mix
from mien.engine.teacher import Teachers, distillation_loss
from mien.engine.train import Run
from mien.errors import CheckpointError, RecipeError
from mien.labels import label_set
from mien.model_info import ModelInfo
from mien.models import create_model
from mien.preprocess import PreprocessSpec, preprocess
from mien.recipe import DistillPart, load_recipe

TINY = {"train.epochs": 1, "train.batch_size": 16, "train.compile": False, "optim.warmup_epochs": 0}


def write_teacher(
    path: Path, size: int, seed: int, classes: tuple[str, ...] = label_set("fer2013"), smooth: float = 0.0
) -> Path:
    torch.manual_seed(seed)
    spec = PreprocessSpec(size=(size, size), channels=1, mean=(0.5,), std=(0.25,), smooth=smooth)
    model = create_model("sa_csp_ca", num_classes=len(classes))
    save_checkpoint(path, model.state_dict(), ModelInfo("sa_csp_ca", {}, classes, "fer2013", spec))
    return path


@pytest.fixture
def corpus(fer2013_csv: Path) -> Corpus:
    return load_corpus("fer2013", fer2013_csv)


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
    said = Teachers(DistillPart(teachers=paths, temperature=2.0), corpus).train()(images)
    expected = []
    for path in paths:
        network, info = load_checkpoint(path)
        expected.append((network(Finish(info.preprocess)(images)) / 2).softmax(1))
    torch.testing.assert_close(said, torch.stack(expected).mean(0), rtol=0, atol=1e-5)
    assert not said.requires_grad


def test_an_exported_teacher_says_what_its_checkpoint_says(tmp_path: Path, corpus: Corpus):
    path = write_teacher(tmp_path / "t.safetensors", 40, 0)
    exported = export_onnx(path, tmp_path / "t.onnx").path
    images = torch.rand(20, 1, 48, 48, generator=torch.Generator().manual_seed(1))
    said = [Teachers(DistillPart(teachers=[str(teacher)]), corpus)(images) for teacher in (path, exported)]
    torch.testing.assert_close(said[1], said[0], rtol=0, atol=5e-3)  # bfloat16 where it is fast


def test_a_bundled_model_is_a_teacher(corpus: Corpus):
    network = Teachers(DistillPart(teachers=["sa_csp_ca-fer2013"]), corpus).networks[0]
    assert network.backend.info.arch == "sa_csp_ca"


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path, corpus: Corpus):
    path = write_teacher(tmp_path / "t.safetensors", 40, 0, label_set("rafdb"))
    with pytest.raises(RecipeError, match="tells apart surprise, fear"):
        Teachers(DistillPart(teachers=[str(path)]), corpus)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        Teachers(DistillPart(teachers=[str(tmp_path / "missing")]), corpus)


def test_a_teacher_that_may_know_the_test_is_refused(tmp_path: Path, corpus: Corpus):
    random = {"name": "random_split", "test": 0.2, "val": 0.2}
    changes = TINY | {"data.select": "val", "data.protocol": random}
    first = apply_protocol(corpus, random)
    train(load_recipe("sa_csp_ca/fer2013", changes), first, tmp_path / "teacher")
    part = DistillPart(teachers=[str(tmp_path / "teacher")])
    Teachers(part, first)
    for other in (corpus, apply_protocol(corpus, random | {"seed": 1})):
        with pytest.raises(RecipeError, match="may know this run's test images"):
            Teachers(part, other)


@pytest.mark.parametrize("mixup", [0.0, 0.4])
def test_a_student_learns_from_its_teacher(tmp_path: Path, corpus: Corpus, mixup: float):
    """With nothing but the teacher to learn from, the student's predictions come nearer to the teacher's."""
    teacher = str(write_teacher(tmp_path / "t.safetensors", 48, 0))
    changes = TINY | {"distill": {"teachers": [teacher], "weight": 1.0}, "augment.mixup": mixup, "train.ema_decay": 0}
    recipe = load_recipe("sa_csp_ca/fer2013", changes | {"train.epochs": 6, "optim.lr": 0.02, "augment.erase": 0})
    rows = train(recipe, corpus, tmp_path / "run").epochs
    assert rows[-1].train_loss < 0.85 * rows[0].train_loss
    assert load_checkpoint(tmp_path / "run")[1].recipe["distill"]["teachers"] == [teacher]


def test_teachers_asked_once_see_every_image_unchanged(tmp_path: Path, corpus: Corpus):
    """The student is told, of images mixed in some share, the same share of what its teacher says of each."""
    teacher = str(write_teacher(tmp_path / "t.safetensors", 40, 0, smooth=0.5))
    part = {"teachers": [teacher], "weight": 1.0, "once": True}
    changes = TINY | {"distill": part, "augment.mixup": 0.4, "train.ema_decay": 0}
    recipe = load_recipe("sa_csp_ca/fer2013", changes)
    run = Run(recipe, corpus, tmp_path / "run", default_fabric(recipe))
    seen: list[torch.Tensor] = []
    run.teachers.networks[0].register_forward_hook(lambda module, arguments, out: seen.append(arguments[0]))
    run.begin()
    network, info = load_checkpoint(teacher)
    inputs = torch.from_numpy(preprocess(list(corpus.read(corpus.where("train"))), info.preprocess))
    torch.testing.assert_close(torch.cat(seen), inputs)  # smoothed, as in evaluation: no augmentation has softened them
    torch.testing.assert_close(run.said, (network(inputs) / 2).softmax(1), rtol=0, atol=5e-3)  # bfloat16 where it is fast
    run.teachers.register_forward_hook(lambda *_: pytest.fail("asked again"))
    run.said = F.one_hot(run.feed.target, len(corpus.classes)).float()  # so what a student is told must be its mixed label
    told: list[tuple[torch.Tensor, torch.Tensor]] = []
    run.plain.register_forward_hook(lambda module, arguments, out: told.append(arguments[1:]))
    run.fit(1)
    for wanted, taught in told:
        torch.testing.assert_close(taught, wanted)
    assert any((taught.amax(1) < 0.999).any() for _, taught in told)


@pytest.mark.parametrize("votes", [False, True])
def test_images_targets_and_answers_are_mixed_in_the_same_shares(votes: bool):
    recipe = load_recipe("sa_csp_ca/fer2013", {"augment.mixup": 1.0, "train.batch_size": 8})
    mixup = create_mixup(recipe, 7, 1)
    target = torch.arange(8) % 7
    known = F.one_hot(target, 7).float()
    x, wanted, taught = mix(mixup, torch.eye(8).reshape(8, 1, 1, 8).clone(), known if votes else target, 2 * known)
    torch.testing.assert_close(wanted, x.reshape(8, 8) @ known)
    torch.testing.assert_close(taught, 2 * wanted)
    assert not torch.equal(wanted, known)


def test_only_the_student_sees_the_damage(tmp_path: Path, corpus: Corpus):
    teacher = str(write_teacher(tmp_path / "t.safetensors", 40, 0))
    changes = TINY | {"distill": {"teachers": [teacher]}, "augment.noise": 0.5, "train.ema_decay": 0}
    recipe = load_recipe("sa_csp_ca/fer2013", changes)
    run = Run(recipe, corpus, tmp_path / "run", default_fabric(recipe))
    seen: dict[str, list[torch.Tensor]] = {"teacher": [], "student": []}
    run.teachers.finishes[0].register_forward_hook(lambda module, arguments, x: seen["teacher"].append(x))
    run.finish.register_forward_hook(lambda module, arguments, x: seen["student"].append(x))
    run.fit(1)
    means, deviations = run.spec.mean[0], run.spec.std[0]
    for theirs, ours in zip(seen["teacher"], seen["student"], strict=True):
        assert (0.5 + 0.25 * theirs - (means + deviations * ours)).std() > 0.1
