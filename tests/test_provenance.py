import os
import subprocess
import sys
from pathlib import Path

import pytest

from mien.provenance import available_cores, core_quotas

ASTRONAUT = Path(__file__).parents[1] / "docs/assets/astronaut.jpg"


def write_groups(root: Path, groups: str, **quotas: str) -> Path:
    """Write control groups as Linux shows them under `proc` and `sys`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(groups)
    for path, value in quotas.items():
        folder = root / "sys/fs/cgroup" / path
        folder.mkdir(parents=True, exist_ok=True)
        if len(value.split()) == 2 and not path.startswith("cpu"):
            (folder / "cpu.max").write_text(value + "\n")
        else:
            for name, part in zip(("quota", "period"), value.split(), strict=True):
                (folder / f"cpu.cfs_{name}_us").write_text(part + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "quotas", "expected"),
    [
        ("0::/\n", {".": "50000 100000"}, [0.5]),  # version 2, in a container
        ("0::/\n", {".": "max 100000"}, []),
        ("0::/a/b\n", {"a/b": "max 100000", "a": "300000 200000"}, [1.5]),  # a parent's quota counts
        ("0::/a/b\n", {"a/b": "100000 100000", "a": "300000 100000"}, [1, 3]),
        ("0::/../../a\n", {".": "200000 100000"}, [2]),  # a group outside the container's namespace
        ("4:memory:/x\n1:cpu:/a\n", {"cpu/a": "50000 100000", "cpu": "-1 100000"}, [0.5]),  # version 1
        ("2:cpu,cpuacct:/docker/0123\n", {"cpu": "250000 100000"}, [2.5]),
        ("3:cpuset:/a\n0::/\n", {"cpu/a": "50000 100000"}, []),  # the group of another controller
        ("1:cpu:/\n0::/a\n", {"unified/a": "50000 100000"}, [0.5]),  # both versions
    ],
)
def test_quotas_of_control_groups(tmp_path: Path, groups: str, quotas: dict[str, str], expected: list[float]) -> None:
    assert core_quotas(write_groups(tmp_path, groups, **quotas)) == expected


def test_other_systems_have_no_quota(tmp_path: Path) -> None:
    assert core_quotas(tmp_path) == []


def test_half_a_core_is_one_and_more_than_there_are_are_those(monkeypatch: pytest.MonkeyPatch) -> None:
    there_are = available_cores()
    for quotas, expected in (([0.5], 1), ([1.0], 1), ([1e6, 2e6], there_are), ([], there_are)):
        monkeypatch.setattr("mien.provenance.core_quotas", lambda quotas=quotas: quotas)
        assert available_cores() == expected


CODE = f"""
import os
{{prepare}}
import mien, mien.provenance
{{quota}}
from mien.cli import set_environment
set_environment()
recognizer = mien.Recognizer()
photo = mien.read_image({str(ASTRONAUT)!r})
recognizer.predict(photo)
recognizer.predict_faces([photo] * 16)
print(mien.provenance.available_cores(), recognizer.backend.threads, len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity of processes")
def test_on_one_core_no_thread_is_started() -> None:
    """Neither by ONNX Runtime for the network and the detector, nor by the pool for large batches, nor by OpenBLAS."""
    one = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})"
    half = "mien.provenance.core_quotas = lambda: [0.5]"
    for code in (CODE.format(prepare=one, quota=""), CODE.format(prepare="os.environ['OMP_NUM_THREADS'] = '1'", quota=half)):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "1 1 1\n"


def test_no_pool_counts_the_cores_of_the_machine() -> None:
    sources = (Path(__file__).parents[1] / "src/mien").rglob("*.py")
    assert {path.name for path in sources if "cpu_count" in path.read_text()} == {"provenance.py"}
