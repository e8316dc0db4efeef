"""The client examples, the systemd unit and the Dockerfile, as far as this machine can run them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Running = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], str, Path]]]


@pytest.fixture(scope="module")
def address(running: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("server")) as (_, address, _):
        yield address


@pytest.mark.parametrize(("program", "example"), [(sys.executable, "client.py"), (shutil.which("node"), "client.mjs")])
def test_an_example_prints_the_faces_of_a_picture(address: str, program: str | None, example: str) -> None:
    if program is None:
        pytest.skip("node is not installed")
    command = [program, f"examples/{example}", "docs/assets/astronaut.jpg", address]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert re.fullmatch(r"happy 0\.9\d+ ?\n", done.stdout)
    command[2] = "README.md"  # which is not a picture
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "mien reads" in done.stderr if example == "client.mjs" else "422" in done.stderr


@pytest.mark.parametrize("example", ["client.py", "client.mjs"])
def test_the_page_shows_the_examples(example: str) -> None:
    text = (ROOT / "examples" / example).read_text(encoding="utf-8")
    assert f"\n{text}```\n" in (ROOT / "docs/server.md").read_text(encoding="utf-8")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_the_unit_is_valid_and_hardened(tmp_path: Path) -> None:
    unit = tmp_path / "mien.service"
    text = (ROOT / "deploy/mien.service").read_text(encoding="utf-8")
    unit.write_text(text.replace("/opt/mien/bin/mien", sys.executable))  # verify wants the program to be there
    checked = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert "mien.service" not in checked.stderr
    rated = ["systemd-analyze", "security", "--offline=true", "--threshold=20", str(unit)]
    done = subprocess.run(rated, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout  # an exposure of at most 2.0 of 10


MACHINE = """
echo $$ > "$1/cgroup.procs"; shift
exec unshare --cgroup --net --mount --pid --ipc --uts --fork --kill-child sh -ec '
  cp -r "$1/." /opt; mount --bind "$2" /opt/python; mount --bind "$3" /opt/site; mount --bind "$4" /opt/source
  mount -t tmpfs -o mode=755 tmpfs /run; mount -t tmpfs tmpfs /tmp; mount -t tmpfs tmpfs /var/tmp
  umount -R /sys/fs/cgroup; mount -t cgroup2 cgroup2 /sys/fs/cgroup; mount -t proc proc /proc
  mount --bind /dev/null /dev/console; mount --bind /dev/null /dev/kmsg
  mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys; mount -o remount,bind,ro /
  ip link set lo up; ip address add 192.0.2.1 dev lo
  exec env -i container=test PATH="$PATH" SYSTEMD_UNIT_PATH=/opt/units SYSTEMD_GENERATOR_PATH=/opt/units \\
    SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/opt/units /usr/lib/systemd/systemd --system --unit=mien.service
' sh "$@"
"""
"""A machine by hand, whose first process is systemd with one unit. Its /opt/mien is this Python with its packages and mien."""

MIEN = f"""#!/bin/sh
export PYTHONPATH=/opt/source:/opt/site LD_LIBRARY_PATH=/opt/python/lib
exec /opt/python/bin/python3.{sys.version_info.minor} -m mien "$@"
"""

CALL_OUT = "from socket import *; near = create_server(('192.0.2.1', 0)); create_connection(near.getsockname(), 1)"


def can_boot() -> bool:
    """Whether this is root with systemd and may start one in namespaces of its own."""
    if any(shutil.which(name) is None for name in ("systemctl", "unshare", "nsenter", "setpriv", "ip")) or os.geteuid() != 0:
        return False
    mount = ["unshare", "--cgroup", "--net", "--mount", "--pid", "--fork", "mount", "-t", "tmpfs", "tmpfs", "/opt"]
    return Path("/usr/lib/systemd/systemd").exists() and subprocess.run(mount, capture_output=True).returncode == 0


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A control group for the test's processes."""
    find = ["findmnt", "--noheadings", "--first-only", "--output=TARGET", "--types=cgroup2"]
    root = subprocess.run(find, capture_output=True, text=True, timeout=60, check=True).stdout.strip()
    cgroup = Path(root) / f"mien-test-{os.getpid()}"
    cgroup.mkdir()
    yield cgroup
    for folder, _, _ in os.walk(cgroup, topdown=False):
        Path(folder).rmdir()


