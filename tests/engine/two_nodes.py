"""Run `mien train` in pairs of processes with the environment that torchrun gives them: `python two_nodes.py PLAN.json`.

The plan has, by name, the two processes of each pair: their arguments, their environment and, if they have one, their network
namespace and the epoch in which they die. The program imports mien once and then forks, which saves most of the time. It writes
NAME-RANK.log and status.json, the exit statuses, next to the plan.
"""

import ctypes
import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

import matplotlib.pyplot  # noqa: F401 (imported here, so that not every process imports them)
import torch.utils.tensorboard  # noqa: F401

import mien.cli
import mien.engine.nodes
from mien.engine.train import Run

CLONE_NEWNET, CLONE_NEWUTS = 0x40000000, 0x04000000  # of linux/sched.h


def start(process: dict, rank: int, log: Path) -> int:
    """Fork a process of the plan and return its id."""
    if pid := os.fork():
        return pid
    status = 1
    signal.alarm(300)  # a process that waits for another in vain
    try:
        output = os.open(log, os.O_WRONLY | os.O_CREAT)
        os.dup2(output, 1), os.dup2(output, 2)
        os.environ |= process["environment"]
        if "namespace" in process:
            libc = ctypes.CDLL(None, use_errno=True)
            with Path("/run/netns", process["namespace"]).open() as namespace:
                assert libc.setns(namespace.fileno(), CLONE_NEWNET) == 0
            assert libc.unshare(CLONE_NEWUTS) == 0
            socket.sethostname(f"node-{rank}")
        if "dies" in process:
            die_in_epoch(process["dies"])
        mien.engine.nodes.SHARED_SECONDS = 1.0
        sys.argv = ["mien", *process["arguments"]]
        mien.cli.main()
        status = 0
    except SystemExit as error:
        status = error.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(status)


def die_in_epoch(number: int) -> None:
    """Make this process end, as a machine that loses its power, before the second batch of an epoch."""
    whole = Run._batch_indices

    def cut(run, seed):
        for step, indices in enumerate(whole(run, seed)):
            if seed == run.recipe.seed * 100_003 + number and step == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            yield indices

    Run._batch_indices = cut


def main() -> None:
    plan, out = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[1]).parent
    statuses = {}
    for name, pair in plan.items():
        running = [start(process, rank, out / f"{name}-{rank}.log") for rank, process in enumerate(pair)]
        statuses[name] = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in running]
    (out / "status.json").write_text(json.dumps(statuses))


if __name__ == "__main__":
    main()
