"""Starts from files of the real formats, with made-up numbers in them."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.models.vgg import cfgs, make_layers

from mien.checkpoint import save_checkpoint
from mien.datasets import Corpus, load_corpus
from mien.engine.devices import create_fabric
from mien.engine.loss import create_objective
from mien.engine.optim import create_optimizer
from mien.engine.train import Run
from mien.errors import CheckpointError, InputError, RecipeError
from mien.model_info import ModelInfo
from mien.models import Model, create_model, names
from mien.recipe import load_recipe
from mien.transfer import imagenet_file, imagenet_url, start_from
from mien.weights import sha256

pytestmark = pytest.mark.filterwarnings("ignore:for .* copying from a non-meta parameter:UserWarning")


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ResNet-50's weights as torchvision publishes them."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "resnet50.pth"
    torch.save(torchvision.models.resnet50().state_dict(), path)
    return path


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG-16's convolutions as torchvision publishes them; its linear layers cut down, for they are not read."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    convolutions = {f"features.{k}": v for k, v in make_layers(cfgs["D"]).state_dict().items()}
    torch.save(convolutions | {"classifier.0.weight": torch.zeros(4, 4), "classifier.6.bias": torch.zeros(1000)}, path)
    return path


def without_memory(name: str, **arguments: object) -> Model:
    """Return a network on the meta device, for tests that look at names and shapes only."""
    with torch.device("meta"):
        return create_model(name, **arguments)


@pytest.mark.parametrize("name", ["resnet50", "resnet50_se", "resnet50_cbam", "stn_resnet50"])
def test_resnets_take_all_but_the_head(resnet: Path, name: str):
    report = start_from(without_memory(name), resnet)
    assert len(report.loaded) == 318
    assert report.unused == ["fc.weight", "fc.bias"]
    assert {"backbone.fc.weight", "backbone.fc.bias"} <= set(report.fresh)


def test_resnet50_computes_what_torchvisions_does(resnet: Path):
    model = create_model("resnet50", num_classes=1000).eval()
    assert start_from(model, resnet).fresh == []
    theirs = torchvision.models.resnet50().eval()
    theirs.load_state_dict(torch.load(resnet, weights_only=True))
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(model(x), theirs(x))


@pytest.mark.parametrize(("placement", "name"), [("inside", "layer3.2"), ("after", "layer3.2.0")])
def test_the_bottlenecks_of_cbam_erf_find_theirs(resnet: Path, placement: str, name: str):
    model = create_model("resnet50_cbam_erf", placement=placement)
    report = start_from(model, resnet)
    source = torch.load(resnet, weights_only=True)
    assert torch.equal(model.state_dict()[f"backbone.{name}.conv2.weight"], source["layer3.2.conv2.weight"])
    assert len([name for name in report.loaded if name.endswith("conv2.weight")]) == 16
    assert "backbone.conv1.weight" in report.fresh  # another stem


@pytest.mark.parametrize("name", ["vgg16", "vgg16_gcca", "vggface"])
def test_vggs_take_the_convolutions(vgg: Path, name: str):
    report = start_from(without_memory(name), vgg)
    assert len(report.loaded) == 26
    assert sorted(report.unused) == ["classifier.0.weight", "classifier.6.bias"]


@pytest.mark.parametrize("name", ["resnet50", "vgg16"])
def test_a_grey_network_sees_what_the_colour_one_sees_in_a_grey_image(resnet: Path, vgg: Path, name: str):
    """The activations of the first convolution are those of the grey image repeated three times."""
    file = resnet if name == "resnet50" else vgg
    grey = create_model(name, in_channels=1)
    report = start_from(grey, file)
    (first,) = report.adapted
    convolution = grey.get_submodule(first.removesuffix(".weight"))
    colour = torch.load(file, weights_only=True)[grey.published_name(first)]
    x = torch.randn(2, 1, 20, 20)
    like = F.conv2d(x.expand(-1, 3, -1, -1), colour, convolution.bias, convolution.stride, convolution.padding)
    torch.testing.assert_close(convolution(x), like, rtol=1e-4, atol=1e-4)
    assert "summed from RGB to grey" in str(report)


def test_vggface_takes_the_published_face_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The published file names conv1_1 to conv5_3, fc6 to fc8; here with a hidden layer of 32 instead of 4,096."""
    torch.manual_seed(0)
    full = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **arguments: full(name, mlp_ratio=1 / 128, **arguments))
    model = create_model("vggface", num_classes=20)
    convolutions = iter(make_layers(cfgs["D"]).state_dict().values())
    file = {}
    for block, count in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(1, count + 1):
            file[f"conv{block}_{i}.weight"], file[f"conv{block}_{i}.bias"] = next(convolutions), next(convolutions)
    file["fc7.weight"] = torch.randn(4096, 32)
    file["fc8.weight"], file["fc8.bias"] = torch.randn(20, 4096), torch.randn(20)
    torch.save(file, tmp_path / "vggface.pth")
    report = start_from(model, tmp_path / "vggface.pth")
    assert len(report.loaded) == len(file)
    assert report.unused == []
    state = model.state_dict()
    assert torch.equal(state["backbone.features.28.weight"], file["conv5_3.weight"])
    assert torch.equal(state["backbone.pre_logits.fc2.weight"].flatten(1), file["fc7.weight"])


