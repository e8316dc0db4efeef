import pytest
import torch

from mien.errors import MienError, UnknownNameError
from mien.models import create_model, names


def build(name: str, **arguments):
    with torch.device("meta"):
        return create_model(name, **arguments).eval()


def meta(*shape: int) -> torch.Tensor:
    return torch.zeros(*shape, device="meta")


def test_any_convolutional_network():
    model = build("timm/resnet18", in_channels=1, num_classes=5, input_size=(48, 40))
    assert (model.in_channels, model.num_classes, model.input_size, model.minimum_size) == (1, 5, (48, 40), 32)
    features = model.forward_features(meta(2, 1, 48, 40))
    assert features.shape == (2, 512, 2, 2)
    assert model.forward_head(features).shape == model(meta(2, 1, 48, 40)).shape == (2, 5)
    assert model.cam_layer is model.backbone.layer4
    assert model.attention_maps(meta(2, 1, 48, 40)) == {}
    model.reset_classifier(3)
    assert model(meta(2, 1, 64, 64)).shape == (2, 3)


def test_its_size_is_timms_unless_told():
    assert build("timm/efficientnet_b1").input_size == (240, 240)


def test_a_transformer_is_made_for_its_size_and_takes_no_other():
    model = build("timm/vit_tiny_patch16_224", input_size=(64, 48))
    assert model(meta(2, 3, 64, 48)).shape == (2, 7)
    assert "backbone.pos_embed" in model.no_weight_decay()
    with pytest.raises(MienError, match="takes images of 64x48 px only, got 64x64; resize them"):
        model(meta(2, 3, 64, 64))


def test_wrong_images_are_refused():
    model = build("timm/resnet18")
    with pytest.raises(MienError, match=r"takes images of shape \(N, 3, H, W\), got \(2, 1, 64, 64\)"):
        model(meta(2, 1, 64, 64))
    with pytest.raises(MienError, match="16x16 px are too small for this network; resize to 32x32 or more"):
        model(meta(2, 3, 16, 16))


def test_an_unknown_name_lists_the_nearest_and_not_all():
    with pytest.raises(UnknownNameError, match=r"unknown model 'timm/resnet5O'; did you mean 'timm/resnet5.*or") as caught:
        create_model("timm/resnet5O")
    assert len(str(caught.value)) < 200
    with pytest.raises(UnknownNameError, match=r"unknown model 'timm/'; timm.list_models\(\) lists them all"):
        create_model("timm/")


@pytest.mark.parametrize("arguments", [{"no_such_argument": 1}, {"input_size": (48,)}])
def test_wrong_arguments_are_refused(arguments: dict):
    with pytest.raises(MienError, match="cannot build 'timm/resnet18'"):
        build("timm/resnet18", **arguments)


def test_fewer_than_two_classes_are_refused():
    with pytest.raises(MienError, match="at least 2 classes"):
        build("timm/resnet18", num_classes=1)


def test_they_are_not_among_our_names():
    assert not any(name.startswith("timm/") for name in names())
