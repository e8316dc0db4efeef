"""Communication against computation when two nodes train one network.

    python -m benchmarks.nodes                         # needs Linux, root and iproute2 (ip, tc)
    python -m benchmarks.nodes --batch 64 --side 112

Two processes of one thread, in two network namespaces of this machine, are joined by a pair of virtual Ethernet devices, whose
rate `tc` limits. For each network:

- compute: processor time of forward, backward and optimizer step of one process, what a step takes on a core of its own
- all-reduce: time to add up all gradients over both processes, at each rate; the fastest counts, as other programs on the
  machine only make it slower
- wire: what the rate allows at best

The batch is that of one process.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import distributed, nn
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.record import Row, argument_parser, write_run
from benchmarks.timing import interleaved, milliseconds
from mien.models import create_model

RATES: dict[str, tuple[str | None, float]] = {
    "unlimited": (None, np.inf),
    "10 Gbit/s": ("10gbit", 1e10),
    "1 Gbit/s": ("1gbit", 1e9),
}
"""Rates of the link, as `tc` calls them and in bits per second."""

DEVICE = "veth0"


@contextmanager
def linked_namespaces() -> Iterator[list[str]]:
    """Yield the names of two network namespaces that reach each other at 10.77.0.1 and 10.77.0.2."""
    names = [f"mien-{os.getpid()}-{rank}" for rank in (0, 1)]
    ends = [["name", DEVICE, "netns", name] for name in names]
    commands = [["netns", "add", name] for name in names] + [["link", "add", *ends[0], "type", "veth", "peer", *ends[1]]]
    for rank, name in enumerate(names):
        commands += [["-n", name, "addr", "add", f"10.77.0.{1 + rank}/24", "dev", DEVICE]]
        commands += [["-n", name, "link", "set", device, "up"] for device in ("lo", DEVICE)]
    try:
        for command in commands:
            subprocess.run(["ip", *command], check=True)
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False)


def limit_rate(rate: str | None) -> None:
    """Limit what this namespace sends over its device."""
    subprocess.run(["tc", "qdisc", "del", "dev", DEVICE, "root"], capture_output=True)
    if rate is not None:
        limit = ["rate", rate, "burst", "1mb", "latency", "100ms"]
        subprocess.run(["tc", "qdisc", "add", "dev", DEVICE, "root", "tbf", *limit], check=True)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, target: torch.Tensor) -> None:
    """Take one training step."""
    optimizer.zero_grad()
    cross_entropy(model(x), target).backward()
    optimizer.step()


def prepare(name: str, arguments: argparse.Namespace) -> tuple[nn.Module, partial[None]]:
    """Return a network and a training step of it."""
    torch.manual_seed(0)
    model = create_model(name).train()
    side = [min(length, arguments.side) for length in model.input_size]
    x, target = torch.randn(arguments.batch, model.in_channels, *side), torch.arange(arguments.batch) % 7
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    return model, partial(step, optimizer=optimizer, x=x, target=target)


def measure(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what this process measured of a network, by rate of the link."""
    model, take_step = prepare(name, arguments)
    gradients = torch.zeros(sum(parameter.numel() for parameter in model.parameters()))
    core_seconds, found = list[float](), dict[str, Any]()
    for _ in range(1 + 3):
        before = time.process_time()
        take_step(model)
        core_seconds.append(time.process_time() - before)
    compute = float(np.median(core_seconds[1:]))
    for label, (rate, bits_per_second) in RATES.items():
        distributed.barrier()
        limit_rate(rate)
        distributed.barrier()
        call = {"all_reduce": partial(distributed.all_reduce, gradients)}
        seconds = interleaved(call, 1, 3 if arguments.quick else arguments.repeats)["all_reduce"]
        found[label] = {
            "all_reduce_ms": milliseconds(seconds),
            "wire_ms": round(1000 * 32 * len(gradients) / bits_per_second, 2),
            "all_reduce_per_compute": round(float(seconds.min()) / compute, 3),
        }
    return {"compute_core_ms": milliseconds(np.array(core_seconds[1:])), "rates": found}


def size(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the number of parameters of a network and the operations of a training step."""
    model, take_step = prepare(name, arguments)
    with FlopCounterMode(display=False) as counter:
        take_step(model)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "input": list(take_step.keywords["x"].shape),
        "gflop_per_image": round(counter.get_total_flops() / arguments.batch / 1e9, 3),
    }


def run_rank(rank: int, arguments: argparse.Namespace) -> None:
    """Measure as one of the two processes; rank 0 prints the figures as JSON."""
    os.environ["GLOO_SOCKET_IFNAME"] = DEVICE
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", "tcp://10.77.0.1:29500", rank=rank, world_size=2)
    found = {name: measure(name, arguments) for name in arguments.model.split(",")}
    distributed.destroy_process_group()
    if rank == 0:
        print(json.dumps(found))


def main() -> None:
    """Measure both networks, or be one of the two processes."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="sa_csp_ca,resnet50", help="registered models, with commas between")
    parser.add_argument("--batch", type=int, default=8, help="images of one process")
    parser.add_argument("--side", type=int, default=64, help="largest input, px per side")
    parser.add_argument("--repeats", type=int, default=20, help="all-reduces at each rate")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.rank is not None:
        run_rank(arguments.rank, arguments)
        return
    with linked_namespaces() as names:
        command = [sys.executable, "-m", "benchmarks.nodes", *sys.argv[1:]]
        processes = [
            subprocess.Popen(
                ["ip", "netns", "exec", name, *command, "--rank", str(rank)],
                stdout=subprocess.PIPE,
                text=True,
                cwd=Path(__file__).resolve().parent.parent,
            )
            for rank, name in enumerate(names)
        ]
        printed = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit("one of the two processes failed")
    found = {name: size(name, arguments) | measured for name, measured in json.loads(printed[0]).items()}
    rows: list[Row] = [
        (f"all-reduce / compute, {name}, {rate}", f"{read['all_reduce_per_compute']:.2f}", "")
        for name, network in found.items()
        for rate, read in network["rates"].items()
    ]
    del arguments.rank
    write_run("nodes", {"threads": 1, "networks": found}, rows, arguments)


if __name__ == "__main__":
    main()
