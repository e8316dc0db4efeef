import torch

from mien.models import create_model

IDENTITY = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]


def faces(shift: float = 0) -> torch.Tensor:
    """A bright spot at the upper left, the same at the lower right, 32 px; `shift` px further right."""
    at = torch.arange(32.0)
    spots = [
        (torch.exp(-((at[:, None] - y) ** 2) / 99), torch.exp(-((at - x - shift) ** 2) / 99)) for y, x in ((9, 6), (20, 23))
    ]
    return torch.stack([down * across for down, across in spots])[:, None]


def test_it_starts_as_resnet50():
    torch.manual_seed(0)
    model = create_model("stn_resnet50", in_channels=1).eval()
    plain = create_model("stn_resnet50", in_channels=1, attention=False).eval()
    plain.backbone.load_state_dict(model.backbone.state_dict())
    assert model.theta(faces()).tolist() == plain.theta(faces()).tolist() == [IDENTITY, IDENTITY]
    torch.testing.assert_close(model(faces()), plain(faces()), rtol=1e-3, atol=1e-4)
    assert set(model.attention_maps(faces())) == {"spatial_transformer"}
    assert plain.attention_maps(faces()) == {}


def test_a_shifted_input_changes_theta_after_training():
    torch.manual_seed(0)
    model = create_model("stn_resnet50", num_classes=2, in_channels=1)
    optimizer = torch.optim.Adam(model.transformer.parameters(), 0.001)
    x = torch.cat([faces(), faces(4)])
    for _ in range(2):
        loss = torch.nn.functional.cross_entropy(model(x), torch.tensor([0, 1, 0, 1]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    left, right = model.eval().theta(faces())
    assert (left - torch.tensor(IDENTITY)).abs().max() > 1e-5
    assert (left - right).abs().max() > 1e-6
    shifted = model.theta(faces(2))[0]
    assert (shifted - left).abs().max() > 1e-7


def test_parameters_are_resnet50s_and_the_localisations():
    with torch.device("meta"):
        model, plain = create_model("stn_resnet50"), create_model("stn_resnet50", attention=False)
    counts = [sum(p.numel() for p in m.parameters()) for m in (plain, model.transformer, model)]
    assert counts == [23_522_375, 118_086, 23_640_461]
    assert {p.shape[0] for p in model.transformer.localisation.parameters()} == {64}
