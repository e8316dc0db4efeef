import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import mien


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_public_names() -> None:
    assert sorted(mien.__all__) == [
        "Face",
        "Frame",
        "MienError",
        "Prediction",
        "PreprocessSpec",
        "Reading",
        "Recognizer",
        "VideoOptions",
        "__version__",
        "create_detector",
        "create_model",
        "label_set",
        "load_checkpoint",
        "load_recipe",
        "read_image",
        "to_dataframe",
        "translate",
        "use_language",
        "write_table",
    ]


@pytest.mark.parametrize("name", mien.__all__)
def test_every_public_name_loads(name: str) -> None:
    if name in ("create_model", "load_checkpoint"):
        pytest.importorskip("torch", reason="networks need torch")
    assert getattr(mien, name) is not None


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Recogniser'"):
        mien.Recogniser  # noqa: B018


@pytest.mark.parametrize("module", ["mien", "mien.cli"])
def test_importing_it_costs_nothing(module: str) -> None:
    heavy = "{'torch', 'numpy', 'onnxruntime', 'PIL', 'av'}"
    assert run(f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_predicting_never_imports_torch(tmp_path: Path, tiny_onnx: Path) -> None:
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(tmp_path / "a.png")
    code = f"""
import sys, mien
recognizer = mien.Recognizer({str(tiny_onnx)!r})
recognizer.predict({str(tmp_path / "a.png")!r})
recognizer.predict_faces([__import__("numpy").zeros((48, 48), "uint8")])
import mien.output.annotate, mien.output.table
print([name for name in ("torch", "tensorflow", "mtcnn", "pandas", "onnx") if name in sys.modules])
"""
    assert run(code) == "[]"


@pytest.mark.slow
def test_no_library_sets_up_logging() -> None:
    """One that does makes all others print what they log, such as that matplotlib made its list of fonts."""
    pytest.importorskip("torch", reason="the modules of training import it")
    code = """
import importlib, logging, pkgutil, mien
for module in pkgutil.walk_packages(mien.__path__, "mien."):
    importlib.import_module(module.name)
print(logging.root, logging.root.handlers)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout == "<RootLogger root (WARNING)> []\n", done.stderr


def test_type_checkers_see_the_same_names() -> None:
    tree = ast.parse(Path(mien.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == mien._HOME
