"""The Ray engine on a local cluster of two nodes, whose workers and whose driver are killed.

`MIEN_KILLS=20` repeats the kills so many times, at random moments.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from crops import read, write_crops

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
]
pytest.importorskip("ray", reason="Ray is not installed")

ROUNDS = int(os.environ.get("MIEN_KILLS", "1"))

STARTS = 3
"""How often to start Ray, whose own limit of 30 s for that cannot be set."""

CLUSTER = """
import os, sys
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
cluster.add_node(num_cpus=1)
print("address", cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def actors(session: str) -> list[int]:
    """Return the ids of the processes that hold a model, of the cluster at this address."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            is_actor = command.read_bytes().startswith((b"ray::MapWorker", b"ray::_MapWorker"))  # Ray 2.40
            if is_actor and session.encode() in command.with_name("environ").read_bytes():
                found.append(int(command.parent.name))
    return found


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment that leads to a cluster of two nodes; `MIEN_TEST` in it marks the cluster's processes."""
    environment = os.environ | {"MIEN_TEST": str(tmp_path), "RAY_worker_niceness": "0"}  # else a busy machine starves them
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    for _ in range(STARTS):
        printed = ""
        with subprocess.Popen([sys.executable, "-c", CLUSTER], env=environment, **pipes) as cluster:
            while line := cluster.stdout.readline():
                if line.startswith("address "):
                    yield environment | {"RAY_ADDRESS": line.split()[1]}
                    cluster.communicate(timeout=60)
                    return
                printed += line
        if "timed out during startup" not in printed:
            pytest.fail(printed)
    pytest.skip(f"this machine is too busy for Ray, which took more than 30 s to start, {STARTS} times")


def test_workers_and_the_driver_killed_on_a_cluster_of_two_nodes(
    tmp_path: Path, tiny_onnx: Path, environment: dict[str, str]
) -> None:
    pictures = 60 * (1 + ROUNDS)
    folder, out = write_crops(tmp_path / "in", pictures), tmp_path / "out"
    arguments = ["label", folder, "--out", out, "--no-detect", "--engine", "ray", "--unit-size", "3", "--model", tiny_onnx]
    command = [sys.executable, "-m", "mien", *map(str, arguments)]

    def wait_for(parts: int) -> None:
        while job.poll() is None and len(list(out.glob("faces/part*"))) < parts:
            time.sleep(0.01)
        assert job.poll() is None, job.stderr and job.stderr.read()

    for _ in range(ROUNDS):
        begun = len(list(out.glob("faces/part*")))
        with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as job:
            wait_for(begun + random.randint(1, 4))
            while not (found := actors(f"MIEN_TEST={tmp_path}")):  # Ray renames its processes, and replaces them
                assert job.poll() is None, job.stderr and job.stderr.read()
            os.kill(random.choice(found), signal.SIGKILL)
            wait_for(begun + random.randint(8, 12))
            job.kill()
    begun = len(list(out.glob("faces/part*")))
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0, again.stderr
    assert f"{pictures} faces of {pictures} pictures and videos to {out}" in again.stdout
    assert begun >= 8
    assert read(out) == ([f"{folder}/{i:03d}.png" for i in range(pictures)], [])
