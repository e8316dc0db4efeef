import threading

import numpy as np
import pytest
from numpy.typing import NDArray

from mien.errors import CheckpointError
from mien.model_info import ModelInfo
from mien.server.batching import BatchingBackend


class Slow:
    """A network whose first batch takes until `go` is set; its logits are the crops' first pixels."""

    device = "cpu"

    def __init__(self, info: ModelInfo) -> None:
        self.info, self.go, self.started, self.sizes = info, threading.Event(), threading.Event(), list[int]()

    def logits(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        self.started.set()
        assert self.go.wait(10)
        self.sizes.append(len(batch))
        if (batch == -1).any():
            raise CheckpointError("the network fails")
        return batch[:, 0, 0, :2]


def test_requests_that_wait_share_a_batch_and_get_their_own_rows(tiny_info: ModelInfo) -> None:
    slow = Slow(tiny_info)
    sizes = list[int]()
    backend = BatchingBackend(slow, sizes.append)
    batches = [np.full((n, 1, 4, 4), n, np.float32) for n in (1, 2, 3, 4)]
    answers = dict[int, NDArray[np.float32]]()

    def ask(batch: NDArray[np.float32]) -> None:
        answers[len(batch)] = backend.logits(batch)

    threads = [threading.Thread(target=ask, args=[batch]) for batch in batches]
    threads[0].start()
    assert slow.started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while backend._waiting.qsize() < 3:
        pass
    slow.go.set()
    for thread in threads:
        thread.join(10)
    backend.close()
    assert slow.sizes == sizes == [1, 9]
    for n, answer in answers.items():
        np.testing.assert_array_equal(answer, np.full((n, 2), n))


def test_an_error_of_the_network_reaches_who_asked_and_the_next_request_works(tiny_info: ModelInfo) -> None:
    slow = Slow(tiny_info)
    slow.go.set()
    backend = BatchingBackend(slow)
    with pytest.raises(CheckpointError, match="the network fails"):
        backend.logits(np.full((1, 1, 4, 4), -1, np.float32))
    assert backend.logits(np.ones((1, 1, 4, 4), np.float32)).tolist() == [[1, 1]]
    backend.close()
    assert not backend._thread.is_alive()
