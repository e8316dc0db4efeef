"""Fine-tuning: start a network from weights trained on something else (ImageNet, VGGFace, or any mien checkpoint).

Parameters are matched by name: one is loaded if the file has it under its published name and in the same shape. The RGB filters
of a first convolution are summed for a grey network, which gives the activations of the grey image repeated three times. The
rows of the classifier are matched by the names of their classes, never by position. All other parameters, such as the row of a
class that the file does not have, stay as they were initialised. A report lists what was done.

A bundled model, or any float32 file of `mien export`, is a start too. The export folds batch norms into the convolutions before
them, which loses their statistics. `restore_norms` measures them again, so that the network can be trained as before.
"""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mien.checkpoint import read_info
from mien.errors import CheckpointError, InputError
from mien.labels import mapping
from mien.models import Model
from mien.weights import is_named, resolve, sha256

VGGFACE = re.compile(r"(conv(\d)_(\d)|fc[678])\.(weight|bias)")
"""Names in the published VGGFace weights."""

VGGFACE_BLOCKS = {"1": 0, "2": 5, "3": 10, "4": 17, "5": 24}
VGGFACE_LINEAR = {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}
"""Where the weights of VGGFace's blocks and linear layers go in `vggface`."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Report of a start from other weights, by the network's parameter names.

    Attributes:
        source: The file.
        loaded: Loaded unchanged.
        adapted: Loaded after summing the RGB filters of a first convolution to grey.
        fresh: Left as initialised: the file lacks them or has them in another shape.
        unused: Names in the file that the network did not use.
        classes: What became of the classifier, in words, unless all its classes and their order are those of the file.
        folded: Batch norms that the file's export has folded; they only add a bias until `restore_norms`.
    """

    source: Path
    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    classes: str = ""
    folded: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} loaded"]
        parts += [f"{len(self.adapted)} summed from RGB to grey ({', '.join(self.adapted)})"] if self.adapted else []
        parts += [f"{len(self.fresh)} new ({_few(self.fresh)})"] if self.fresh else []
        parts += [f"{len(self.unused)} of the file unused ({_few(self.unused)})"] if self.unused else []
        return f"start from {self.source.name}: {', '.join(parts)}" + (f"; {self.classes}" if self.classes else "")


def start_from(model: Model, source: str | os.PathLike[str], classes: Sequence[str] | None = None) -> Transfer:
    """Load weights into a new network as far as they fit, and return a report.

    Args:
        model: The network; changed in place.
        source: `"imagenet"`, the name of a bundled model, `hf://user/model`, or a file: a mien checkpoint, a float32 file of
            `mien export`, or a state dict (torch, safetensors) under torchvision's names, timm's or VGGFace's.
        classes: The network's classes. Each row of the classifier then comes from the file's class of the same name, and from
            a file that does not name its classes no row is loaded. Without them, the classifier is loaded if its shape fits.

    Raises:
        CheckpointError: The file is missing, corrupt or has another hash than its name says, or none of its weights fits.
        InputError: The network has no published ImageNet weights.
    """
    path = imagenet_file(model) if str(source) == "imagenet" else start_file(source)
    weights = {_vggface_name(name): value for name, value in read_weights(path).items()}
    folded = _undo_export(model, weights, path) if path.suffix == ".onnx" else []
    matched, words = (None, "") if classes is None else _match_classes(path, classes)
    report = Transfer(path, classes=words, folded=folded)
    state, used = model.state_dict(), set()
    by_class = set() if matched is None else set(model.classifier_names())
    for name, old in state.items():
        key = next((key for key in (name, model.published_name(name)) if key in weights), None)
        if key is not None and matched is not None and name in by_class:
            new = _rows_by_class(weights[key], old, matched)
        else:
            new = None if key is None else _fit(weights[key], old)
        if key is None or new is None:
            report.fresh.append(name)
            continue
        used.add(key)
        (report.loaded if name in by_class or weights[key].numel() == old.numel() else report.adapted).append(name)
        state[name] = new
    report.unused.extend(name for name in weights if name not in used)
    if not any(state[name].ndim > 1 for name in report.loaded):
        raise CheckpointError(f"{path}: none of its {len(weights)} weights fits this network; is it of another architecture?")
    model.load_state_dict(state)
    return report


