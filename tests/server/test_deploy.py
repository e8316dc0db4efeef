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
from contextlib import AbstractContextManager
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
