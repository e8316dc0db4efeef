"""The wheel in a fresh environment, with only what it requires: it recognises without torch and without a network."""

import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Iterable
from importlib.metadata import Distribution, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from mien import cli, weights
from mien.labels import label_set

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "torchvision", "timm", "lightning_fabric", "kornia", "tensorflow", "pandas", "matplotlib", "onnx", "yaml")
NO_NETWORK = """
import socket

def refuse(*arguments, **named):
    raise RuntimeError("mien tried to use the network")

socket.socket.connect = socket.socket.connect_ex = socket.getaddrinfo = socket.create_connection = refuse
"""

pytestmark = pytest.mark.slow


def call(command: list[str | Path], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")} | environment
    return subprocess.run([str(word) for word in command], cwd=cwd, env=variables, capture_output=True, text=True, timeout=300)


def link(requirements: Iterable[str], site: Path) -> None:
    """Link packages of this environment, and what they require, into another one; so nothing is downloaded."""
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        package = distribution(requirement.name)
        tops = {file.parts[0] for file in package.files or []} - {"..", "__pycache__"}
        if all((site / top).exists() for top in tops):
            continue
        for top in tops:
            if not (site / top).exists():
                (site / top).symlink_to(package.locate_file(top))
        link(package.requires or [], site)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a fresh environment that holds the wheel and what it requires, nothing else."""
    folder = tmp_path_factory.mktemp("base")
    built = call([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], ROOT)
    assert built.returncode == 0, built.stdout + built.stderr
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", symlinks=True)
    python = folder / "venv/bin/python"
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile"]
    installed = call([sys.executable, "-m", "pip", "--python", python, "install", *options, wheel], folder)
    assert installed.returncode == 0, installed.stderr
    (metadata,) = folder.glob("venv/lib/python*/site-packages/mien-*.dist-info")
    link(Distribution.at(metadata).requires or [], metadata.parent)
    return python


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """A folder outside the repository with the photo and a module that cuts the network off."""
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(NO_NETWORK)
    shutil.copy(ROOT / "docs/assets/astronaut.jpg", tmp_path)
    return tmp_path


def test_nothing_heavy_is_installed(python: Path, elsewhere: Path) -> None:
    code = f"from importlib.util import find_spec; print([name for name in {HEAVY} if find_spec(name)])"
    assert call([python, "-c", code], elsewhere).stdout == "[]\n"


def test_it_recognises_offline(python: Path, elsewhere: Path, tiny_onnx: Path) -> None:
    model = [] if weights.DEFAULT in weights.bundled() else ["--model", tiny_onnx]
    command = [python, "-W", "error", "-m", "mien", "predict", "astronaut.jpg", "--jsonl", *model]
    done = call(command, elsewhere, PYTHONPATH=str(elsewhere / "blocked"))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["left"] < 225 < found["right"]  # the astronaut's nose, px
    assert found["top"] < 120 < found["bottom"]
    probs = {name: found[name] for name in label_set("fer2013")}
    assert sum(probs.values()) == pytest.approx(1, abs=1e-3)
    assert found["label"] == max(probs, key=probs.__getitem__)


def test_the_network_is_really_cut_off(python: Path, elsewhere: Path) -> None:
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = call([python, "-c", code], elsewhere, PYTHONPATH=str(elsewhere / "blocked"))
    assert "mien tried to use the network" in done.stderr


def test_it_runs_from_python_without_torch(python: Path, elsewhere: Path, tiny_onnx: Path) -> None:
    model = "" if weights.DEFAULT in weights.bundled() else repr(str(tiny_onnx))
    code = f"import sys, mien; print(len(mien.Recognizer({model}).predict('astronaut.jpg')), 'torch' in sys.modules)"
    done = call([python, "-W", "error", "-c", code], elsewhere)
    assert done.stdout == "1 False\n", done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["train", "sa_csp_ca/fer2013", "--data", "fer2013.csv", "--out", "run"],
        ["export", "run", "model.onnx"],
        ["recipes"],
    ],
    ids=lambda command: command[0],
)
def test_training_names_what_to_install(python: Path, elsewhere: Path, command: list[str]) -> None:
    if command[0] not in {known.callback.__name__ for known in cli.app.registered_commands if known.callback}:
        pytest.skip(f"this version has no mien {command[0]} yet")
    done = call([python, "-m", "mien", *command], elsewhere)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install 'mien[train]'" in done.stderr


def test_the_wheel_holds_the_template_of_reports(python: Path) -> None:
    assert len(list(python.parents[1].glob("lib/python*/site-packages/mien/report/page.html.j2"))) == 1
