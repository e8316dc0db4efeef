"""Distillation: trained networks whose probabilities a smaller one learns beside the labels.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network". As Beyer et al. 2022 advise ("Knowledge
distillation: a good teacher is patient and consistent"), the teachers look at the very images the student gets, changed and
mixed alike, each in the size it was trained in; or they are asked once for the unchanged ones, which costs next to nothing.
A teacher is a checkpoint, or a model file: on processors that do not compute in bfloat16 ONNX Runtime is the faster of the two.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mien.augment import Finish
from mien.checkpoint import load_checkpoint
from mien.datasets import Corpus
from mien.engine.fabric import Fabric
from mien.engine.feed import Feed, inputs_of
from mien.errors import RecipeError
from mien.model_info import ModelInfo
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import PreprocessSpec
from mien.recipe import DistillPart
from mien.weights import bundled, resolve

ASKED = 128
"""Images teachers are asked for at a time."""


class Teachers(nn.Module):
    """One trained network or several, whose probabilities are averaged, in the precision of the run that asks.

    Args:
        part: Checkpoints or model files, and temperature.
        corpus: What the student is trained on.

    Raises:
        CheckpointError: A checkpoint is missing, damaged or of another version.
        RecipeError: A teacher has other classes, or another order of them, or may have seen the student's test images.
    """

    def __init__(self, part: DistillPart, corpus: Corpus) -> None:
        super().__init__()
        self.temperature = part.temperature
        self.networks, self.finishes = nn.ModuleList(), nn.ModuleList()
        self.specs: list[PreprocessSpec] = []
        for path in part.teachers:
            network, info = _open(path)
            _check(path, info, corpus)
            self.networks.append(network)
            self.finishes.append(Finish(info.preprocess))
            self.specs.append(info.preprocess)

    def train(self, mode: bool = True) -> Teachers:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return softened probabilities (N, K) of images (N, 1 or 3, H, W) in [0, 1]."""
        pairs = zip(self.networks, self.finishes, strict=True)
        return torch.stack([self.soften(network, finish(x)) for network, finish in pairs]).mean(0)

    def soften(self, network: nn.Module, inputs: Tensor) -> Tensor:
        """Return the softened probabilities (N, K) one teacher gives its inputs (N, C, h, w)."""
        return (network(inputs).float() / self.temperature).softmax(1)


@torch.no_grad()
def ask_once(teachers: Teachers, feed: Feed, fabric: Fabric) -> Tensor:
    """Return what teachers say of every image of a feed, prepared as for evaluation, (M, K); each process asks for its part."""
    mine = slice(fabric.global_rank, None, fabric.world_size)
    part = Feed(feed.corpus, feed.rows[mine], torch.device("cpu"))
    told = torch.zeros(len(feed), len(feed.corpus.classes), device=feed.device)
    for network, spec in zip(teachers.networks, teachers.specs, strict=True):
        with fabric.autocast():
            answers = [teachers.soften(network, x.to(feed.device)) for x in inputs_of(part, spec, ASKED)]
        told[mine] += torch.cat(answers) / len(teachers.networks)
    return fabric.all_reduce(told, reduce_op="sum")  # type: ignore[return-value]


class Exported(nn.Module):
    """A model file as a module, run by ONNX Runtime with as many threads as torch takes; it has nothing to train.

    Args:
        backend: The file, opened.
    """

    def __init__(self, backend: OnnxBackend) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) of inputs (N, C, h, w), on their device."""
        return torch.from_numpy(self.backend.logits(x.float().cpu().numpy())).to(x.device)


def _open(path: str) -> tuple[nn.Module, ModelInfo]:
    """Return a teacher and what it is, from a checkpoint, a model file or the name of a bundled model."""
    if path in bundled() or path.endswith(".onnx"):
        backend = OnnxBackend(resolve(path), threads=torch.get_num_threads())
        return Exported(backend), backend.info
    network, info = load_checkpoint(path)
    return network.requires_grad_(False).to(memory_format=torch.channels_last), info


def _check(path: str, info: ModelInfo, corpus: Corpus) -> None:
    if info.classes != corpus.classes:
        raise RecipeError(f"distill.teachers: {path} tells apart {', '.join(info.classes)}, not {', '.join(corpus.classes)}")
    data = info.recipe.get("data", {})
    official = corpus.protocol == "official" and not data.get("protocol")
    if data.get("corpus") == corpus.name and not official and info.split_fingerprint != corpus.split_fingerprint:
        raise RecipeError(
            f"distill.teachers: {path} was trained on other rows of {corpus.name} and may know this run's test images; "
            "train it with the same data.protocol"
        )


def distillation_loss(logits: Tensor, probs: Tensor, temperature: float) -> Tensor:
    """Return the mean Kullback-Leibler divergence of softened predictions from the teachers', times the temperature squared.

    Args:
        logits: The student's, (N, K).
        probs: The teachers' probabilities, softened by the same temperature, (N, K).
        temperature: What logits are divided by; its square keeps the gradient's size (Hinton et al., section 2).
    """
    student = (logits.float() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, probs, reduction="batchmean")
