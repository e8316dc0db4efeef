"""Damaged models: a file with a digest is refused, or answers as before; a file without one, or with a digest that fits, is
refused or gives one finite row per face.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from mutate import NUMBERS, damaged, damaged_value, serve, try_cases
from onnx import TensorProto, helper, numpy_helper

from mien.labels import label_set
from mien.model_info import DIGEST_KEY, METADATA_KEY, NO_DIGEST, ModelInfo, write_digest
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import PreprocessSpec, preprocess

SPEC = PreprocessSpec(size=(40, 40), channels=1, mean=(0.5,), std=(0.25,))
CROPS = list(np.random.default_rng(0).integers(0, 256, (3, 48, 48), dtype=np.uint8))
OPERATORS = [
    *(
        "Add",
        "Mul",
        "Div",
        "Conv",
        "ConvTranspose",
        "Concat",
        "Expand",
        "Tile",
        "Reshape",
        "Resize",
        "Pad",
        "Gather",
        "Softmax",
    ),
    *("ConstantOfShape", "Range", "MatMul", "Gemm", "Transpose", "Squeeze", "ReduceSum", "Shape", "NonZero", "Cast", "Nothing"),
]
FOLDER = Path(tempfile.gettempdir())


@cache
def network() -> onnx.ModelProto:
    """A small network with the operators and the float16 weights of an export."""
    chance = np.random.default_rng(0)
    weights = {
        "half": chance.normal(size=(8, 1, 3, 3)).astype(np.float16),
        "again": chance.normal(size=(8, 8, 3, 3)).astype(np.float32),
        "linear": chance.normal(size=(8, 7)).astype(np.float32),
        "shape": np.array([-1, 8], np.int64),
        **{name: np.full(8, value, np.float32) for name, value in {"scale": 2, "bias": 0.5, "mean": 0.1, "var": 1}.items()},
    }
    nodes = [
        helper.make_node("Cast", ["half"], ["filters"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["image", "filters"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["a", "scale", "bias", "mean", "var"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["d"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["d", "again"], ["e"], pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["d", "e"], ["f"]),
        helper.make_node("GlobalAveragePool", ["f"], ["g"]),
        helper.make_node("Reshape", ["g", "shape"], ["h"]),
        helper.make_node("MatMul", ["h", "linear"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 40, 40])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 7])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def info() -> ModelInfo:
    return ModelInfo("small", {"width": 8}, label_set("fer2013"), "fer2013", SPEC, results={"test": {"accuracy": 0.5}})


def written(model: onnx.ModelProto, metadata: str, digest: bool = True) -> bytes:
    """Return the content of an ONNX file."""
    helper.set_model_props(model, {METADATA_KEY: metadata} | ({DIGEST_KEY: NO_DIGEST} if digest else {}))
    path = FOLDER / "written.onnx"
    path.write_bytes(model.SerializeToString())
    if digest:
        write_digest(path)
    return path.read_bytes()


@cache
def stamped() -> bytes:
    return written(network(), info().to_json())


@cache
def unstamped() -> bytes:
    """The file as an earlier version wrote it."""
    return written(network(), json.dumps({k: v for k, v in json.loads(info().to_json()).items() if k != "calibration"}), False)


def answers(content: bytes) -> np.ndarray:
    path = FOLDER / "case.onnx"
    path.write_bytes(content)
    backend = OnnxBackend(path, threads=1)
    return backend.logits(preprocess(CROPS, backend.info.preprocess))


def load_damaged(number: int) -> None:
    assert np.array_equal(answers(damaged([stamped()], number)), answers(stamped())), "other answers, without an error"


def load_unstamped(number: int) -> None:
    answers(damaged([unstamped()], number))


def load_edited(number: int) -> None:
    answers(edited(number))


def edited(number: int) -> bytes:
    """Return the file with other metadata or another graph, and a digest that fits it."""
    chance, model = random.Random(number), onnx.ModelProto()
    model.CopyFrom(network())
    if number % 2:
        return written(model, json.dumps(damaged_value(json.loads(info().to_json()), number)))
    for _ in range(chance.choice([1, 1, 2, 4])):
        chance.choice([swap_weights, change_weight, change_node, change_attribute, rewire, add_node])(model.graph, chance)
    return written(model, info().to_json())


def swap_weights(graph: onnx.GraphProto, chance: random.Random) -> None:
    one, other = chance.sample(list(graph.initializer), 2)
    one.name, other.name = other.name, one.name


def change_weight(graph: onnx.GraphProto, chance: random.Random) -> None:
    weight = chance.choice(graph.initializer)
    if chance.random() < 0.5 and len(weight.dims):
        weight.dims[chance.randrange(len(weight.dims))] = chance.choice(NUMBERS) & 2**63 - 1
    else:
        weight.raw_data = chance.randbytes(len(weight.raw_data))


def change_node(graph: onnx.GraphProto, chance: random.Random) -> None:
    chance.choice(graph.node).op_type = chance.choice(OPERATORS)


def change_attribute(graph: onnx.GraphProto, chance: random.Random) -> None:
    node = chance.choice([node for node in graph.node if node.attribute])
    attribute = chance.choice(node.attribute)
    number = chance.choice(NUMBERS) & 2**63 - 1
    if attribute.ints:
        attribute.ints[chance.randrange(len(attribute.ints))] = number
    else:
        attribute.i = number


def rewire(graph: onnx.GraphProto, chance: random.Random) -> None:
    node = chance.choice([node for node in graph.node if node.input])
    names = [name for other in graph.node for name in (*other.input, *other.output)]
    node.input[chance.randrange(len(node.input))] = chance.choice(names)


def add_node(graph: onnx.GraphProto, chance: random.Random) -> None:
    """Put a node that makes tensors larger in front of the classifier."""
    size = [chance.choice([1, 2, 1000, 2**20, 2**31, 2**40]) for _ in range(chance.choice([1, 2, 4]))]
    graph.initializer.append(numpy_helper.from_array(np.array(size), f"size{len(graph.node)}"))
    kind = chance.choice(["Expand", "Tile", "ConstantOfShape"])
    inputs = [f"size{len(graph.node)}"] if kind == "ConstantOfShape" else ["f", f"size{len(graph.node)}"]
    graph.node.insert(7, helper.make_node(kind, inputs, ["large"]))
    graph.node[8].input[0] = "large"


@cache
def checkpoint() -> tuple[bytes, np.ndarray]:
    """Return the content of a checkpoint and its answers to `CROPS`."""
    import torch

    from mien.checkpoint import save_checkpoint
    from mien.models import create_model

    torch.manual_seed(0)
    model = create_model("dlib_resnet", depth=3, in_channels=1, num_classes=7)
    facts = ModelInfo("dlib_resnet", {"depth": 3, "in_channels": 1}, label_set("fer2013"), "fer2013", SPEC)
    save_checkpoint(FOLDER / "whole.safetensors", model.state_dict(), facts)
    content = (FOLDER / "whole.safetensors").read_bytes()
    return content, checkpoint_answers(content)


def checkpoint_answers(content: bytes) -> np.ndarray:
    from mien.engine.torch_backend import TorchBackend

    path = FOLDER / "case.safetensors"
    path.write_bytes(content)
    backend = TorchBackend(path, device="cpu")
    return backend.logits(preprocess(CROPS, backend.info.preprocess))


def load_checkpoint(number: int) -> None:
    """Load a damaged checkpoint, or one with other metadata and a digest that fits it."""
    content, expected = checkpoint()
    if number % 2:
        checkpoint_answers(edited_checkpoint(content, number))
    else:
        assert np.array_equal(checkpoint_answers(damaged([content], number)), expected), "other answers, without an error"


def edited_checkpoint(content: bytes, number: int) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    facts = damaged_value(json.loads(header["__metadata__"][METADATA_KEY]), number)
    has_digest = isinstance(facts, dict)
    header["__metadata__"][METADATA_KEY] = json.dumps(facts | {DIGEST_KEY: NO_DIGEST} if has_digest else facts)
    text = json.dumps(header, separators=(",", ":")).encode()
    path = FOLDER / "edited.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + size :])
    if has_digest:
        write_digest(path)
    return path.read_bytes()


KINDS: dict[str, Callable[[int], None]] = {
    "damaged": load_damaged,
    "unstamped": load_unstamped,
    "edited": load_edited,
    "checkpoint": load_checkpoint,
}
SHORT = {"damaged": 200, "unstamped": 200, "edited": 400, "checkpoint": 60}


@pytest.mark.skipif(sys.platform == "win32", reason="this system does not say how much memory a process held")
@pytest.mark.parametrize("kind", KINDS)
def test_damaged_models_are_refused_or_answer_right(kind: str) -> None:
    outcome = try_cases(__file__, kind, SHORT[kind])
    assert outcome.refused > 0.5 * SHORT[kind]
    assert outcome.read > 0 or kind == "damaged"


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        FOLDER = Path(folder)
        if sys.argv[1] == "checkpoint":
            checkpoint()  # imports torch, which takes longer than a case may
            warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # torch's, before mien refuses the file
        serve(KINDS)
