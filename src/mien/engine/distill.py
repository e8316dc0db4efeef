"""Distillation: a network learns the probabilities of trained teachers as well as the labels.

Hinton, Vinyals and Dean 2015, "Distilling the Knowledge in a Neural Network". By default the teachers see the same augmented
and mixed images as the student, each in its own input size, as Beyer et al. 2022 advise ("Knowledge distillation: a good
teacher is patient and consistent"). With `distill.once` they predict each unchanged image once, which costs almost nothing.
A teacher is a checkpoint or an exported file; on CPUs without bfloat16, the exported file is faster.
"""

from __future__ import annotations

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from mien.augment import Normalize
from mien.checkpoint import load_checkpoint
from mien.datasets import Corpus
from mien.engine.loader import Loader
from mien.errors import RecipeError
from mien.labels import mapping
from mien.model_info import ModelInfo
from mien.predict.onnx_backend import OnnxBackend
from mien.preprocess import PreprocessSpec
from mien.recipe_parts import DistillPart
from mien.weights import is_named, resolve

BATCH = 128
"""Images per batch when the teachers predict a whole split."""


def distillation_loss(logits: Tensor, teacher_probs: Tensor, temperature: float) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the student's softened predictions from the teachers', times T^2.

    Args:
        logits: The student's logits, (N, K).
        teacher_probs: The teachers' probabilities, softened by the same temperature, (N, K).
        temperature: T, the divisor of the logits. The factor T^2 keeps the size of the gradient (Hinton et al., section 2).
    """
    student = (logits.float() / temperature).log_softmax(1)
    return temperature**2 * F.kl_div(student, teacher_probs, reduction="batchmean")


class Teachers(nn.Module):
    """The mean softened probabilities of one or several trained networks, always in evaluation mode.

    Args:
        part: The teachers and the temperature.
        corpus: The student's corpus.

    Raises:
        CheckpointError: A checkpoint is missing, damaged or of another version.
        RecipeError: A teacher lacks a class of the corpus, or may have been trained on the student's test images.
    """

    def __init__(self, part: DistillPart, corpus: Corpus) -> None:
        super().__init__()
        self.temperature, self.mirror = part.temperature, part.mirror
        self.networks, self.normalizers = nn.ModuleList(), nn.ModuleList()
        self.specs: list[PreprocessSpec] = []
        self.columns: list[list[int]] = []  # of each teacher's logits, by the corpus's classes
        for path in part.teachers:
            network, info = _open_teacher(path)
            self.columns.append(_match_teacher(path, info, corpus))
            self.networks.append(network)
            self.normalizers.append(Normalize(info.preprocess))
            self.specs.append(info.preprocess)

    def train(self, mode: bool = True) -> Teachers:
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        """Return softened probabilities (N, K) for augmented images (N, 1 or 3, H, W) in [0, 1]."""
        teachers = zip(self.networks, self.normalizers, self.columns, strict=True)
        return torch.stack([self._soften(network(normalize(x))[:, columns]) for network, normalize, columns in teachers]).mean(
            0
        )

    @torch.no_grad()
    def predict_all(self, loader: Loader, fabric: Fabric) -> Tensor:
        """Return softened probabilities (M, K) for every image of a loader, preprocessed as for evaluation.

        Each process predicts its share of the rows. All views of a row have the probabilities of its unchanged image, with
        `distill.mirror` the mean of those and of its mirror image's.
        """
        share = slice(fabric.global_rank, None, fabric.world_size)
        images = Loader(loader.corpus, loader.rows[share], torch.device("cpu"))
        probs = torch.zeros(len(loader.rows), len(loader.corpus.classes), device=loader.device)
        for network, spec, columns in zip(self.networks, self.specs, self.columns, strict=True):
            with fabric.autocast():
                parts = [self._predict(network, x.to(loader.device), columns) for x in images.inputs(spec, BATCH)]
            probs[share] += torch.cat(parts) / len(self.networks)
        return loader.repeat(fabric.all_reduce(probs, reduce_op="sum"))  # type: ignore[arg-type]

    def _predict(self, network: nn.Module, x: Tensor, columns: list[int]) -> Tensor:
        views = (x, x.flip(-1)) if self.mirror else (x,)
        return torch.stack([self._soften(network(view)[:, columns]) for view in views]).mean(0)

    def _soften(self, logits: Tensor) -> Tensor:
        return (logits.float() / self.temperature).softmax(1)


class OnnxModule(nn.Module):
    """An exported network as a module that cannot be trained, run by ONNX Runtime.

    Args:
        backend: The opened file.
    """

    def __init__(self, backend: OnnxBackend) -> None:
        super().__init__()
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, K) for inputs (N, C, h, w), on the device of the inputs."""
        return torch.from_numpy(self.backend.logits(x.float().cpu().numpy())).to(x.device)


def _open_teacher(path: str) -> tuple[nn.Module, ModelInfo]:
    """Return a teacher and its facts from a checkpoint, an exported file or the name of a bundled model."""
    if is_named(path) or path.endswith(".onnx"):
        backend = OnnxBackend(resolve(path), threads=torch.get_num_threads())
        return OnnxModule(backend), backend.info
    network, info = load_checkpoint(path)
    return network.requires_grad_(False).to(memory_format=torch.channels_last), info


def _match_teacher(path: str, info: ModelInfo, corpus: Corpus) -> list[int]:
    """Return the outputs of a teacher that the corpus's classes have; refuse a teacher that lacks one or knows the test."""
    found = mapping(corpus.classes, info.classes)
    columns = [column for column in found if column is not None]
    if len(columns) < len(found):
        missing = [name for name, column in zip(corpus.classes, found, strict=True) if column is None]
        raise RecipeError(
            f"distill.teachers: {path} does not have {', '.join(missing)} (it has the classes {', '.join(info.classes)}); "
            "choose a teacher that has every class of this corpus"
        )
    data = info.recipe.get("data", {})
    official = corpus.protocol == "official" and not data.get("protocol")
    same = info.data_fingerprint == corpus.fingerprint or (data.get("corpus") == corpus.name and not official)
    if same and info.split_fingerprint != corpus.split_fingerprint:
        raise RecipeError(
            f"distill.teachers: {path} was trained on another split of {corpus.name}, so it may have seen this run's test "
            "images; train it with the same data.protocol"
        )
    return columns
