"""Training on several nodes: the result, the node that is lost, and what can differ between nodes."""

import csv
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from mien.engine.devices import create_fabric
from mien.errors import RecipeError
from mien.recipe import load_recipe

RECIPE = ["sa_csp_ca/fer2013", "--set", "model.name=dlib_resnet", "--set", 'model.arguments={"in_channels":1,"depth":1}']
RECIPE += ["--set", "train.batch_size=16", "--set", "train.compile=false", "--set", "optim.warmup_epochs=0"]
RECIPE += ["--precision", "32-true", "--epochs", "2", "--threads", "1"]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@dataclass(frozen=True)
class Outcome:
    """What the pairs of processes did.

    Attributes:
        folder: Where their runs are.
        statuses: The exit status of each process, by pair.
    """

    folder: Path
    statuses: dict[str, list[int]]

    def output(self, name: str, rank: int) -> str:
        """Return what a process printed."""
        return (self.folder / f"{name}-{rank}.log").read_text()


def free_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return str(server.getsockname()[1])


def torchrun(rank: int, address: str, port: str, interface: str) -> dict[str, str]:
    """Return the environment that torchrun gives the only process of a node, of two nodes."""
    same = {
        "TORCHELASTIC_RUN_ID": "none",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "1",
        "GROUP_WORLD_SIZE": "2",
        "LOCAL_RANK": "0",
    }
    same |= {"MASTER_ADDR": address, "MASTER_PORT": port, "GLOO_SOCKET_IFNAME": interface}
    return same | {"RANK": str(rank), "GROUP_RANK": str(rank)}


@pytest.fixture(scope="module")
def namespaces() -> Iterator[list[str]]:
    """Two network namespaces that see only each other, or an empty list."""
    names = [f"mien-{os.getpid()}-{rank}" for rank in (0, 1)]
    pair = ["name", "veth0", "netns", names[0], "type", "veth", "peer", "name", "veth0", "netns", names[1]]
    commands = [["netns", "add", name] for name in names] + [["link", "add", *pair]]
    for rank, name in enumerate(names):
        commands += [["-n", name, "addr", "add", f"10.77.0.{1 + rank}/24", "dev", "veth0"]]
        commands += [["-n", name, "link", "set", "veth0", "up"], ["-n", name, "link", "set", "lo", "up"]]
    made = shutil.which("ip") and all(subprocess.run(["ip", *c], capture_output=True).returncode == 0 for c in commands)
    yield names if made else []
    for name in names if shutil.which("ip") else []:
        subprocess.run(["ip", "netns", "del", name], capture_output=True)


