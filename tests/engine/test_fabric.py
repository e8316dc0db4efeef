"""Fabric comes alone: what it would import of other packages takes memory from training."""

import subprocess
import sys

import pytest

from mien.engine.fabric import _absent

CODE = """
import sys
import mien.engine
print([name for name in ("torchmetrics", "scipy", "matplotlib", "lightning", "pandas", "sklearn") if name in sys.modules])
import torchmetrics
print(torchmetrics.MeanMetric.__name__)
"""


def test_training_imports_nothing_it_has_no_use_for_and_leaves_it_to_others():
    done = subprocess.run([sys.executable, "-W", "error", "-c", CODE], capture_output=True, text=True)
    assert done.stdout == "[]\nMeanMetric\n", done.stderr


def test_a_module_is_absent_meanwhile_unless_it_is_there_already(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "this", raising=False)
    with _absent("this"), pytest.raises(ModuleNotFoundError):
        import this  # noqa: F401
    assert "this" not in sys.modules
    with _absent("json"):
        import json
    assert sys.modules["json"] is json
