"""What every registered network must do."""

import pytest
import torch

from mien.errors import MienError, UnknownNameError
from mien.models import create_model, names


@pytest.fixture(params=names())
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_forward_is_features_then_head(name: str):
    model = create_model(name, num_classes=5).eval()
    x = torch.randn(2, model.in_channels, *model.input_size)
    features = model.forward_features(x)
    assert features.ndim == 4
    torch.testing.assert_close(model(x), model.forward_head(features))
    assert model(x).shape == (2, model.num_classes) == (2, 5)


def test_batched_equals_single(name: str):
    torch.manual_seed(0)
    model = create_model(name).eval()
    x = torch.randn(3, model.in_channels, *model.input_size)
    torch.testing.assert_close(model(x), torch.cat([model(part) for part in x.split(1)]), rtol=1e-4, atol=1e-5)


def test_every_parameter_gets_a_gradient(name: str):
    torch.manual_seed(0)
    model = create_model(name)
    model(torch.randn(4, model.in_channels, *model.input_size)).square().sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None] == []


def test_bfloat16_autocast(name: str):
    model = create_model(name).eval()
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert torch.isfinite(model(torch.randn(2, model.in_channels, *model.input_size))).all()


@pytest.mark.parametrize("classes", [0, 1, -1])
def test_fewer_than_two_classes_are_refused(name: str, classes: int):
    with pytest.raises(MienError, match="at least 2 classes"):
        create_model(name, num_classes=classes)


def test_an_unknown_argument_is_refused(name: str):
    with pytest.raises(MienError, match="no_such_argument"):
        create_model(name, no_such_argument=1)


def test_an_unknown_name_lists_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'sa_csp_ca'"):
        create_model("sa_csp")
