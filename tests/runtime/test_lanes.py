from pathlib import Path

import numpy as np
import pytest

from mien.errors import CheckpointError
from mien.runtime.onnx_backend import LANE, OnnxBackend


@pytest.mark.parametrize("number", [1, 2 * LANE - 1, 2 * LANE, 5 * LANE + 3])
def test_a_large_batch_in_parts_equals_one_run(tiny_onnx: Path, number: int) -> None:
    batch = np.random.default_rng(0).normal(size=(number, 1, 40, 40)).astype(np.float32)
    parted, whole = OnnxBackend(tiny_onnx, threads=3), OnnxBackend(tiny_onnx, threads=1)
    np.testing.assert_allclose(parted.logits(batch), whole.logits(batch), atol=1e-5)
    assert parted.logits(batch).shape == (number, 7)


def test_a_file_that_went_away_between(tiny_onnx: Path) -> None:
    backend = OnnxBackend(tiny_onnx, threads=2)
    tiny_onnx.unlink()
    with pytest.raises(CheckpointError, match="no such model file"):
        backend.logits(np.zeros((2 * LANE, 1, 40, 40), np.float32))
