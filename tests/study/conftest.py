"""A study that trains in seconds: a tiny network on a small file of FER2013's layout."""

from collections.abc import Callable
from pathlib import Path

import pytest

SET = """
set:
  model.name: dlib_resnet
  model.arguments: {in_channels: 1, depth: 1}
  train.epochs: 2
  train.batch_size: 16
  train.compile: false
  optim.warmup_epochs: 0
"""


@pytest.fixture(scope="session")
def write_study() -> Callable[..., Path]:
    """How to write a small study into a folder, with more lines of YAML."""

    def write(folder: Path, more: str = "recipe: sa_csp_ca/fer2013\ngrid: {optim.lr: [0.05, 0.001]}\n") -> Path:
        path = folder / "study.yaml"
        path.write_text(f"name: tiny/rates\ntitle: Two rates\n{more}{SET}")
        return path

    return write
