from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from mien.checkpoint import load_checkpoint, read_info, save_checkpoint, save_state
from mien.engine.torch_backend import TorchBackend
from mien.errors import CheckpointError, OutputError
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
        with pytest.raises(CheckpointError, match="corrupt"):
            load_checkpoint(tmp_path / "cut.safetensors")
    save_checkpoint(path, {"x": torch.zeros(1)}, info)
    with pytest.raises(CheckpointError, match="do not fit sa_csp_ca"):
        load_checkpoint(path)
    save_checkpoint(path, model.state_dict(), replace(info, arch="sa_csp"))
    with pytest.raises(CheckpointError, match="did you mean 'sa_csp_ca'"):
        load_checkpoint(path)


def test_a_checkpoint_of_another_version_is_refused(tmp_path: Path, info: ModelInfo, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("mien.model_info.FORMAT", 99)
    save_checkpoint(tmp_path / "a.safetensors", create_model("sa_csp_ca").state_dict(), info)
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="format 99"):
        load_checkpoint(tmp_path / "a.safetensors")


@contextmanager
def full_disk(after: int) -> Iterator[None]:
    """Let writes fail after so many bytes of a file."""
    resource = pytest.importorskip("resource", reason="Windows has no limit on the size of a file")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (after, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("after", [0, 100_000])
@pytest.mark.parametrize("what", ["weights", "state"])
def test_a_full_disk_leaves_the_old_file(tmp_path: Path, info: ModelInfo, what: str, after: int):
    path = tmp_path / "a.file"

    def save(value: int) -> None:
        tensors = {str(i): torch.full((10_000,), value) for i in range(10)}
        save_checkpoint(path, tensors, info) if what == "weights" else save_state(path, tensors)

    save(1)
    before = path.read_bytes()
    with full_disk(after), pytest.raises(OutputError, match=r"a\.file: cannot be written \(.*File too large"):
        save(2)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_tensor_of_two_names_is_written_twice(tmp_path: Path, info: ModelInfo):
    rows = torch.arange(6.0).reshape(2, 3)
    save_checkpoint(tmp_path / "a.safetensors", {"a": rows, "b": rows, "c": rows.T, "d": rows[1]}, info)
    read = load_file(tmp_path / "a.safetensors")
    assert {name: value.tolist() for name, value in read.items()} == {
        "a": rows.tolist(), "b": rows.tolist(), "c": rows.T.tolist(), "d": rows[1].tolist()
    }  # fmt: skip


def test_a_state_comes_back(tmp_path: Path):
    state = {"optimizer": {"lr": 0.1, "moments": [torch.ones(3)]}, "history": [1, None]}
    save_state(tmp_path / "last.ckpt", state)
    read = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert str(read) == str(state)
    with pytest.raises(RuntimeError, match="bug"):
        save_state(tmp_path / "last.ckpt", {"x": Unsaved()})
    assert torch.load(tmp_path / "last.ckpt", weights_only=True).keys() == state.keys()


class Unsaved:
    """What cannot be saved, and not because of the disk."""

    def __reduce__(self) -> str:
        raise RuntimeError("bug")


def test_damage_to_a_checkpoint_is_noticed(tmp_path: Path, info: ModelInfo):
    """One bit of a weight gave other answers without a word."""
    path = tmp_path / "a.safetensors"
    save_checkpoint(path, create_model("sa_csp_ca", groups=2).state_dict(), info)
    whole = path.read_bytes()
    header = int.from_bytes(whole[:8], "little") + 8
    for position in (20, header - 1, header + 1, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        for read in (load_checkpoint, read_info):
            with pytest.raises(CheckpointError, match=r"a\.safetensors: is corrupt or was changed"):
                read(path)
    path.write_bytes(whole.replace(b"mien_digest", b"mien_digesT"))
    with pytest.raises(CheckpointError, match="digest was removed"):
        load_checkpoint(path)


def test_the_same_weights_give_the_same_bytes(tmp_path: Path, info: ModelInfo):
    for name in "ab":
        save_checkpoint(tmp_path / name, {"x": torch.ones(3), "y": torch.zeros(2)}, info)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_weights_that_give_no_finite_answer_are_refused(tmp_path: Path, info: ModelInfo):
    model = create_model("sa_csp_ca", groups=2)
    with torch.no_grad():
        next(model.parameters()).fill_(torch.nan)
    save_checkpoint(tmp_path / "a.safetensors", model.state_dict(), info)
    with pytest.raises(CheckpointError, match=r"a\.safetensors: returned logits that are not finite"):
        TorchBackend(tmp_path / "a.safetensors", "cpu").logits(np.zeros((1, 1, 40, 40), np.float32))


@pytest.mark.parametrize("content", [b"", b"12345678", b"\xff" * 40])
def test_the_facts_of_a_damaged_checkpoint(tmp_path: Path, content: bytes):
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="is not a safetensors file"):
        read_info(tmp_path / "a.safetensors")


@pytest.mark.parametrize("arguments", [{"groups": 0}, {"groups": "x"}, {"groups": -1}, {"num_classes": 3}])
def test_arguments_that_make_no_network(tmp_path: Path, info: ModelInfo, arguments: dict):
    save_checkpoint(tmp_path / "a.safetensors", {"x": torch.ones(1)}, replace(info, arguments=arguments))
    with pytest.raises(CheckpointError, match=r"a\.safetensors: "):
        load_checkpoint(tmp_path / "a.safetensors")