@pytest.mark.slow
@pytest.mark.skipif(not can_boot(), reason="needs Linux, root, systemd and the right to start it in namespaces of its own")
def test_systemd_runs_the_unit_in_its_sandbox(tmp_path: Path, cgroup: Path) -> None:
    for name in ("python", "site", "source", "mien/bin", "units"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "mien/bin/mien").write_text(MIEN)
    (tmp_path / "mien/bin/mien").chmod(0o755)
    shutil.copy(ROOT / "deploy/mien.service", tmp_path / "units")
    for name in ("sysinit", "basic", "shutdown"):
        (tmp_path / f"units/{name}.target").write_text("[Unit]\nDefaultDependencies=no\n")
    packages = Path(pytest.__file__).parents[1]
    machine = subprocess.Popen(["sh", "-ec", MACHINE, "sh", cgroup, tmp_path, sys.base_prefix, packages, ROOT / "src"])

    def inside(process: str, *command: str) -> subprocess.CompletedProcess[str]:
        enter = ["nsenter", "--target", process, *command]
        return subprocess.run(enter, cwd=ROOT, capture_output=True, text=True, timeout=60)

    def answering() -> str:
        """Return the server's process once it answers."""
        deadline = time.monotonic() + 120
        while True:
            assert machine.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
            with suppress(OSError, ValueError):
                (main,) = (cgroup / "system.slice/mien.service/cgroup.procs").read_text().split()
                done = inside(main, "--net", sys.executable, "examples/client.py", "docs/assets/astronaut.jpg")
                if done.stdout.startswith("happy 0.9"):
                    return main

    try:
        main = answering()
        status = Path(f"/proc/{main}/status").read_text()
        user = re.findall(r"^Uid:\t(\d+)(?:\t\1){3}$", status, re.MULTILINE)[0]
        assert 61184 <= int(user) <= 65519  # systemd's range for users that exist while a unit runs
        assert re.search(r"^CapBnd:\t0+\n(.*\n)*NoNewPrivs:\t1\nSeccomp:\t2$", status, re.MULTILINE)

        mounts = [line.split()[4] for line in Path(f"/proc/{main}/mountinfo").read_text().splitlines()]
        write = 'for folder in "$@"; do touch "$folder/file" 2> /dev/null && echo "$folder"; done; true'
        as_user = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "sh", "-c", write, "sh"]
        written = inside(main, "--mount", *as_user, *mounts, "/etc", "/home", "/opt/mien", "/var/lib").stdout.split()
        assert {*written} == {"/tmp", "/var/tmp"}

        call, join = [sys.executable, "-c", CALL_OUT], 'echo $$ > "$1"; shift; exec "$@"'
        assert inside(main, "--net", *call).returncode == 0
        unit = str(cgroup / "system.slice/mien.service/cgroup.procs")
        assert "timed out" in inside(main, "--net", "sh", "-c", join, "sh", unit, *call).stderr

        os.kill(int(main), signal.SIGKILL)
        assert answering() != main
        first = Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().strip()
        assert inside(first, "--all", "systemctl", "stop", "mien").returncode == 0
        state = inside(first, "--all", "systemctl", "show", "mien", "--property=ActiveState,Result").stdout
        assert {*state.split()} == {"ActiveState=inactive", "Result=success"}
    finally:
        for first in Path(f"/proc/{machine.pid}/task/{machine.pid}/children").read_text().split():
            os.kill(int(first), signal.SIGKILL)  # and with it all that it started
        machine.wait(60)


def test_the_commands_of_the_image_and_the_unit_are_commands_of_mien() -> None:
    """And the image's user is not root, and what it copies exists."""
    from mien.cli.serve import serve  # noqa: F401 -- the command

    image = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
    assert re.search(r"^USER [1-9]\d*$", image, re.MULTILINE)
    (entry,) = re.findall(r"^ENTRYPOINT (.*)$", image, re.MULTILINE)
    unit = (ROOT / "deploy/mien.service").read_text(encoding="utf-8")
    (start,) = re.findall(r"^ExecStart=/opt/mien/bin/mien (.*)$", unit, re.MULTILINE)
    for options in (re.findall(r'"([^"]*)"', entry)[1:], start.split()):
        done = subprocess.run([sys.executable, "-m", "mien", *options, "--help"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    for line in (ROOT / "deploy/Dockerfile.dockerignore").read_text(encoding="utf-8").split():
        assert line == "*" or (ROOT / line[1:]).exists()


SANDBOX = """
root=$1 user=$2; shift 2
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root"
mount -t tmpfs tmpfs "$root/tmp"; mount -t proc proc "$root/proc"; mount --rbind /dev "$root/dev"
ip link set lo up
exec setpriv --no-new-privs chroot --userspec="$user" --groups= "$root" env -i "$@"
"""
"""A container by hand: a read-only root with a temporary folder, and a network of its own that leads nowhere."""


def buildah(*arguments: str) -> str:
    return subprocess.run(["buildah", *arguments], capture_output=True, text=True, timeout=600, check=True).stdout.strip()


@pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("buildah", "unshare", "nsenter", "setpriv", "ip"))
    or os.geteuid() != 0
    or not buildah("images", "--quiet", "--filter", "reference=localhost/mien"),
    reason="needs Linux, root, and an image from: buildah bud -f deploy/Dockerfile -t mien .",
)
def test_the_image_answers_without_rights_network_or_disk(tmp_path: Path) -> None:
    config, log = json.loads(buildah("inspect", "--type", "image", "localhost/mien"))["Docker"]["config"], tmp_path / "log"
    container, server = buildah("from", "--pull-never", "localhost/mien"), None
    try:
        spaces = ["unshare", "--net", "--mount", "--pid", "--ipc", "--fork", "--kill-child"]
        sandbox = ["sh", "-ec", SANDBOX, "sh", buildah("mount", container), config["User"]]
        with log.open("wb") as file:
            server = subprocess.Popen([*spaces, *sandbox, *config["Env"], *config["Entrypoint"]], stdout=file, stderr=file)
        while "Uvicorn running" not in log.read_text():
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
        process = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().strip()
        status = Path(f"/proc/{process}/status").read_text()
        assert re.search(rf"^Uid:(\t{config['User']}){{4}}$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)

        def inside(*command: str) -> str:
            enter = ["nsenter", "--target", process, "--net", *command]
            return subprocess.run(enter, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True).stdout

        assert inside(sys.executable, "examples/client.py", "docs/assets/astronaut.jpg").startswith("happy 0.9")
        inside("nsenter", "--target", process, "--mount", "--root", "env", *config["Env"], *config["Healthcheck"]["Test"][1:])
        os.kill(int(process), signal.SIGTERM)
        assert server.wait(120) == 0
    finally:
        if server is not None and server.poll() is None:
            server.kill()
        buildah("rm", container)
