import json
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from mien.errors import CheckpointError, InputError
from mien.explain import load_backend
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest
from mien.onnx_session import default_providers
from mien.predict.onnx_backend import CHUNK, OnnxBackend
from mien.predict.recognizer import Recognizer
from mien.preprocess import preprocess
from mien.weights import bundled


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


def edited(path: Path, edit: Callable[[onnx.GraphProto], object], metadata: dict[str, str] | None = None) -> Path:
    """Return the file with another graph and a digest that fits it."""
    model = onnx.load(path)
    edit(model.graph)
    onnx.save(model, path)
    return rewritten(path, **(metadata or {METADATA_KEY: {e.key: e.value for e in model.metadata_props}[METADATA_KEY]}))


@pytest.mark.parametrize("seed", range(40))
def test_a_bit_that_flips_anywhere_is_noticed(tiny_onnx: Path, seed: int) -> None:
    content = bytearray(tiny_onnx.read_bytes())
    content[np.random.default_rng(seed).integers(len(content))] ^= 1 << seed % 8
    tiny_onnx.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tiny\.onnx: "):
        OnnxBackend(tiny_onnx)


def test_a_weight_that_was_changed_is_noticed(tiny_onnx: Path) -> None:
    """Fault 18: one bit of the bundled model turned 84 % happy into 100 %."""
    model = onnx.load(tiny_onnx)
    filters = numpy_helper.to_array(model.graph.initializer[0]).copy()
    filters.flat[0] *= 1000
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(filters, model.graph.initializer[0].name))
    onnx.save(model, tiny_onnx)
    with pytest.raises(CheckpointError, match=r"tiny\.onnx: is corrupt or was changed"):
        OnnxBackend(tiny_onnx)


def test_a_file_of_an_earlier_version_loads_with_a_note(
    tiny_onnx: Path, tiny_info: ModelInfo, caplog: pytest.LogCaptureFixture
) -> None:
    model, old = onnx.load(tiny_onnx), json.loads(tiny_info.to_json())
    del old["calibration"]
    helper.set_model_props(model, {METADATA_KEY: json.dumps(old)})
    onnx.save(model, tiny_onnx)
    assert OnnxBackend(tiny_onnx).info == tiny_info
    assert "tiny.onnx has no digest" in caplog.text


@pytest.mark.parametrize(
    ("field", "value"),
    [("mean", "a"), ("crop_shift", float("nan")), ("crop_shift", 1e9), ("size", [48.0, 48.0]), ("size", [40, 41])],
)
def test_preprocessing_out_of_range(tiny_onnx: Path, tiny_info: ModelInfo, field: str, value: object) -> None:
    facts = json.loads(tiny_info.to_json())
    facts["preprocess"][field] = value
    with pytest.raises(CheckpointError, match=rf"tiny\.onnx: .*({field}|metadata)"):
        OnnxBackend(rewritten(tiny_onnx, **{METADATA_KEY: json.dumps(facts)}))


