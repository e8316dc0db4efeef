"""Workers and jobs that are killed with SIGKILL: nothing is lost and nothing is doubled."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from crops import read, write_crops

from mien.label import Report

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill like that")


def children(pid: int) -> list[int]:
    """Return the ids of the worker processes of a job."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(status.read_text().rpartition(")")[2].split()[1]) == pid:
                command = status.with_name("cmdline").read_bytes()
                found += [int(status.parent.name)] if b"spawn_main" in command else []
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_worker_and_the_job_are_killed_and_the_job_is_resumed(tmp_path: Path, tiny_onnx: Path) -> None:
    folder, out = write_crops(tmp_path / "in", 600), tmp_path / "out"
    arguments = ["label", folder, "--out", out, "--no-detect", "--workers", "2", "--unit-size", "4", "--model", tiny_onnx]
    command = [sys.executable, "-m", "mien", *map(str, arguments)]

    def wait_for(parts: int) -> None:
        while job.poll() is None and len(list(out.glob("faces/part*"))) < parts:
            time.sleep(0.01)

    with subprocess.Popen(command) as job:
        wait_for(3)
        os.kill(random.choice(children(job.pid)), signal.SIGKILL)
        wait_for(20)
        workers = children(job.pid)
        job.kill()
    assert gone(workers)  # they do not go on without it
    begun = len(list(out.glob("faces/part*")))
    assert 20 <= begun < 150
    again = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert f"600 faces of 600 pictures and videos to {out}, in 150 parts ({begun} by earlier runs)" in again.stdout, (
        again.stderr
    )
    assert read(out) == ([f"{folder}/{i:03d}.png" for i in range(600)], [])
    assert list(out.glob("faces/.*")) == []


def gone(pids: list[int]) -> bool:
    """Return whether processes end within a few seconds."""

    def is_alive(pid: int) -> bool:
        with suppress(OSError):
            return bool(Path(f"/proc/{pid}/cmdline").read_bytes())  # empty for one that has ended but is not collected
        return False

    end = time.monotonic() + 10
    while any(map(is_alive, pids)) and time.monotonic() < end:
        time.sleep(0.01)
    return not any(map(is_alive, pids))


def test_a_unit_that_kills_its_worker_three_times_is_an_error(label: Callable[..., Report], tmp_path: Path) -> None:
    """The test kills whoever writes the second part, each time it is begun."""
    folder, killed = write_crops(tmp_path / "in", 200), list[int]()
    done = threading.Event()

    def kill() -> None:
        while not done.is_set():
            if list((tmp_path / "out/faces").glob("*part-00001-*")) and (worker := multiprocessing.active_children()):
                killed.append(worker[0].pid or 0)
                worker[0].kill()
                worker[0].join()
                for file in (tmp_path / "out/faces").glob("*part-00001-*"):
                    file.unlink()
            time.sleep(0.001)

    threading.Thread(target=kill, daemon=True).start()
    try:
        report = label([folder], workers=1, unit_size=100)
    finally:
        done.set()
    sources, errors = read(tmp_path / "out")
    assert len(set(killed)) == 3
    assert (report.units, report.errors) == (2, 100)
    assert sources == [f"{folder}/{i:03d}.png" for i in range(100)]
    assert {(error["unit"], "was killed (SIGKILL) 3 times" in error["reason"]) for error in errors} == {(1, True)}