def test_any_checkpoint_is_a_start_with_another_number_of_classes(tmp_path: Path, tiny_info: ModelInfo):
    first = create_model("sa_csp_ca")
    save_checkpoint(tmp_path / "a.safetensors", first.state_dict(), tiny_info)
    for classes in (2, 10):
        model = create_model("sa_csp_ca", num_classes=classes)
        report = start_from(model, tmp_path / "a.safetensors")
        assert report.fresh == ["classifier.weight", "classifier.bias"]
        assert torch.equal(model.state_dict()["blocks.5.fuse.weight"], first.state_dict()["blocks.5.fuse.weight"])
        assert model(torch.zeros(1, 1, 40, 40)).shape == (1, classes)


@pytest.mark.parametrize("name", ["sa_csp_ca", "dlib_resnet", "resnet50", "timm/resnet18"])
def test_rows_of_the_classifier_go_by_class(tmp_path: Path, tiny_info: ModelInfo, name: str):
    """A folder's classes are in alphabetical order, those of FER2013 are not."""
    spelt = replace(tiny_info, classes=("Anger", *tiny_info.classes[1:]))
    with torch.no_grad():
        first, second = create_model(name), create_model(name, num_classes=4)
        save_checkpoint(tmp_path / "a.safetensors", first.state_dict(), spelt)
        before = {key: second.get_parameter(key).clone() for key in second.classifier_names()}
        report = start_from(second, tmp_path / "a.safetensors", ("angry", "contempt", "sad", "surprise"))
        for key in first.classifier_names():
            old, new = first.get_parameter(key), second.get_parameter(key)
            assert torch.equal(new[[0, 2, 3]], old[[0, 4, 5]])
            assert torch.equal(new[1], before[key][1])
    assert (len(before), report.fresh, report.adapted) == (2, [], [])
    said = "classifier by class: angry, sad, surprise from the file; contempt new; disgust, fear, happy, neutral unused"
    assert str(report).endswith(said)


def test_a_permuted_classifier_answers_the_same_by_name(tmp_path: Path, tiny_info: ModelInfo):
    first, classes = create_model("dlib_resnet", depth=1).eval(), tuple(sorted(tiny_info.classes))
    save_checkpoint(tmp_path / "a.safetensors", first.state_dict(), tiny_info)
    second = create_model("dlib_resnet", depth=1).eval()
    assert "new" not in str(start_from(second, tmp_path / "a.safetensors", classes))
    x = torch.rand(2, 3, 40, 40)
    order = [tiny_info.classes.index(name) for name in classes]
    torch.testing.assert_close(second(x), first(x)[:, order])
    assert start_from(second, tmp_path / "a.safetensors", tiny_info.classes).classes == ""
    torch.testing.assert_close(second(x), first(x))


def test_a_classifier_of_unnamed_classes_is_not_loaded(tmp_path: Path):
    first, second = create_model("dlib_resnet", depth=1), create_model("dlib_resnet", depth=1)
    torch.save(first.state_dict(), tmp_path / "a.pth")
    report = start_from(second, tmp_path / "a.pth", tuple("abcdefg"))
    assert report.fresh == ["classifier.weight", "classifier.bias"]
    assert "the file does not name its classes" in str(report)


def test_files_that_do_not_fit_are_refused(tmp_path: Path):
    model = create_model("sa_csp_ca")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(CheckpointError, match="no such file"):
        start_from(model, tmp_path / "none.pth")
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    (tmp_path / "bad.safetensors").write_bytes(b"no weights")
    for name in ("bad.pth", "bad.safetensors"):
        with pytest.raises(CheckpointError, match="not a file of weights"):
            start_from(model, tmp_path / name)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="is not a state dict"):
        start_from(model, tmp_path / "list.pth")
    save_file({"other.weight": torch.zeros(3, 3)}, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="none of its 1 weights fits"):
        start_from(model, tmp_path / "other.safetensors")
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_a_file_that_runs_code_is_refused(tmp_path: Path):
    torch.save(create_model, tmp_path / "code.pth")
    with pytest.raises(CheckpointError, match="code"):
        start_from(create_model("sa_csp_ca"), tmp_path / "code.pth")


