"""The job on the small network; and the tests of this folder may import `crops`."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from mien.label import Report, label_collection

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def label(tiny_onnx: Path, tmp_path: Path) -> Callable[..., Report]:
    """Run a job over ready crops in this process, by default to `out` in the test's folder."""

    def run(sources: Sequence[object], out: object = tmp_path / "out", **arguments: Any) -> Report:
        settings = {"options": {"detector": None}, "workers": 0, "unit_size": 4} | arguments
        return label_collection([str(source) for source in sources], str(out), str(tiny_onnx), **settings)

    return run
