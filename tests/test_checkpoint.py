import errno
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mien.checkpoint import load_checkpoint, save_checkpoint
from mien.errors import CheckpointError, OutputError, UnknownNameError
from mien.model_info import ModelInfo
from mien.models import create_model


@pytest.fixture
def info(tiny_info: ModelInfo) -> ModelInfo:
    return replace(tiny_info, arch="sa_csp_ca", arguments={"groups": 2})


def test_weights_and_facts_come_back(tmp_path: Path, info: ModelInfo):
    model = create_model("sa_csp_ca", groups=2).eval()
    save_checkpoint(tmp_path / "a.safetensors", model.state_dict(), info)
    loaded, read = load_checkpoint(tmp_path / "a.safetensors")
    assert read == info
    assert not loaded.training
    x = torch.randn(1, 1, 40, 40)
    assert torch.equal(loaded(x), model(x))


def test_damaged_or_foreign_files_are_refused(tmp_path: Path, info: ModelInfo):
    model = create_model("sa_csp_ca")
    path = tmp_path / "a.safetensors"
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="has finished an epoch"):
        load_checkpoint(tmp_path)
    save_checkpoint(path, model.state_dict(), info)
    for size in (0, 5, 1000):
        (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:size])
        with pytest.raises(CheckpointError, match="damaged"):
            load_checkpoint(tmp_path / "cut.safetensors")
    save_checkpoint(path, {"x": torch.zeros(1)}, info)
    with pytest.raises(CheckpointError, match="do not fit sa_csp_ca"):
        load_checkpoint(path)
    save_checkpoint(path, model.state_dict(), replace(info, arch="sa_csp"))
    with pytest.raises(UnknownNameError, match="did you mean 'sa_csp_ca'"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, info: ModelInfo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mien.model_info.FORMAT", 99)
    save_checkpoint(tmp_path / "a.safetensors", create_model("sa_csp_ca").state_dict(), info)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path: Path, info: ModelInfo, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, {"x": torch.zeros(1)}, info)
    before = path.read_bytes()

    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        save_checkpoint(path, {"x": torch.ones(1)}, info)
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert list(tmp_path.glob("*.safetensors")) == [path]
    assert list(tmp_path.glob(".*")) == []
