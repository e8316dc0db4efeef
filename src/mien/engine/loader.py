"""The images of a split on their way to the device: kept in memory if they fit, else read from the cache batch by batch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien.augment import Views
from mien.datasets import Corpus
from mien.preprocess import PreprocessSpec, preprocess

RESIDENT_BYTES = 1 << 29
"""Largest split kept in main memory, bytes."""

RESIDENT_BYTES_GPU = 1 << 34
"""Largest split kept in a GPU's memory, bytes."""

INPUT_BYTES = 1 << 23
"""Largest batch of images, or of network inputs, that evaluation prepares at a time, bytes."""


def fits_in_memory(corpus: Corpus, count: int, device: torch.device) -> bool:
    """Return whether `count` images of a corpus are small enough to keep in the device's memory."""
    size = count * int(np.prod(corpus.images.shape[1:]))
    return size <= (RESIDENT_BYTES_GPU if device.type == "cuda" else RESIDENT_BYTES)


class Loader:
    """Images and targets of some rows of a corpus, batch by batch.

    A split that fits is kept on the device as uint8. A larger one stays in the cache on disk. A thread then reads the next
    batch while the device works on the current one, so that memory does not grow with the corpus.

    Args:
        corpus: The corpus.
        rows: Row numbers of the split, (R,).
        device: Device of the batches.
        views: Number of fixed versions of each image (see `mien.augment.Views`). Image i of the loader is version `i % views`
            of row `rows[i // views]`, so a version is in the split of its image.

    Attributes:
        target: Class indices, int64 (M,), on the device; M is R times `views`.
        votes: Votes, float32 (M, K), on the device; None if the corpus has none.
        resident: The images of all rows, uint8 (R, H, W) or (R, H, W, 3), on the device; None if they do not fit.
    """

    def __init__(self, corpus: Corpus, rows: NDArray[np.int64], device: torch.device, views: int = 1) -> None:
        self.rows, self.device, self.corpus = rows, device, corpus
        self.views = Views(views).to(device)
        self.target = self.repeat(torch.from_numpy(corpus.target[rows])).to(device)
        self.votes = None if corpus.rows.votes is None else self.repeat(torch.from_numpy(corpus.rows.votes[rows])).to(device)
        self.resident: Tensor | None = None
        if fits_in_memory(corpus, len(rows), device):
            self.resident = torch.from_numpy(corpus.read(rows)).to(device)

    def __len__(self) -> int:
        return len(self.rows) * len(self.views)

    def repeat(self, values: Tensor) -> Tensor:
        """Return values of each image, (M, ...), from values of each row, (R, ...)."""
        return values.repeat_interleave(len(self.views), dim=0)

    def batches(self, index_batches: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the uint8 images and the indices of each batch, both on the device.

        Args:
            index_batches: For each batch, indices of its images, from 0 to M - 1, on the CPU.
        """
        if self.resident is not None:
            for indices in index_batches:
                on_device = indices.to(self.device)
                yield self._view(self.resident[on_device // len(self.views)], on_device), on_device
            return
        with ThreadPoolExecutor(1) as pool:
            waiting: tuple[Tensor, Future[Tensor]] | None = None
            for indices in index_batches:
                upcoming = indices, pool.submit(self._read, indices)
                if waiting is not None:
                    yield self._to_device(*waiting)
                waiting = upcoming
            if waiting is not None:
                yield self._to_device(*waiting)

    def inputs(self, spec: PreprocessSpec, max_batch: int = 512) -> Iterator[Tensor]:
        """Yield network inputs (n, C, h, w) of all images in order, on the CPU, preprocessed as for evaluation.

        Args:
            spec: The network's preprocessing.
            max_batch: Largest batch; `INPUT_BYTES` limits it as well.
        """
        bytes_per_image = max(4 * spec.channels * spec.size[0] * spec.size[1], int(np.prod(self.corpus.images.shape[1:])))
        batch = max(1, min(max_batch, INPUT_BYTES // bytes_per_image))
        for images, _ in self.batches(torch.arange(len(self)).split(batch)):
            yield torch.from_numpy(preprocess(list(images.numpy()), spec))

    def _read(self, indices: Tensor) -> Tensor:
        return torch.from_numpy(self.corpus.read(self.rows[indices.numpy() // len(self.views)]))

    def _to_device(self, indices: Tensor, images: Future[Tensor]) -> tuple[Tensor, Tensor]:
        on_device = indices.to(self.device)
        return self._view(images.result().to(self.device, non_blocking=True), on_device), on_device

    def _view(self, images: Tensor, indices: Tensor) -> Tensor:
        return images if len(self.views) == 1 else self.views(images, indices % len(self.views))
