import json
import shutil
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mien import cli, weights
from mien.cli.doctor import report


@pytest.fixture
def bundle(tmp_path: Path, tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "bundle").mkdir()
    model = shutil.copy(tiny_onnx, tmp_path / "bundle" / f"{weights.DEFAULT}.onnx")
    weights.card_path(model).write_text(json.dumps({"sha256": weights.sha256(model)}))
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "bundle")
    return model


def test_a_whole_install(bundle: Path) -> None:
    result = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 0, result.output
    for word in ("onnxruntime", "CPUExecutionProvider", "GPU", "intact", "centerface loads and runs", "extra train"):
        assert word in result.output


def test_damaged_weights_are_found(bundle: Path) -> None:
    bundle.write_bytes(b"junk")
    result = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "200"})
    assert result.exit_code == 1
    assert "broken" in result.output
    assert "SHA-256" in result.output


def test_a_missing_extra_names_the_command(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ['no-such-thing>=1; extra == "train"'])
    (train,) = [finding for finding in report() if finding.subject == "extra train"]
    assert train.ok is None
    assert train.text == "missing no-such-thing; run: pip install 'mien[train]'"


def test_onnxruntime_for_a_gpu_is_onnxruntime(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def installed(name: str) -> str:
        if name == "onnxruntime":
            raise PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("importlib.metadata.version", installed)
    (found,) = [finding for finding in report() if finding.subject.startswith("onnxruntime")]
    assert found == ("onnxruntime-gpu", True, "1.0")


def test_sources_without_an_install_have_no_extras(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.requires", missing)
    (extras,) = [finding for finding in report() if finding.subject == "extras"]
    assert extras.ok is None
    assert "pip install ." in extras.text


def test_a_gpu_program_that_fails_is_no_error(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: "/bin/false")
    (gpu,) = [finding for finding in report() if finding.subject == "GPU"]
    assert gpu.ok is None
    assert "none found" in gpu.text


def test_paths_do_not_act_on_the_terminal(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/a\x1b[2J[b]/python")
    shown = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "200"}).output
    assert "/a\\x1b[2J[b]/python" in shown
    assert all(line.isprintable() for line in shown.splitlines())
