"""Jobs on object stores: fsspec's memory:// and a real S3 server on this machine."""

import json
import os
import socket
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from crops import crop, read, shard, write_parquet, write_video

from mien.errors import DataError, OutputError
from mien.label import Report

fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")

Label = Callable[..., Report]

EXPIRED = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"""


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty memory:// with three pictures in `in`."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    for i in range(3):
        store.pipe_file(f"/in/{i}.png", crop(i))
    yield store
    store.store.clear()


def fetch(store: Any, path: str, target: Path) -> tuple[list[str], list[dict[str, str]]]:
    """Return what `read` returns of a job in a store."""
    store.get(path, str(target), recursive=True)
    return read(target)


def test_memory_in_and_out(label: Label, tmp_path: Path, memory: Any) -> None:
    assert label(["memory://in", "memory://in/*.png"], "memory://out/labels").faces == 3
    sources, errors = fetch(memory, "/out/labels", tmp_path / "got")
    assert (sources, errors) == ([f"memory:///in/{i}.png" for i in range(3)], [])
    assert label(["memory://in", "memory://in/*.png"], "memory://out/labels").resumed == 1
    assert not memory.exists("/out/labels/lock.json")


def test_the_lock_of_a_store_stops_other_machines_only(label: Label, memory: Any) -> None:
    memory.pipe_file("/locked/lock.json", json.dumps({"host": "elsewhere"}).encode())
    with pytest.raises(
        OutputError, match=r"another mien label is writing to it on elsewhere.*delete memory://locked/lock.json"
    ):
        label(["memory://in"], "memory://locked")
    memory.pipe_file("/locked/lock.json", json.dumps({"host": socket.gethostname()}).encode())  # left by a job that was killed
    assert label(["memory://in"], "memory://locked").faces == 3


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of a local S3 server."""
    moto = pytest.importorskip("moto.server", reason="moto, the local S3 server, is not installed")
    pytest.importorskip("s3fs", reason="s3fs is not installed")
    server = moto.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A store with the bucket `corpus`."""
    store = connect(s3_server, monkeypatch)
    if not store.exists("corpus"):
        store.mkdir("corpus")
    return store


def connect(address: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make `s3://` mean this server, for this process and its workers."""
    for name, value in {
        "ENDPOINT_URL": address,
        "ACCESS_KEY_ID": "key",
        "SECRET_ACCESS_KEY": "secret",
        "MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    fsspec.filesystem("s3").clear_instance_cache()
    return fsspec.filesystem("s3")


def test_s3_in_and_out_with_worker_processes(label: Label, tmp_path: Path, s3: Any) -> None:
    for i in range(6):
        s3.pipe_file(f"corpus/in/day=1/{i}.png", crop(i))
    content = shard(4)
    s3.pipe_file("corpus/in/whole.tar", content)
    s3.pipe_file("corpus/in/cut.tar", content[: len(content.rstrip(b"\0")) // 2])
    s3.put_file(str(write_video(tmp_path / "film.mp4", 3)), "corpus/in/film.mp4")
    s3.put_file(str(write_parquet(tmp_path / "rows.parquet", {"image": [crop(0), crop(1)]})), "corpus/in/rows.parquet")
    report = label(["s3://corpus/in"], "s3://corpus/out", workers=1)
    sources, errors = fetch(s3, "corpus/out", tmp_path / "got")
    root = "s3://corpus/in"
    members = [f"{root}/whole.tar::{i:03d}.png" for i in range(4)] + [f"{root}/cut.tar::{i:03d}.png" for i in range(2)]
    wanted = [f"{root}/day=1/{i}.png" for i in range(6)] + members
    assert sorted(sources) == sorted([*wanted, *[f"{root}/film.mp4"] * 3, f"{root}/rows.parquet::0", f"{root}/rows.parquet::1"])
    assert [error["source"] for error in errors] == [f"{root}/cut.tar"]
    assert (report.faces, report.errors) == (17, 1)


def test_a_shard_costs_few_requests(label: Label, tmp_path: Path, s3: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan in docs/label.md counts on these. One of 65 MB takes another `get_object`: s3fs reads 50 MiB at a time."""
    requests, send = Counter[str](), type(s3)._call_s3

    def count(store: Any, method: str, *arguments: Any, **named: Any) -> Any:
        requests[method] += 1
        return send(store, method, *arguments, **named)

    def take(shards: int) -> Counter[str]:
        for i in range(shards):
            s3.pipe_file(f"corpus/costs-{shards}/{i}.tar", shard(2))
        requests.clear()
        assert label([f"s3://corpus/costs-{shards}"], f"s3://corpus/costs-{shards}-out").faces == 2 * shards
        return Counter(requests)

    monkeypatch.setattr(type(s3), "_call_s3", count)
    assert take(3) - take(2) == Counter(head_object=3, get_object=2, put_object=1, list_objects_v2=1)


def test_a_bucket_that_is_missing(label: Label, tmp_path: Path, s3: Any) -> None:
    with pytest.raises(DataError, match=r"s3://nowhere/in: no such file, folder or bucket"):
        label(["s3://nowhere/in"])
    assert not (tmp_path / "out").exists()


def admit(server: str, requests: str) -> None:
    """Let so many requests pass moto's own access control, which does not know our key."""
    request = urllib.request.Request(f"{server}/moto-api/reset-auth", requests.encode(), {"Content-Type": "text/plain"})
    urllib.request.urlopen(request, timeout=10).close()


@pytest.fixture
def close(s3_server: str) -> Iterator[Callable[[], None]]:
    """When called, no further request is let in during the test."""
    yield lambda: admit(s3_server, "0")
    admit(s3_server, "inf")


def test_a_bucket_without_permission(label: Label, tmp_path: Path, s3: Any, close: Callable[[], None]) -> None:
    s3.pipe_file("corpus/private/a.png", crop(0))
    (tmp_path / "a.png").write_bytes(crop(0))
    close()
    with pytest.raises(DataError, match=r"s3://corpus/private: access was refused .*credentials, then run the same command"):
        label(["s3://corpus/private"])
    assert not (tmp_path / "out").exists()
    with pytest.raises(OutputError, match=r"s3://corpus/refused: access was refused"):
        label([tmp_path / "a.png"], "s3://corpus/refused")


def test_credentials_that_expire_during_a_job(
    label: Label,
    tmp_path: Path,
    s3_server: str,
    s3: Any,
    close: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for i in range(12):
        s3.pipe_file(f"corpus/long/{i:03d}.png", crop(i))
    with pytest.raises(DataError, match=r"s3://corpus/long/004.png: access was refused"):
        label(["s3://corpus/long"], on_step=lambda done, total: close())
    assert [part.name for part in (tmp_path / "out/faces").iterdir()] == ["part-00000.parquet"]

    server = ThreadingHTTPServer(("127.0.0.1", 0), Expired)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connect(f"http://127.0.0.1:{server.server_port}", monkeypatch)
    with pytest.raises(DataError, match=r"access was refused \(The provided token has expired.\)"):
        label(["s3://corpus/long"])  # the plan exists: it is not listed again
    server.shutdown()
    server.server_close()

    admit(s3_server, "inf")
    connect(s3_server, monkeypatch)
    assert label(["s3://corpus/long"]).resumed == 1
    assert read(tmp_path / "out") == ([f"s3://corpus/long/{i:03d}.png" for i in range(12)], [])


class Expired(BaseHTTPRequestHandler):
    """Answers every request as S3 does when a session's token has expired."""

    def do_GET(self) -> None:
        self.send_response(400)
        self.send_header("Content-Length", str(len(EXPIRED)))
        self.end_headers()
        self.wfile.write(EXPIRED)

    def log_message(self, format: str, *arguments: object) -> None:
        pass
