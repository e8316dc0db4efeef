"""Training in processes that torchrun started, on one node or several.

`meet` forms their group before anything is read. From then on, what is wrong on one node is reported on all of them: the
others would otherwise wait for it in vain.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from torch import distributed

from mien.atomic import atomic_path
from mien.errors import MienError, OutputError, RecipeError

T = TypeVar("T")

SHARED_SECONDS = 60.0
"""How long a node waits to see a file that another wrote: NFS may remember for this long that a file is not there."""

LOST = re.compile(r"by peer|refused|timed out|socket|broken pipe|NCCL|Gloo", re.IGNORECASE)
"""What errors of torch say when a process is gone; most are only `RuntimeError`."""


def torchrun_layout() -> tuple[int, int] | None:
    """Return the number of nodes and of processes on each, if torchrun started this process; otherwise None.

    Raises:
        RecipeError: The nodes run different numbers of processes.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    nodes, here, total = (int(os.environ[name]) for name in ("GROUP_WORLD_SIZE", "LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    if nodes * here != total:
        raise RecipeError(
            f"torchrun started {here} process(es) on this node, but {total} on {nodes} nodes; give every node the same "
            "--nproc-per-node"
        )
    return nodes, here


def meet() -> None:
    """Form the group of the processes that torchrun started; do nothing in others.

    Raises:
        MienError: The other nodes cannot be reached.
    """
    if torchrun_layout() is not None and not distributed.is_initialized():
        with report_lost_processes(
            "Open the firewalls of the nodes to each other, and set GLOO_SOCKET_IFNAME (with GPUs also NCCL_SOCKET_IFNAME) to "
            "the network interface that connects them, such as eth0"
        ):
            distributed.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")


def gather(value: T) -> dict[str, T]:
    """Return the value of every process by rank and host, such as `rank 1 (host)`; rank 0 comes first."""
    own = f"({socket.gethostname()})", value
    found = [own]
    if distributed.is_available() and distributed.is_initialized():
        found *= distributed.get_world_size()
        distributed.all_gather_object(found, own)
    return {f"rank {rank} {host}": value for rank, (host, value) in enumerate(found)}


def in_every_process(action: Callable[[], T]) -> T:
    """Return what `action` returns. If it failed in any process, raise an error in all of them.

    Raises:
        MienError: The failure, with the rank and host of the process unless it is the same in all.
    """
    results, failure = list[T](), None
    try:
        results.append(action())
    except MienError as error:
        failure = error
    failures = gather(failure)
    for process, other in failures.items():
        if other is not None:
            same = len({str(each) for each in failures.values()}) == 1
            raise other if same else type(other)(f"{process}: {other}")
    return results[0]


def check_same(name: str, value: object, advice: str) -> None:
    """Check that a value is the same in every process.

    Raises:
        RecipeError: It is not; names the first process whose value differs from that of rank 0.
    """
    first, *others = gather(value).items()
    for process, other in others:
        if other != first[1]:
            raise RecipeError(f"{process} has another {name} ({other}) than {first[0]} ({first[1]}); {advice}")


def check_shared(out: Path) -> None:
    """Check that every process sees what rank 0 writes into the run's folder.

    Raises:
        OutputError: One does not, or the folder cannot be written.
    """
    first = not distributed.is_initialized() or distributed.get_rank() == 0
    probe = out / f".shared-{secrets.token_hex(4)}"  # a name that `remove_unfinished` knows

    def write() -> None:
        with atomic_path(probe) as tmp_path:
            tmp_path.touch()

    in_every_process(write if first else lambda: None)
    try:
        (writer, name), *_ = gather(probe.name).items()
        deadline = time.monotonic() + SHARED_SECONDS
        while not (seen := (out / name).exists()) and time.monotonic() < deadline:
            time.sleep(0.2)
        for process, sees in gather(seen).items():
            if not sees:
                raise OutputError(
                    f"{out}: {process} does not see what {writer} writes there; give --out a folder that all nodes share, "
                    "such as one on NFS"
                )
    finally:
        if first:
            probe.unlink(missing_ok=True)


@contextmanager
def report_lost_processes(
    advice: str = "With --max-restarts, torchrun resumes after the last complete epoch; without, start the same commands again",
) -> Iterator[None]:
    """Turn what torch raises when another process has ended, or cannot be reached, into an error that says what to do.

    Raises:
        MienError: Another process was lost; ends with `advice`.
    """
    try:
        yield
    except RuntimeError as error:
        if "RANK" not in os.environ or not (isinstance(error, distributed.DistError) or LOST.search(str(error))):
            raise
        reason = re.sub(r"\[/[^]]*\] ", "", str(error)).partition("\n")[0].partition(". ")[0]  # no source files
        raise MienError(
            f"another process of this training ended or cannot be reached ({reason}); read what other nodes report. {advice}"
        ) from error
