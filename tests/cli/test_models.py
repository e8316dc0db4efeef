import dataclasses
import json
import sys
from pathlib import Path

import onnx
import pytest
from typer.testing import CliRunner

from mien import cli, weights
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest


def run(*arguments: object, width: int = 140):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments], env={"COLUMNS": str(width)})


def test_info_shows_everything(tiny_onnx: Path) -> None:
    out = run("info", tiny_onnx).output
    for word in ("tiny", "3 happy", "crop_scale: 1.1", weights.sha256(tiny_onnx), "not stated", "fer2013/private_test"):
        assert word in out


def test_info_as_json(tiny_onnx: Path, tiny_info: ModelInfo) -> None:
    values = json.loads(run("info", tiny_onnx, "--json").output)
    assert values["bytes"] == tiny_onnx.stat().st_size
    assert values["classes"] == list(tiny_info.classes)


def test_info_reads_a_checkpoint_without_torch(tmp_path: Path, tiny_info: ModelInfo) -> None:
    header = json.dumps({"__metadata__": {METADATA_KEY: tiny_info.to_json(**{DIGEST_KEY: NO_DIGEST})}}).encode()
    path = tmp_path / "best.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    write_digest(path)
    assert json.loads(run("info", path, "--json").output)["arch"] == "tiny"
    path.write_bytes(path.read_bytes() + b"0")
    assert "digest does not match" in str(run("info", path).exception)


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 40, (2).to_bytes(8, "little") + b"[]"])
def test_a_damaged_checkpoint(
    tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.safetensors").write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["mien", "info", str(tmp_path / "bad.safetensors")])
    with pytest.raises(SystemExit, match="2"):
        cli.main()
    assert capsys.readouterr().err.count("\n") == 1


def test_models_lists_bundled_models_and_networks_with_their_cost(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "FOLDER", tiny_onnx.parent)
    results = {"private_test": {"accuracy": 0.5}, "public_test": {"accuracy": 0.4}}
    card = {"parameters": 1_900_000, "results": results, "selection": {"ckplus48": 0.6}, "crops_per_second": {"a": 9}}
    weights.card_path(tiny_onnx).write_text(json.dumps(card))
    out = run("models").output
    use = "fastest, best on FER2013, best on CK+48"
    for word in ("tiny", "1.9 M fp32", "50.00 %", "60.00 %", use, "MACs", "resemotenet", "80,238,599"):
        assert word in out


@pytest.mark.parametrize("width", [60, 80, 120])
def test_names_and_figures_are_whole_on_narrow_terminals(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without the networks to train
    lines = run("models", width=width).output.splitlines()
    assert max(map(len, lines)) <= width
    for name, path in weights.files().items():
        card = weights.read_card(path)
        (row,) = [number for number, line in enumerate(lines) if line.split()[:1] == [name]]
        share = card["results"].get("private_test", {}).get("accuracy")
        assert ("-" if share is None else f"{share:.2%}".replace("%", " %")) in lines[row].split(maxsplit=1)[1]
        assert (" default" in lines[row] + lines[row + 1]) == (name == weights.DEFAULT)


def test_info_shows_the_card_of_a_bundled_model() -> None:
    path = weights.bundled()[weights.DEFAULT]
    out = run("info", weights.DEFAULT).output
    for word in ("labels_equal_to_t", "ckplus48_padded", "selection", "measured"):
        assert word in out
    assert json.loads(run("info", weights.DEFAULT, "--json").output)["card"]["results"] == weights.read_card(path)["results"]
    assert f"# {weights.DEFAULT}\n" in run("info", weights.DEFAULT, "--card").output


def test_models_without_torch_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'mien[train]'" in run("models").output


def test_a_network_is_shown_row_by_row() -> None:
    """The rows of sa_csp_ca's Table 1, with the paper's own counts."""
    out = run("models", "sa_csp_ca", "--layers").output
    for count in ("88", "19", "1,260", "5,204", "12,864", "85,068", "430,884", "1,076,588", "262,144", "32,263", "1,906,382"):
        assert f" {count} " in out


def test_the_cost_of_one_network() -> None:
    assert "23,522,375" in run("models", "resnet50").output


def test_layers_need_a_name() -> None:
    assert "name it" in str(run("models", "--layers").exception)
    assert "did you mean 'sa_csp_ca'" in str(run("models", "sa_csp").exception)


def test_what_a_model_says_does_not_act_on_the_terminal(
    tmp_path: Path, tiny_info: ModelInfo, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = {"a\x1b[2J/x\u202e": {"accuracy": 0.5}}
    info = dataclasses.replace(tiny_info, arch="tiny\x1b[2J\x9b2J[b]", label_set="\x07own", results=results)
    model, path = onnx.load(tiny_onnx), tmp_path / "own" / "evil\x1b[2J[b].onnx"
    onnx.helper.set_model_props(model, {METADATA_KEY: info.to_json(), DIGEST_KEY: NO_DIGEST})
    path.parent.mkdir()
    onnx.save(model, path)
    write_digest(path)
    monkeypatch.setattr(weights, "FOLDER", path.parent)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)  # without the networks to train
    for arguments in (("models",), ("info", path), ("info", path, "--card"), ("info", path, "--json")):
        shown = run(*arguments).output
        assert all(line.isprintable() for line in shown.splitlines()), arguments
    assert json.loads(shown)["arch"] == info.arch
    assert "evil\\x1b[2J[b]" in run("models").output
