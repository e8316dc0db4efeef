"""The images of a split on their way to the device: all there from the start, or read from the cache as they are needed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mien.datasets import Corpus
from mien.preprocess import PreprocessSpec, preprocess

RESIDENT = 1 << 29
"""Bytes of images that are kept in memory; a GPU keeps up to `RESIDENT_GPU`."""
RESIDENT_GPU = 1 << 34
INPUT_BYTES = 1 << 23
"""Bytes of the images, or of the inputs, that are made at a time for evaluation."""


def is_resident(corpus: Corpus, count: int, device: torch.device) -> bool:
    """Return whether that many of a corpus's images are kept in a device's memory."""
    size = count * int(np.prod(corpus.images.shape[1:]))
    return size <= (RESIDENT_GPU if device.type == "cuda" else RESIDENT)


class Feed:
    """Images and targets of some rows of a corpus, a batch at a time.

    A split that fits lies on the device as uint8. A larger one stays in the cache on disk, and a thread reads the next batch
    while the device works on this one, so memory does not grow with the corpus.

    Args:
        corpus: The corpus.
        rows: Row numbers of the split, (M,).
        device: Where batches are wanted.

    Attributes:
        target: Class index of each row, int64 (M,), on the device.
        votes: Votes of each row, float32 (M, K), on the device, or None.
    """

    def __init__(self, corpus: Corpus, rows: NDArray[np.int64], device: torch.device) -> None:
        self.rows, self.device, self.corpus = rows, device, corpus
        self.target = torch.from_numpy(corpus.target[rows]).to(device)
        self.votes = None if corpus.rows.votes is None else torch.from_numpy(corpus.rows.votes[rows]).to(device)
        self.resident: Tensor | None = None
        if is_resident(corpus, len(rows), device):
            self.resident = torch.from_numpy(corpus.read(rows)).to(device)

    def __len__(self) -> int:
        return len(self.rows)

    def batches(self, order: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield, for each part of `order` (places in `rows`, on the CPU), the images, uint8, and the places, on the device."""
        if self.resident is not None:
            for part in order:
                places = part.to(self.device)
                yield self.resident[places], places
            return
        with ThreadPoolExecutor(1) as pool:
            waiting: tuple[Tensor, Future[Tensor]] | None = None
            for part in order:
                later = part, pool.submit(self._read, part)
                if waiting is not None:
                    yield self._arrived(*waiting)
                waiting = later
            if waiting is not None:
                yield self._arrived(*waiting)

    def _arrived(self, part: Tensor, images: Future[Tensor]) -> tuple[Tensor, Tensor]:
        return images.result().to(self.device, non_blocking=True), part.to(self.device)

    def _read(self, part: Tensor) -> Tensor:
        return torch.from_numpy(self.corpus.read(self.rows[part.numpy()]))


def inputs_of(feed: Feed, spec: PreprocessSpec, most: int = 512) -> Iterator[Tensor]:
    """Yield a network's inputs of a whole feed on the CPU, (batch, C, h, w), as evaluation makes them, in order.

    Args:
        feed: The images.
        spec: How they are prepared.
        most: Images of a batch at most; `INPUT_BYTES` is the other limit.
    """
    size = max(4 * spec.channels * spec.size[0] * spec.size[1], int(np.prod(feed.corpus.images.shape[1:])))
    batch = max(1, min(most, INPUT_BYTES // size))
    for images, _ in feed.batches(torch.arange(len(feed)).split(batch)):
        yield torch.from_numpy(preprocess(list(images.numpy()), spec))
