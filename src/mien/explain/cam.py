"""Grad-CAM, Grad-CAM++ and Layer-CAM, computed by the package pytorch-grad-cam at the network's `cam_layer`.

Papers: Selvaraju et al. 2017 (Grad-CAM), Chattopadhyay et al. 2018 (Grad-CAM++), Jiang et al. 2021 (LayerCAM). If a spatial
transformer comes first, the layer sees the window that it sampled; the map is moved back to where that window was.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mien.errors import InputError, require
from mien.explain.base import METHODS, Maps, project, require_network

if TYPE_CHECKING:
    from mien.predict.backend import Backend

CLASSES = {"grad_cam": "GradCAM", "grad_cam_plusplus": "GradCAMPlusPlus", "layer_cam": "LayerCAM"}
"""The class of pytorch-grad-cam of each method."""


def _cam(name: str, backend: Backend, batch: NDArray[np.float32], target: NDArray[np.int64], seed: int = 0) -> Maps:
    """Return the class activation map of one class for each image.

    Raises:
        InputError: The network is exported, or has no feature map of several positions.
        MissingExtraError: pytorch-grad-cam is not installed.
    """
    network = require_network(backend, name)
    library = require("pytorch_grad_cam", "explain")
    import torch
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    images = torch.from_numpy(batch).to(next(network.parameters()).device)
    layer = network.cam_layer
    _check_layer(network, layer, images[:1], backend.info.arch)
    with getattr(library, CLASSES[name])(model=network, target_layers=[layer]) as cam, torch.enable_grad():
        maps = cam(input_tensor=images, targets=[ClassifierOutputTarget(int(each)) for each in target])
    network.zero_grad()
    if "spatial_transformer" in network.attention_maps(images[:1]):
        with torch.no_grad():
            theta = network.theta(images).cpu().numpy()
        maps = np.stack([_back(*each) for each in zip(maps, theta, strict=True)])
    return Maps({name: maps})


for _name in CLASSES:
    METHODS.register(_name)(partial(_cam, _name))


def _check_layer(network: Any, layer: Any, image: Any, arch: str) -> None:
    """Refuse a layer that gives no feature map (N, D, h, w) of several positions, as in a transformer."""
    import torch

    shapes: list[tuple[int, ...]] = []
    hook = layer.register_forward_hook(lambda module, inputs, output: shapes.append(tuple(getattr(output, "shape", ()))))
    try:
        with torch.no_grad():
            network(image)
    finally:
        hook.remove()
    last = "NHWC" in str(getattr(getattr(network, "backbone", None), "output_fmt", ""))  # channels last, as in Swin
    if not shapes or len(shapes[0]) != 4 or last or shapes[0][2] * shapes[0][3] < 2:
        found = f"{shapes[0]}" if shapes else "nothing"
        raise InputError(
            f"{arch} has no layer that class activation maps can use: its last one gives {found}, not channels over several "
            "positions; choose the method occlusion or rise"
        )


def _back(values: NDArray[np.float32], theta: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a map of the sampled window at its place in the image; theta maps the window to the image, both in [-1, 1].

    Raises:
        InputError: The window covers less than one pixel, so that theta has no usable inverse.
    """
    height, width = values.shape
    if not abs(np.linalg.det(theta[:, :2].astype(float))) * height * width >= 1:
        raise InputError(
            "the spatial transformer sampled a window without area, so a class activation map has no place in this picture; "
            "choose the method attention, occlusion or rise"
        )
    into = np.linalg.inv(np.vstack([theta, [0, 0, 1]]))[:2]  # from the image to the window
    unit = np.array([[2 / width, 0, -1], [0, 2 / height, -1], [0, 0, 1]])  # from px to [-1, 1]
    matrix = into @ unit
    matrix[:, 2] += 1  # from [-1, 1] to fractions
    return project(values, matrix / 2, (height, width))