def start_file(source: str | os.PathLike[str]) -> Path:
    """Return the file of a start: that of a bundled model, whose SHA-256 is checked, or of the Hub, or the path itself.

    Raises:
        CheckpointError: The bundled model is corrupt.
    """
    return resolve(source) if is_named(os.fspath(source)) else Path(source)


def imagenet_file(model: Model) -> Path:
    """Return the file of a network's ImageNet weights, downloaded if necessary, after checking its hash.

    Files are kept in `$MIEN_CACHE/weights`, by default `~/.cache/mien/weights`. With `MIEN_OFFLINE=1` nothing is downloaded.

    Raises:
        InputError: The network has no published ImageNet weights.
        CheckpointError: The file is missing and cannot be downloaded, or has another hash.
    """
    url = imagenet_url(model)
    folder = Path(os.environ.get("MIEN_CACHE") or Path.home() / ".cache" / "mien") / "weights"
    path = folder / url.rsplit("/", 1)[-1]
    if not path.is_file():
        _download(url, path)
    expected = path.stem.rsplit("-", 1)[-1]
    if not sha256(path).startswith(expected):
        raise CheckpointError(f"{path}: its hash does not begin with {expected}; delete it and download it again from {url}")
    return path


def imagenet_url(model: Model) -> str:
    """Return the URL of a network's ImageNet weights in torchvision's collection.

    Raises:
        InputError: The network has no published ImageNet weights.
    """
    if model.imagenet is None:
        raise InputError(f"{type(model).__name__} has no ImageNet weights in torchvision; start from a file of weights instead")
    from torchvision.models import get_weight

    return get_weight(model.imagenet).url


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors in a safetensors, torch or ONNX file, by name.

    Raises:
        CheckpointError: The file is missing or corrupt, or is not a state dict.
    """
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; check the path")
    if path.suffix == ".onnx":
        return _read_onnx(path)
    try:
        loaded = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: is corrupt or not a file of weights ({' '.join(str(error).split())[:120]})") from None
    except Exception as error:  # torch's unpickler raises any kind of error on foreign files
        raise CheckpointError(
            f"{path}: is not a file of weights only ({type(error).__name__}); save the state dict of the network"
        ) from None
    for wrapper in ("state_dict", "model"):
        if isinstance(loaded, dict) and isinstance(loaded.get(wrapper), dict):
            loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise CheckpointError(f"{path}: is not a state dict (names and tensors); save the state dict of the network")
    return {name.removeprefix("module."): value for name, value in loaded.items()}


def _read_onnx(path: Path) -> dict[str, Tensor]:
    """Return the weights in an exported file in float32; those that it stores in float16 have names that end in `_half`."""
    import onnx
    from onnx import numpy_helper

    try:
        stored = {w.name.removesuffix("_half"): numpy_helper.to_array(w) for w in onnx.load(str(path)).graph.initializer}
        return {name: torch.tensor(w, dtype=torch.float32) for name, w in stored.items() if w.dtype.kind == "f"}
    except Exception as error:  # protobuf and onnx raise any kind of error on damaged files
        raise CheckpointError(f"{path}: is corrupt or not an ONNX file ({' '.join(str(error).split())[:120]})") from None


@torch.no_grad()
def _undo_export(model: Model, weights: dict[str, Tensor], path: Path) -> list[str]:
    """Turn the weights of an exported network into those of the network as it is trained; return the folded batch norms.

    A norm that was folded into the convolution before it has left a bias there. It becomes a norm that only adds this bias.
    """
    folded = list[str]()
    layers = [(name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    for (name, _), (norm_name, norm) in pairwise(layers):
        bias = weights.pop(f"{name}.weight_bias", None)
        if isinstance(norm, nn.BatchNorm2d) and bias is not None:
            zero, one = torch.zeros_like(bias), torch.ones_like(bias)
            values = {"weight": one * (1 + norm.eps) ** 0.5, "bias": bias, "running_mean": zero, "running_var": one}
            weights |= {f"{norm_name}.{key}": value for key, value in values.items()}
            folded.append(norm_name)
    order = copy.deepcopy(model).double()  # each weight is its own position, which says where `simplify` has moved it
    for weight in order.state_dict().values():
        weight.copy_(torch.arange(weight.numel()).view(weight.shape))
    order.simplify()
    for name, position in order.state_dict().items():
        moved = weights.get(name)
        if moved is not None and moved.shape == position.shape:
            weights[name] = torch.empty_like(moved)
            weights[name].view(-1)[position.view(-1).long()] = moved.reshape(-1)
        elif name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros_like(position)
    if lacking := [name for name in order.state_dict() if name not in weights]:
        raise CheckpointError(
            f"{path}: does not have the weights {_few(lacking)} under their names, so training cannot start from it; give a "
            "float32 file of mien export for this architecture, or the run's best.safetensors"
        )
    return folded


@torch.no_grad()
def restore_norms(model: Model, norms: Sequence[str], inputs: Iterable[Tensor]) -> None:
    """Give batch norms the statistics of some images, without changing what the network computes in evaluation mode.

    Args:
        model: The network, after `start_from`; changed in place.
        norms: The names of the norms.
        inputs: Batches of preprocessed images, (N, C, H, W).
    """
    sums: dict[Any, list[Tensor]] = {model.get_submodule(name): [] for name in norms}  # of the input of each norm

    def add(norm: nn.Module, arguments: tuple[Tensor]) -> None:
        x = arguments[0].double()
        sums[norm].append(len(x) * torch.stack([x.mean((0, 2, 3)), x.square().mean((0, 2, 3))]))

    handles = [norm.register_forward_pre_hook(add) for norm in sums]
    training, count = model.training, 0
    model.eval()
    for batch in inputs:
        model(batch)
        count += len(batch)
    model.train(training)
    for handle, (norm, parts) in zip(handles, sums.items(), strict=True):
        handle.remove()
        mean, square = torch.stack(parts).sum(0) / count
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        norm.bias += scale * (mean - norm.running_mean)
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((square - mean.square()).clamp_min(0))
        norm.weight.copy_(scale * (norm.running_var + norm.eps).sqrt())


def _download(url: str, path: Path) -> None:
    advice = f"download {url} on a machine with internet access and put it at {path}"
    if os.environ.get("MIEN_OFFLINE", "0") not in ("", "0"):
        raise CheckpointError(f"MIEN_OFFLINE is set and {path.name} is missing; {advice}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1])
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path.name} cannot be downloaded ({error}); {advice}") from None


def _fit(new: Tensor, old: Tensor) -> Tensor | None:
    """Return a file's tensor in the shape of the network's, or None if it does not fit."""
    if new.shape == old.shape:
        return new.to(old.dtype)
    if new.ndim == old.ndim == 4 and new.shape[1] == 3 and old.shape == (len(new), 1, *new.shape[2:]):
        return new.sum(1, keepdim=True).to(old.dtype)
    if old.ndim == 4 and new.ndim == 2 and old.shape[0] == new.shape[0] and new.numel() == old.numel():
        return new.reshape(old.shape).to(old.dtype)  # a linear layer that the network has as a convolution over the whole map
    return None


def _match_classes(path: Path, classes: Sequence[str]) -> tuple[dict[int, int] | None, str]:
    """Return the row of a file's classifier that each row comes from, and that in words.

    The rows are None if the classes and their order are the same, and empty if the file does not name its classes.
    """
    info = read_info(path)
    if info is None:
        return {}, "new classifier, because the file does not name its classes"
    rows = mapping(classes, info.classes)
    if rows == list(range(len(info.classes))):
        return None, ""
    matched = {ours: theirs for ours, theirs in enumerate(rows) if theirs is not None}
    parts = {
        "from the file": [name for ours, name in enumerate(classes) if ours in matched],
        "new": [name for ours, name in enumerate(classes) if ours not in matched],
        "unused": [name for theirs, name in enumerate(info.classes) if theirs not in matched.values()],
    }
    return matched, "classifier by class: " + "; ".join(f"{', '.join(names)} {word}" for word, names in parts.items() if names)


def _rows_by_class(new: Tensor, old: Tensor, matched: dict[int, int]) -> Tensor | None:
    """Return the network's tensor with the file's rows of the classes that both have; None if no row fits."""
    if not matched or new.shape[1:] != old.shape[1:]:
        return None
    rows = old.clone()
    rows[list(matched)] = new[list(matched.values())].to(old.dtype)
    return rows


def _vggface_name(name: str) -> str:
    """Return torchvision's or timm's name for one of VGGFace's."""
    found = VGGFACE.fullmatch(name)
    if found is None:
        return name
    layer, block, position, kind = found.groups()
    if block is None:
        return f"{VGGFACE_LINEAR[layer]}.{kind}"
    return f"features.{VGGFACE_BLOCKS[block] + 2 * (int(position) - 1)}.{kind}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
