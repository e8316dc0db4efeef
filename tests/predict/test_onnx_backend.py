import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from mien.errors import CheckpointError, InputError
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest
from mien.onnx_session import default_providers
from mien.predict.onnx_backend import CHUNK, OnnxBackend


def rewritten(path: Path, **metadata: str) -> Path:
    """Return the file with other metadata and a digest that fits it."""
    model = onnx.load(path)
    onnx.helper.set_model_props(model, {**metadata, DIGEST_KEY: NO_DIGEST})
    onnx.save(model, path)
    write_digest(path)
    return path


def test_says_what_it_is(tiny_onnx: Path, tiny_info: ModelInfo) -> None:
    backend = OnnxBackend(tiny_onnx)
    assert backend.info == tiny_info
    assert "CPUExecutionProvider" in backend.providers
    assert default_providers()[-1] == "CPUExecutionProvider"


def test_batched_equals_single(tiny_onnx: Path) -> None:
    backend = OnnxBackend(tiny_onnx, threads=1)
    batch = np.random.default_rng(1).normal(size=(9, 1, 40, 40)).astype(np.float32)
    logits = backend.logits(batch)
    assert logits.shape == (9, 7)
    assert logits.dtype == np.float32
    single = np.concatenate([backend.logits(batch[i : i + 1]) for i in range(9)])
    np.testing.assert_allclose(single, logits, atol=1e-5)


def test_an_empty_batch_gives_no_logits(tiny_onnx: Path) -> None:
    assert OnnxBackend(tiny_onnx).logits(np.empty((0, 1, 40, 40), np.float32)).shape == (0, 7)


@pytest.mark.parametrize(
    "batch",
    [
        np.zeros((1, 3, 40, 40), np.float32),
        np.zeros((1, 1, 48, 48), np.float32),
        np.zeros((1, 40, 40), np.float32),
        np.zeros((1, 1, 40, 40)),
    ],
)
def test_refuses_another_shape_or_type(tiny_onnx: Path, batch: np.ndarray) -> None:
    with pytest.raises(InputError, match=r"takes float32 of shape \(N, 1, 40, 40\), got"):
        OnnxBackend(tiny_onnx).logits(batch)


@pytest.mark.parametrize("content", [b"", b"no network at all", None])
def test_a_damaged_file(tiny_onnx: Path, content: bytes | None) -> None:
    whole = tiny_onnx.read_bytes()
    tiny_onnx.write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(CheckpointError, match=r"tiny\.onnx: "):
        OnnxBackend(tiny_onnx)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such model file"):
        OnnxBackend(tmp_path / "none.onnx")


def test_a_network_of_someone_else(tiny_onnx: Path) -> None:
    with pytest.raises(CheckpointError, match="has no mien metadata"):
        OnnxBackend(rewritten(tiny_onnx, other="yes"))


def test_another_format_version(tiny_onnx: Path, tiny_info: ModelInfo) -> None:
    newer = json.dumps({**json.loads(tiny_info.to_json()), "format": 99})
    with pytest.raises(CheckpointError, match=r"format 99.*upgrade"):
        OnnxBackend(rewritten(tiny_onnx, **{METADATA_KEY: newer}))


def test_metadata_of_another_network(tiny_onnx: Path, tiny_info: ModelInfo) -> None:
    with pytest.raises(CheckpointError, match="do not match its metadata"):
        OnnxBackend(rewritten(tiny_onnx, **{METADATA_KEY: replace(tiny_info, classes=("happy", "sad")).to_json()}))


@pytest.mark.parametrize("number", [1, 2 * CHUNK - 1, 2 * CHUNK, 5 * CHUNK + 3])
def test_a_large_batch_in_parts_equals_one_run(tiny_onnx: Path, number: int) -> None:
    batch = np.random.default_rng(0).normal(size=(number, 1, 40, 40)).astype(np.float32)
    parted, whole = OnnxBackend(tiny_onnx, threads=3), OnnxBackend(tiny_onnx, threads=1)
    np.testing.assert_allclose(parted.logits(batch), whole.logits(batch), atol=1e-5)
    assert parted.logits(batch).shape == (number, 7)


def test_a_file_that_went_away_or_changed_meanwhile(tiny_onnx: Path) -> None:
    """Large batches run on a second session; it is of the network that was opened, whatever became of the file."""
    backend = OnnxBackend(tiny_onnx, threads=2)
    tiny_onnx.unlink()
    batch = np.random.default_rng(0).normal(size=(2 * CHUNK, 1, 40, 40)).astype(np.float32)
    for _ in range(2):
        np.testing.assert_allclose(backend.logits(batch)[:CHUNK], backend.logits(batch[:CHUNK]), atol=1e-5)


def test_no_threads_are_refused(tiny_onnx: Path) -> None:
    with pytest.raises(InputError, match="at least 1, got -1"):
        OnnxBackend(tiny_onnx, threads=-1)
