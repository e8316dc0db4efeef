"""Starting a network from weights that were trained on something else: ImageNet, VGGFace, or any mien checkpoint.

Names decide: a parameter is loaded where the file has it under its published name in the same shape. A first convolution over
RGB becomes one over grey by summing its filters, which gives the activations of the grey image repeated three times. What has
another number of classes, or is in the network only, stays as it was initialised. All of it is reported.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from mien.errors import CheckpointError, InputError
from mien.models import Model
from mien.weights import sha256

VGGFACE = re.compile(r"(conv(\d)_(\d)|fc[678])\.(weight|bias)")
"""Names in the published VGGFace weights, and their places in `vggface`."""
VGGFACE_BLOCKS = {"1": 0, "2": 5, "3": 10, "4": 17, "5": 24}
VGGFACE_LINEAR = {"fc6": "pre_logits.fc1", "fc7": "pre_logits.fc2", "fc8": "head.fc"}


@dataclass(frozen=True, slots=True)
class Transfer:
    """What a start from other weights did, by the network's parameter names.

    Attributes:
        source: The file.
        loaded: Taken as they are.
        adapted: Taken after the filters of a first convolution were summed from RGB to grey.
        fresh: Left as initialised: the file has them not, or in another shape.
        unused: Names the file holds and the network does not take.
    """

    source: Path
    loaded: list[str] = field(default_factory=list)
    adapted: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} loaded"]
        parts += [f"{len(self.adapted)} summed from RGB to grey ({', '.join(self.adapted)})"] if self.adapted else []
        parts += [f"{len(self.fresh)} new ({_few(self.fresh)})"] if self.fresh else []
        parts += [f"{len(self.unused)} of the file unused ({_few(self.unused)})"] if self.unused else []
        return f"start from {self.source.name}: {', '.join(parts)}"


def start_from(model: Model, source: str | os.PathLike[str]) -> Transfer:
    """Load other weights into a new network, as far as they fit.

    Args:
        model: The network; changed in place.
        source: `"imagenet"`, or a file: a mien checkpoint, or a state dict (torch, safetensors) under torchvision's names,
            timm's or VGGFace's.

    Raises:
        CheckpointError: The file is missing, damaged, of another hash than its name says, or nothing in it fits.
        InputError: The network has no published ImageNet weights.
    """
    path = imagenet_file(model) if str(source) == "imagenet" else Path(source)
    weights = {_vggface_name(name): value for name, value in read_weights(path).items()}
    report = Transfer(path)
    state, used = model.state_dict(), set()
    for name, old in state.items():
        key = next((key for key in (name, model.published_name(name)) if key in weights), None)
        new = None if key is None else _fit(weights[key], old)
        if key is None or new is None:
            report.fresh.append(name)
            continue
        used.add(key)
        (report.loaded if weights[key].numel() == old.numel() else report.adapted).append(name)
        state[name] = new
    report.unused.extend(name for name in weights if name not in used)
    if not any(state[name].ndim > 1 for name in report.loaded):
        raise CheckpointError(f"{path}: none of its {len(weights)} weights fits this network; is it of another architecture?")
    model.load_state_dict(state)
    return report


def imagenet_file(model: Model) -> Path:
    """Return the file of a network's ImageNet weights, downloaded if need be, its hash checked.

    Files lie in `$MIEN_CACHE/weights`, by default `~/.cache/mien/weights`. With `MIEN_OFFLINE=1` nothing is downloaded.

    Raises:
        InputError: The network has no published ImageNet weights.
        CheckpointError: The file is not there and cannot be downloaded, or has another hash.
    """
    url = imagenet_url(model)
    folder = Path(os.environ.get("MIEN_CACHE") or Path.home() / ".cache" / "mien") / "weights"
    path = folder / url.rsplit("/", 1)[-1]
    if not path.is_file():
        _download(url, path)
    expected = path.stem.rsplit("-", 1)[-1]
    if not sha256(path).startswith(expected):
        raise CheckpointError(f"{path}: its hash does not begin with {expected}; remove it and get it again from {url}")
    return path


def imagenet_url(model: Model) -> str:
    """Return the address of a network's ImageNet weights in torchvision's collection."""
    if model.imagenet is None:
        raise InputError(f"{type(model).__name__} has no ImageNet weights in torchvision; start from a file of weights instead")
    from torchvision.models import get_weight

    return get_weight(model.imagenet).url


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or of a torch file, by name.

    Raises:
        CheckpointError: The file is missing, damaged, or holds no state dict.
    """
    if path.is_dir():
        path = path / "best.safetensors"
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of weights")
    try:
        held = load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: is damaged or no file of weights ({' '.join(str(error).split())[:120]})") from None
    except Exception as error:  # torch's unpickler raises what it likes on foreign files
        raise CheckpointError(f"{path}: is no file of weights alone ({type(error).__name__})") from None
    for wrapper in ("state_dict", "model"):
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
    if not isinstance(held, dict) or not held or not all(isinstance(value, Tensor) for value in held.values()):
        raise CheckpointError(f"{path}: holds no state dict (names and tensors)")
    return {name.removeprefix("module."): value for name, value in held.items()}


def _download(url: str, path: Path) -> None:
    advice = f"get {url} where there is a network and put it at {path}"
    if os.environ.get("MIEN_OFFLINE", "0") not in ("", "0"):
        raise CheckpointError(f"MIEN_OFFLINE is set and {path.name} is not there; {advice}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(path), hash_prefix=path.stem.rsplit("-", 1)[-1])
    except (OSError, RuntimeError) as error:
        raise CheckpointError(f"{path.name} cannot be downloaded ({error}); {advice}") from None


def _fit(new: Tensor, old: Tensor) -> Tensor | None:
    """Return a file's tensor in the shape of the network's, or None where it does not fit."""
    if new.shape == old.shape:
        return new.to(old.dtype)
    if new.ndim == old.ndim == 4 and new.shape[1] == 3 and old.shape == (len(new), 1, *new.shape[2:]):
        return new.sum(1, keepdim=True).to(old.dtype)
    if old.ndim == 4 and new.ndim == 2 and old.shape[0] == new.shape[0] and new.numel() == old.numel():
        return new.reshape(old.shape).to(old.dtype)  # a linear layer that is a convolution over the whole map
    return None


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
