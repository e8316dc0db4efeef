"""`mien serve` as a user starts it: a process, real sockets, signals."""

import json
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from mien import cli

ROOT = Path(__file__).parents[2]

Running = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], str, Path]]]


def ask(address: str, data: bytes | None = None) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(
            urllib.request.Request(address, data, {"Content-Type": "image/jpeg"}), timeout=60
        ) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def test_a_server_answers_and_finishes_what_it_accepted(running: Running, tmp_path: Path, photo: bytes) -> None:
    with running(tmp_path, "--limit", "upload_seconds=1", "--limit", "max_bytes=300000") as (process, address, log):
        host, port = address.removeprefix("http://").split(":")
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: ask(f"{address}/v1/pictures", photo), range(8)))
        assert {status for status, _ in answers} == {200}
        assert all(answer == answers[0][1] for _, answer in answers)

        with socket.create_connection((host, int(port))) as slow:  # a client that stops in the middle of its picture
            slow.sendall(b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
            assert slow.recv(100).startswith(b"HTTP/1.1 408")
        with socket.create_connection((host, int(port))) as large:
            large.sendall(b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n")
            assert large.recv(100).startswith(b"HTTP/1.1 413")
        with socket.create_connection((host, int(port))) as endless:  # its length is not declared
            endless.sendall(b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(5):
                endless.sendall(b"%x\r\n%s\r\n" % (100_000, bytes(100_000)))
            assert endless.recv(100).startswith(b"HTTP/1.1 413")
        with socket.create_connection((host, int(port))) as gone:
            gone.sendall(b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nabc")
        with connect(f"ws://{host}:{port}/v1/camera") as camera:
            camera.send(photo)
            assert len(json.loads(camera.recv())["faces"]) == 1

        with ThreadPoolExecutor(4) as pool:  # requests on their way when the server is told to stop
            last = [pool.submit(ask, f"{address}/v1/pictures", photo) for _ in range(4)]
            while 'status="200"} 8' in (text := urllib.request.urlopen(f"{address}/metrics").read().decode()):
                time.sleep(0.001)
            assert "mien_requests_total" in text
            process.send_signal(signal.SIGTERM)
            done = [future.result() for future in last]
        assert [status for status, _ in done] == [200] * 4
        process.wait(30)
        text = log.read_text()
    assert "Traceback" not in text
    assert "pictures" not in text  # no route, no file name
    assert list((tmp_path / "tmp").iterdir()) == []


def test_what_the_page_shows_works(running: Running, tmp_path: Path) -> None:
    page = (ROOT / "docs/server.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"<!-- run: server -->\n```python\n(.*?)```", page, re.DOTALL)
    commands = [line[2:] for line in page.splitlines() if line.startswith("$ curl")]
    pictures = [line for line in commands if "astronaut.jpg" in line]
    assert len(pictures) == 1
    with running(tmp_path) as (_, address, _):
        here = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
        shown = here([sys.executable, "-c", program.replace("127.0.0.1:8000", address.removeprefix("http://"))])
        assert shown.stdout.startswith("1 happy 0.")
        if shutil.which("curl"):
            answer = here(shlex.split(pictures[0].replace("http://127.0.0.1:8000", address)))
            assert json.loads(answer.stdout)["pictures"][0]["faces"][0]["label"] == "happy"
        described = ask(f"{address}/openapi.json")[1]["paths"]
        for path in re.findall(r"^\| `(?:GET|POST|DELETE) (/[^`,]+)`", page, re.MULTILINE):
            assert path.replace("ID", "{job_id}") in {*described, "/openapi.json", "/"}


def test_two_workers_share_their_videos_and_add_up_their_figures(running: Running, tmp_path: Path, photo: bytes) -> None:
    with running(tmp_path, "--workers", "2") as (process, address, log):
        end = time.monotonic() + 60
        while log.read_text().count("Application startup complete") < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
        status, job = ask(f"{address}/v1/videos", b"noise" * 100)
        assert status == 202
        for _ in range(20):  # whichever process answers
            assert ask(f"{address}/v1/videos/{job['id']}")[0] == 200
            assert ask(f"{address}/v1/faces", photo)[0] == 200
        figures = urllib.request.urlopen(f"{address}/metrics").read().decode()
        assert 'mien_requests_total{route="/v1/faces",status="200"} 20.0' in figures
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "max_byte=5"], "did you mean 'max_bytes'"),
        (["--limit", "max_bytes=-5"], "max_bytes: input should be greater than or equal to 1"),
        (["--limit", "max_bytes"], "write it as NAME=N"),
        (["--keys", "missing.txt"], "missing.txt: cannot be read"),
        (["--keys", "empty.txt"], "empty.txt: has no key"),
        (["--keys", "umlaut.txt"], "keys.0: string should match pattern"),
        (["--model", "nobody"], "nobody"),
        (["--detector", "nobody"], "nobody"),
    ],
)
def test_a_wrong_option_gets_an_error_before_the_server_starts(
    options: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "empty.txt").touch()
    (tmp_path / "umlaut.txt").write_text("schlüssel\n", encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["mien", "serve", *options])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
