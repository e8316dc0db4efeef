"""One network for many requests: what they ask for at the same time is computed as one batch."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from mien.model_info import ModelInfo
from mien.predict.backend import Backend

MAX_BATCH = 256
"""Faces of a batch from which no further request joins it."""


class BatchingBackend:
    """A backend whose callers, each in a thread of its own, share the batches of another backend.

    Nobody waits for company: while one batch is computed, the requests that arrive queue up and form the next. So a batch is as
    large as the server is busy, and a lone request is answered at once.

    Args:
        backend: The network.
        on_batch: Called with the number of faces of each batch.
    """

    def __init__(self, backend: Backend, on_batch: Callable[[int], None] | None = None) -> None:
        self.backend = backend
        self._on_batch = on_batch
        self._waiting: queue.SimpleQueue[tuple[NDArray[np.float32], Future[NDArray[np.float32]]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="mien-batches", daemon=True)
        self._thread.start()

    @property
    def info(self) -> ModelInfo:
        """The network's classes, preprocessing and provenance."""
        return self.backend.info

    @property
    def device(self) -> str:
        """What the network runs on."""
        return self.backend.device

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the logits, float32 (N, K), of preprocessed crops, float32 (N, C, h, w)."""
        answer: Future[NDArray[np.float32]] = Future()
        self._waiting.put((batch, answer))
        return answer.result()

    def close(self) -> None:
        """Finish what waits, and end the thread. Later calls would wait forever."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        last = False
        while not last:
            entries = []
            entry = self._waiting.get()
            while entry is not None:
                entries.append(entry)
                if sum(len(batch) for batch, _ in entries) >= MAX_BATCH:
                    break
                try:
                    entry = self._waiting.get_nowait()
                except queue.Empty:
                    break
            else:
                last = True
            if entries:
                self._answer([batch for batch, _ in entries], [answer for _, answer in entries])

    def _answer(self, batches: list[NDArray[np.float32]], answers: list[Future[NDArray[np.float32]]]) -> None:
        try:
            logits = self.backend.logits(np.concatenate(batches))
        except Exception as error:  # belongs to those who wait, whatever it is
            for answer in answers:
                answer.set_exception(error)
            return
        if self._on_batch is not None:
            self._on_batch(len(logits))
        ends = np.cumsum([len(batch) for batch in batches])[:-1]
        for answer, part in zip(answers, np.split(logits, ends), strict=True):
            answer.set_result(part)