def test_metadata_that_is_not_utf8(tiny_onnx: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = tiny_onnx.read_bytes()
    assert content.count(b"crop_scale") == 1
    tiny_onnx.write_bytes(content.replace(b"crop_scale", b"crop_scal\xff"))
    write_digest(tiny_onnx)
    with pytest.raises(CheckpointError, match=r"tiny\.onnx: "):
        OnnxBackend(tiny_onnx)
    assert capfd.readouterr() == ("", ""), "the error is raised and nothing is printed"


def fixed_batch(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def another_type(graph: onnx.GraphProto) -> None:
    graph.node.append(helper.make_node("Cast", ["raw"], ["logits"], to=TensorProto.DOUBLE))
    graph.node[-2].output[0] = "raw"
    graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@pytest.mark.parametrize(
    ("edit", "message"), [(fixed_batch, "batches of exactly 1; export it again"), (another_type, "do not match its metadata")]
)
def test_a_graph_of_another_kind_is_refused(tiny_onnx: Path, edit: Any, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        OnnxBackend(edited(tiny_onnx, edit))


def append(*nodes: onnx.NodeProto, **values: Any) -> Callable[[onnx.GraphProto], None]:
    """Return an edit that puts nodes between the network's last layer, now `raw`, and `logits`."""

    def edit(graph: onnx.GraphProto) -> None:
        graph.node[-1].output[0] = "raw"
        graph.node.extend(nodes)
        graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in values.items())

    return edit


ONE = (helper.make_node("Shape", ["raw"], ["rows"], end=1), helper.make_node("Div", ["rows", "rows"], ["one"]))
"""Nodes that compute the number 1 in a way that ONNX Runtime does not see through when it opens the file."""

ONE_ROW = append(*ONE, helper.make_node("Slice", ["raw", "zero", "one"], ["logits"]), zero=np.array([0]))
NAN = append(helper.make_node("Sub", ["raw", "raw"], ["zero"]), helper.make_node("Div", ["zero", "zero"], ["logits"]))
FAILING = append(
    *ONE,
    helper.make_node("Add", ["rows", "one"], ["more"]),
    helper.make_node("Concat", ["more", "seven"], ["shape"], axis=0),
    helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
    helper.make_node("Add", ["raw", "zeros"], ["logits"]),
    seven=np.array([7]),
)


@pytest.mark.parametrize(
    ("edit", "message"), [(ONE_ROW, r"\(1, 7\) for 2 faces"), (NAN, "not finite"), (FAILING, "fails when it runs")]
)
def test_answers_are_checked(tiny_onnx: Path, edit: Any, message: str) -> None:
    """One row: the second face of a picture disappeared without a word. The others ended in tracebacks."""
    recognizer = Recognizer(edited(tiny_onnx, edit), detector=None)
    with pytest.raises(CheckpointError, match=message):
        recognizer.predict_faces([np.zeros((48, 48), np.uint8)] * 2)


@pytest.mark.parametrize("rows", [1, 3])
def test_the_answers_of_a_custom_backend_are_checked(tiny_onnx: Path, rows: int) -> None:
    class Custom(OnnxBackend):
        def logits(self, batch: np.ndarray) -> np.ndarray:
            return np.zeros((rows, 7), np.float32)

    recognizer = Recognizer(Custom(tiny_onnx), detector=None)
    with pytest.raises(CheckpointError, match=rf"Custom: returned logits of shape \({rows}, 7\) for 2 faces"):
        recognizer.predict_faces([np.zeros((48, 48), np.uint8)] * 2)


BOMBS = {
    "constant": append(
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["raw", "sum"], ["logits"]),
        size=np.array([2**30]),
    ),
    "expand": append(
        helper.make_node("Expand", ["maps", "size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["raw", "sum"], ["logits"]),
        size=np.array([200_000, 1, 1, 1, 1]),
    ),
    "many": append(
        helper.make_node("ConstantOfShape", ["size"], ["big0"]),
        *[helper.make_node("Add", [f"big{i}", "one"], [f"big{i + 1}"]) for i in range(40)],
        helper.make_node("Sum", [f"big{i}" for i in range(41)], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["raw", "sum"], ["logits"]),
        size=np.array([2**24]),
        one=np.ones(1, np.float32),
    ),
}
"""Small graphs that ask for 4, 5 and 3 GB."""

RUN_ALL = """
import sys
from pathlib import Path
import numpy as np
from mien.errors import CheckpointError
from mien.predict.onnx_backend import OnnxBackend
for path in sys.argv[1:]:
    backend, faces = OnnxBackend(path), np.zeros((12, 1, 40, 40), np.float32)
    try:
        print(backend.logits(faces).shape)
    except CheckpointError as error:
        print(error)
print(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of the memory from /proc")
def test_a_small_file_that_asks_for_gigabytes_is_refused(tmp_path: Path, tiny_onnx: Path) -> None:
    """Fault 12: a few hundred bytes of ONNX took 8.8 GB. A large but honest network runs with fewer faces at a time."""
    files = []
    wide = append(  # 100 MB per face
        helper.make_node("Tile", ["image", "repeats"], ["big"]),
        helper.make_node("ReduceSum", ["big", "axes"], ["sum"], keepdims=0),
        helper.make_node("Reshape", ["sum", "column"], ["sums"]),
        helper.make_node("Add", ["raw", "sums"], ["logits"]),
        repeats=np.array([1, 15_000, 1, 1]),
        axes=np.array([1, 2, 3]),
        column=np.array([-1, 1]),
    )
    for name, edit in {**BOMBS, "wide": wide}.items():
        files.append(tmp_path / f"{name}.onnx")
        files[-1].write_bytes(tiny_onnx.read_bytes())
        edited(files[-1], edit)
        assert files[-1].stat().st_size < 10_000
    command = [sys.executable, "-c", RUN_ALL, *map(str, files)]
    *lines, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert ["needs too much memory" in line for line in lines] == [True, True, True, False]
    assert lines[-1] == "(12, 7)"
    assert int(peak) < 1.5 * 2**20  # KiB


@pytest.mark.parametrize("model", bundled())
def test_the_example_without_mien_computes_the_same_input(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 23: inputs that differed in the last bit moved probabilities of an int8 file by 0.011."""
    root = Path(__file__).parents[2]
    code = re.search(r"```python\n(.*?)```", (root / "docs/model-file.md").read_text(), re.DOTALL)
    assert code is not None
    monkeypatch.chdir(root)
    names: dict[str, Any] = {}
    exec(code[1].replace("default_weights()", repr(str(bundled()[model]))), names)
    backend = OnnxBackend(bundled()[model])
    crop = Image.open("docs/assets/astronaut.jpg").convert("RGB").crop((165, 55, 285, 175))
    image = preprocess([np.asarray(crop)], backend.info.preprocess)
    np.testing.assert_array_equal(names["image"], image)
    np.testing.assert_allclose(
        names["logits"], backend.logits(image)[0], atol=1e-4 if backend.info.precision == "fp32" else 0.1
    )


def test_the_network_runs_on_the_providers_that_were_asked_for(tiny_onnx: Path) -> None:
    batch = np.random.default_rng(1).normal(size=(20, 1, 40, 40)).astype(np.float32)
    other = next(name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider")
    recognizer = Recognizer(tiny_onnx, detector=None, providers=[other, "cpu"])
    expected = OnnxBackend(tiny_onnx, providers="cpu").logits(batch)
    for each in (recognizer, pickle.loads(pickle.dumps(recognizer))):
        assert each.backend.providers == [other, "CPUExecutionProvider"]
        np.testing.assert_allclose(each.backend.logits(batch), expected, atol=1e-4)


def test_a_provider_that_gives_way_to_the_cpu_is_noticed(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["RknpuExecutionProvider", "CPUExecutionProvider"])
    with pytest.warns(UserWarning, match="not in available"), pytest.raises(InputError, match="cannot use RknpuExecutionP"):
        OnnxBackend(tiny_onnx, providers="rknpu,cpu")


def test_a_provider_that_computes_something_else_is_refused(tiny_onnx: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO and ONNX Runtime 1.24 differ in an average pool: 17 of 200 faces got another label, without a word."""
    other = next(name for name in onnxruntime.get_available_providers() if name != "CPUExecutionProvider")
    run = OnnxBackend._run
    wrong = lambda self, session, batch: run(self, session, batch) + (session.get_providers()[0] == other)  # noqa: E731
    monkeypatch.setattr(OnnxBackend, "_run", wrong)
    with pytest.raises(InputError, match=f"on {other} a logit differs from the CPU's by 1, so"):
        OnnxBackend(tiny_onnx, providers=other)


def test_what_has_no_providers_refuses_them(tiny_onnx: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give it to the backend"):
        Recognizer(OnnxBackend(tiny_onnx), providers="cpu")
    with pytest.raises(InputError, match="mien export"):
        load_backend(tmp_path, "cpu")
