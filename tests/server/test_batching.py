import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from mien.errors import CheckpointError
from mien.server.batching import MAX_BATCH, Batcher
from mien.server.uploads import Upload


class Slow:
    """A network whose first batch takes until `go` is set."""

    def __init__(self) -> None:
        self.go, self.sizes = threading.Event(), list[int]()

    def __call__(self, uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        self.sizes.append(len(uploads))
        assert self.go.wait(10)
        if any(upload.name == "broken" for upload in uploads):
            raise CheckpointError("the network fails")
        return [{"source": upload.name} for upload in uploads]


def _uploads(number: int) -> list[Upload]:
    return [Upload(f"{i} of {number}", b"") for i in range(number)]


def test_requests_that_wait_share_a_batch_and_get_their_own_answers() -> None:
    slow = Slow()

    async def ask() -> list[list[dict[str, Any]]]:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(slow, executor, batches=1)
            tasks = [asyncio.create_task(batcher.answer(_uploads(1)))]
            while not slow.sizes:
                await asyncio.sleep(0)
            tasks += [asyncio.create_task(batcher.answer(_uploads(n))) for n in (2, 3, MAX_BATCH, 4)]
            await asyncio.sleep(0.01)
            tasks[2].cancel()  # a client that goes away takes no other's answer with it
            slow.go.set()
            return [await task for task in tasks if task is not tasks[2]]

    answers = asyncio.run(ask())
    assert slow.sizes == [1, 2 + 3 + MAX_BATCH, 4]
    for n, answer in zip((1, 2, MAX_BATCH, 4), answers, strict=True):
        assert answer == [{"source": upload.name} for upload in _uploads(n)]


def test_a_slow_batch_does_not_hold_up_the_next() -> None:
    waiting = threading.Event()

    def recognize(uploads: Sequence[Upload]) -> list[dict[str, Any]]:
        if uploads[0].name == "slow":
            assert waiting.wait(10)
        return [{"source": upload.name} for upload in uploads]

    async def ask() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(2) as executor:
            batcher = Batcher(recognize, executor)
            slow = asyncio.create_task(batcher.answer([Upload("slow", b"")]))
            await asyncio.sleep(0)
            quick = await asyncio.wait_for(batcher.answer([Upload("quick", b"")]), 10)
            waiting.set()
            return [*quick, *await slow]

    assert asyncio.run(ask()) == [{"source": "quick"}, {"source": "slow"}]


def test_an_error_of_the_network_reaches_who_asked_and_the_next_request_works() -> None:
    slow = Slow()
    slow.go.set()

    async def ask() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(1) as executor:
            batcher = Batcher(slow, executor)
            with pytest.raises(CheckpointError, match="the network fails"):
                await batcher.answer([Upload("broken", b"")])
            return await batcher.answer(_uploads(1))

    assert asyncio.run(ask()) == [{"source": "0 of 1"}]
