"""Fixtures that more than one file needs; keep it small."""

import ctypes
import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # torch's threads spin: beside a busy neighbour more of them are slower

import hypothesis
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from mien import cli
from mien.datasets import crops
from mien.labels import label_set
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest
from mien.prepare import run as prepare_run
from mien.preprocess import PreprocessSpec

M_MMAP_THRESHOLD = -3  # of malloc.h
with suppress(AttributeError, OSError):  # only glibc has it
    # A freed block of 1 MB or more goes back to the system at once. By default glibc soon keeps blocks of up to 32 MB, and
    # cannot reuse torch's, which are aligned: up to 0.8 GB more in one test.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 20)

hypothesis.settings.register_profile("mien", deadline=None)  # an import or a busy machine takes longer than 200 ms
hypothesis.settings.load_profile("mien")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell leaves it to what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run a command of mien in this process; return its exit status, standard output and standard error."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["mien", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return run


@pytest.fixture
def tiny_info() -> ModelInfo:
    """What a small network over FER2013's classes says about itself."""
    spec = PreprocessSpec(size=(40, 40), channels=1, mean=(0.5,), std=(0.25,), crop_scale=1.1)
    results = {"fer2013/private_test": {"accuracy": 0.5}}
    return ModelInfo("tiny", {"width": 4}, label_set("fer2013"), "fer2013", spec, results=results)


@pytest.fixture
def tiny_onnx(tmp_path: Path, tiny_info: ModelInfo) -> Path:
    """A small random network as `mien export` would write it."""
    return write_onnx(tmp_path / "tiny.onnx", {METADATA_KEY: tiny_info.to_json()})


@pytest.fixture(scope="session")
def shared_fer2013_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small fer2013.csv: 96 rows of training, 32 of each test split, every class in each. Not to be changed."""
    path = tmp_path_factory.mktemp("fer2013") / "fer2013.csv"
    return write_fer2013(path, {"Training": 96, "PublicTest": 32, "PrivateTest": 32})


@pytest.fixture
def fer2013_csv(tmp_path: Path, shared_fer2013_csv: Path) -> Path:
    """The test's own copy of `shared_fer2013_csv`."""
    return Path(shutil.copy(shared_fer2013_csv, tmp_path / "fer2013.csv"))


def write_fer2013(path: Path, rows: dict[str, int]) -> Path:
    """Write random faces in the layout of Kaggle's fer2013.csv; a face's brightness tells its class."""
    random = np.random.default_rng(0)
    lines = ["emotion,pixels,Usage"]
    for usage, count in rows.items():
        for i in range(count):
            pixels = random.integers(0, 80, 48 * 48) + 25 * (i % 7)
            lines.append(f"{i % 7},{' '.join(map(str, pixels))},{usage}")
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep every test's decoded corpora to itself, and its language English."""
    monkeypatch.setenv("MIEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MIEN_LANGUAGE", raising=False)


@pytest.fixture(scope="session")
def trim_memory() -> Callable[[], None]:
    """Return what gives freed memory back to the system; for tests of large networks, so that a worker stays below 2 GB."""

    def trim() -> None:
        gc.collect()
        with suppress(AttributeError, OSError):  # only glibc has it
            ctypes.CDLL(None).malloc_trim(0)

    return trim


@pytest.fixture(autouse=True, scope="module")
def _trim_memory_after_each_file(trim_memory: Callable[[], None]) -> Iterator[None]:
    """Also release the detectors that mien keeps: ONNX Runtime never returns the memory of their largest picture, 0.1 GB."""
    yield
    crops._detector.cache_clear()
    prepare_run._detector.cache_clear()
    trim_memory()


def write_onnx(path: Path, metadata: dict[str, str], classes: int = 7) -> Path:
    """Write a network: convolution, pooling, linear layer; random but always the same."""
    random = np.random.default_rng(0)
    weights = {"filter": random.normal(size=(4, 1, 3, 3)), "linear": random.normal(size=(4, classes)) * 4}
    nodes = [
        helper.make_node("Conv", ["image", "filter"], ["maps"]),
        helper.make_node("Relu", ["maps"], ["rectified"]),
        helper.make_node("GlobalAveragePool", ["rectified"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "linear"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 40, 40])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    helper.set_model_props(model, {**metadata, DIGEST_KEY: NO_DIGEST})
    onnx.save(model, path)
    write_digest(path)
    return path