def test_imagenet_offline_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    with pytest.raises(
        CheckpointError, match=r"resnet50-0676ba61\.pth is missing; download https://.* and put it at .*weights"
    ):
        imagenet_file(without_memory("resnet50"))


def test_imagenet_without_a_network_names_the_file(monkeypatch: pytest.MonkeyPatch):
    def refuse(*arguments: object, **named: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.download_url_to_file", refuse)
    with pytest.raises(CheckpointError, match=r"vgg16-397923af\.pth cannot be downloaded \(no network\); download https://"):
        imagenet_file(without_memory("vgg16"))


def test_imagenet_is_taken_from_the_offline_folder_and_its_hash_is_checked(
    tmp_path: Path, resnet: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("MIEN_OFFLINE", "1")
    folder = tmp_path / "cache" / "weights"
    folder.mkdir(parents=True)
    shutil.copy(resnet, folder / "resnet50-0676ba61.pth")
    with pytest.raises(CheckpointError, match="its hash does not begin with 0676ba61"):
        start_from(without_memory("resnet50"), "imagenet")
    name = f"resnet50-{sha256(resnet)[:8]}.pth"
    shutil.copy(resnet, folder / name)
    monkeypatch.setattr("mien.transfer.imagenet_url", lambda model: f"https://invalid/{name}")
    assert len(start_from(without_memory("stn_resnet50"), "imagenet").loaded) == 318


def test_every_network_has_imagenet_weights_or_says_so():
    for name in names():
        with torch.device("meta"):
            model = create_model(name)
        if model.imagenet is None:
            with pytest.raises(InputError, match="start from a file"):
                imagenet_url(model)
        else:
            assert imagenet_url(model).endswith(".pth")


@pytest.fixture
def corpus(fer2013_csv: Path) -> Corpus:
    return load_corpus("fer2013", fer2013_csv)


def test_a_recipe_starts_and_freezes(tmp_path: Path, corpus: Corpus, tiny_info: ModelInfo):
    torch.manual_seed(5)
    first = create_model("sa_csp_ca")
    save_checkpoint(tmp_path / "a.safetensors", first.state_dict(), tiny_info)
    changes = {"model.start": str(tmp_path / "a.safetensors"), "model.frozen": ["stem", "blocks.0"]}
    recipe = load_recipe("sa_csp_ca/fer2013", changes | {"train.batch_size": 32, "train.compile": False})
    run = Run(recipe, corpus, tmp_path / "run", create_fabric(recipe))
    assert run.transfer is not None
    assert run.transfer.fresh == []
    run.fit(1)
    before, after = first.state_dict(), run.unwrapped.model.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not [name for name in moved if name.startswith(("stem.", "blocks.0."))]  # statistics of batch norm included
    assert {name.split(".")[0] for name in moved} >= {"blocks", "classifier", "channel_attention"}


def test_a_frozen_module_must_exist():
    recipe = load_recipe("sa_csp_ca/fer2013", {"model.frozen": ["bloks"]})
    with pytest.raises(RecipeError, match="did you mean 'blocks'"):
        create_objective(recipe, create_model("sa_csp_ca"))


@pytest.mark.parametrize("name", ["sa_csp_ca", "resnet50"])
def test_layer_decay_slows_the_first_layers_most(name: str):
    recipe = load_recipe("sa_csp_ca/fer2013", {"optim.layer_decay": 0.5, "optim.lr": 0.1})
    objective = create_objective(recipe, without_memory(name))
    rates = {}
    for group in create_optimizer(recipe, objective.model, objective.loss).param_groups:
        rates |= {id(p): group["lr"] for p in group["params"]}
    parameters = dict(objective.model.named_parameters())
    assert set(rates) == {id(p) for p in parameters.values()}
    first, *_, last = parameters.values()
    assert rates[id(first)] < rates[id(last)] == pytest.approx(0.1)


@pytest.mark.parametrize("name", ["stn_resnet50", "vgg16_gcca"])
def test_layer_decay_needs_layers_one_upon_the_other(name: str):
    recipe = load_recipe("sa_csp_ca/fer2013", {"optim.layer_decay": 0.5})
    with torch.device("meta"):
        objective = create_objective(recipe, create_model(name))
    with pytest.raises(RecipeError, match=r"optim\.layer_decay: .* is not a simple sequence of layers"):
        create_optimizer(recipe, objective.model, objective.loss)