@pytest.fixture(scope="module")
def outcome(namespaces: list[str], shared_fer2013_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Run every pair of processes once."""
    folder = tmp_path_factory.mktemp("nodes")
    other = folder / "other.csv"
    lines = shared_fer2013_csv.read_text().splitlines()
    other.write_text("\n".join([*lines[:-1], lines[-2]]) + "\n")
    plan: dict[str, list[dict[str, object]]] = {}

    def pair(name: str, *second: str, own: Sequence[dict[str, object]] = ({}, {}), out: str | None = None) -> None:
        """Add two processes: `second` are more arguments of the second, `own` replaces or adds parts of each."""
        port, arguments = (
            free_port(),
            ["train", *RECIPE, "--data", str(shared_fer2013_csv), "--out", str(folder / (out or name))],
        )
        plan[name] = [
            {"arguments": [*arguments, *(second if rank else [])], "environment": torchrun(rank, "127.0.0.1", port, "lo")}
            | own[rank]
            for rank in (0, 1)
        ]

    pair("local", own=[{"environment": {"MIEN_MEETING": str(folder / "met"), "LOCAL_RANK": rank}} for rank in ("0", "1")])
    for process in plan["local"]:
        process["arguments"] += ["--devices", "2"]
    pair("lost", own=({}, {"dies": 2}))
    pair("rejoined", out="lost")
    if namespaces:
        port = free_port()
        environments = [torchrun(rank, "10.77.0.1", port, "veth0") for rank in (0, 1)]
        pair("namespaces", own=[{"environment": environments[r], "namespace": namespaces[r]} for r in (0, 1)])
    pair("recipe", "--seed", "5")
    pair("corpus", "--data", str(other))
    pair("missing", "--data", str(folder / "missing.csv"))
    pair("folder", "--out", str(folder / "elsewhere"))
    (folder / "plan.json").write_text(json.dumps(plan))
    environment = os.environ | {"MIEN_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, Path(__file__).with_name("two_nodes.py"), folder / "plan.json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900)
    assert done.returncode == 0, done.stderr
    return Outcome(folder, json.loads((folder / "status.json").read_text()))


def check_refused(outcome: Outcome, name: str, error: str) -> None:
    """Check that both processes ended with an error of one line and wrote no run."""
    assert outcome.statuses[name] == [2, 2]
    for rank in (0, 1):
        assert re.fullmatch(rf"(\[Gloo\] .*\n)*error: {error}\n", outcome.output(name, rank))  # torch 2.8's Gloo greets
    assert not (outcome.folder / name / "recipe.yaml").exists()


def check_same_run(outcome: Outcome, name: str) -> None:
    """Check that a run is the one of two processes that mien itself started on this machine."""
    states = (torch.load(outcome.folder / run / "last.ckpt", weights_only=True) for run in ("local", name))
    expected, found = (state["objective"] for state in states)
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    histories = [
        list(csv.DictReader((outcome.folder / run / "history.csv").read_text().splitlines())) for run in ("local", name)
    ]
    assert [row["epoch"] for row in histories[1]] == ["1", "2"]
    for before, after in zip(*histories, strict=True):
        assert float(after["val_loss"]) == pytest.approx(float(before["val_loss"]), rel=1e-4)


def test_two_nodes_train_what_two_local_processes_do(outcome: Outcome) -> None:
    if "namespaces" not in outcome.statuses:
        pytest.skip("network namespaces need Linux, root and iproute2")
    assert outcome.statuses["local"] == outcome.statuses["namespaces"] == [0, 0]
    check_same_run(outcome, "namespaces")
    assert "epoch 2/2" in outcome.output("namespaces", 0)
    assert "epoch" not in outcome.output("namespaces", 1)
    (events,) = (outcome.folder / "namespaces").glob("events*")  # named after the host that wrote them
    assert "node-0" in events.name


def test_a_lost_process_is_reported_and_the_run_resumes(outcome: Outcome) -> None:
    assert outcome.statuses["lost"] == [2, -9]
    assert "epoch 1/2" in outcome.output("lost", 0)
    assert re.search(
        r"^error: another process of this training ended .* by peer.*--max-restarts", outcome.output("lost", 0), re.M
    )
    assert outcome.statuses["rejoined"] == [0, 0]
    assert "epoch 1/2" not in outcome.output("rejoined", 0)
    check_same_run(outcome, "lost")


def test_nodes_that_differ_are_named(outcome: Outcome) -> None:
    host, sha = re.escape(f"({socket.gethostname()})"), "[0-9a-f]{16}"
    check_refused(
        outcome, "recipe", rf"rank 1 {host} has another recipe \({sha}, seed 5\) than rank 0 {host} \({sha}, seed 0\); .*"
    )
    check_refused(outcome, "corpus", rf"rank 1 {host} has another corpus \({sha}\) than rank 0 {host} .* the same --data")
    check_refused(outcome, "missing", rf"rank 1 {host}: .*missing.csv: no such file or folder; .*")
    check_refused(outcome, "folder", rf".*: rank 1 {host} does not see what rank 0 {host} writes there; .*")
    assert not list((outcome.folder / "folder").glob(".*"))


def test_another_number_of_processes_than_torchrun_started(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in torchrun(0, "127.0.0.1", "1", "lo").items():
        monkeypatch.setenv(name, value)
    recipe = load_recipe("sa_csp_ca/fer2013")
    with pytest.raises(RecipeError, match=r"--devices 4: torchrun started 1 process\(es\) on this node; leave --devices out"):
        create_fabric(recipe, 4)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(RecipeError, match="3 on 2 nodes; give every node the same --nproc-per-node"):
        create_fabric(recipe)
