"""Clients that are slow, go away or send what should do harm; and servers that are killed."""

import io
import json
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

Running = Callable[..., AbstractContextManager[tuple[subprocess.Popen[bytes], str, Path]]]

HEAD = b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n"


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def _gauge(client: httpx.Client, name: str) -> float:
    (line,) = [line for line in client.get("/metrics").text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


def _png_header(width: int, height: int) -> bytes:
    """A PNG of any size in a few bytes: its rows are zeros, of which zlib keeps one in a thousand."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(min(height * (width + 1), 50_000_000)), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def _gif_of_many_frames() -> bytes:
    frames = [Image.new("P", (900, 900), i % 2) for i in range(40)]
    file = io.BytesIO()
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:])
    return file.getvalue()


def test_bombs_are_refused_or_read_without_their_memory(running: Running, tmp_path: Path) -> None:
    with running(tmp_path, "--limit", "max_pixels=1000000") as (process, address, log):
        peak = f"/proc/{process.pid}/status"
        with httpx.Client(base_url=address, timeout=60) as client:
            client.post("/v1/faces", content=_png_header(40, 40))
            before = _resident(peak)
            for bomb in (_png_header(60_000, 60_000), _png_header(7000, 7000), _png_header(2**31 - 1, 2**31 - 1)):
                answer = client.post("/v1/pictures", content=bomb)
                assert answer.status_code == 422
                assert "pixels" in answer.json()["detail"]
            assert client.post("/v1/faces", content=_gif_of_many_frames()).status_code in (200, 422)
            deep = b'{"pictures":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
            answer = client.post("/v1/pictures", content=deep, headers={"Content-Type": "application/json"})
            assert answer.status_code == 422
            if before:
                assert _resident(peak) - before < 100
        assert "Traceback" not in log.read_text()


def _resident(status: str) -> int:
    """Return the highest resident memory of a process, MB; 0 on other systems than Linux."""
    if not Path(status).exists():
        return 0
    (line,) = [line for line in Path(status).read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) // 1000


def test_slow_clients_and_those_that_go_away_leave_nothing_behind(running: Running, tmp_path: Path, photo: bytes) -> None:
    limits = [f"--limit={limit}" for limit in ("idle_seconds=0.3", "upload_seconds=2", "max_connections=20")]
    with running(tmp_path, *limits) as (_, address, log), httpx.Client(base_url=address, timeout=60) as client:
        host, port = address.removeprefix("http://").split(":")
        silent = [socket.create_connection((host, int(port))) for _ in range(25)]  # more than the server takes
        for connection in silent[:5]:
            connection.sendall(HEAD[:40])  # and some begin, but never end, their request
        for connection in silent:
            connection.settimeout(60)
            with connection:
                assert connection.recv(100)[:12] in (b"", b"HTTP/1.1 503")

        for part in (HEAD[:40], HEAD + b"\r\n", HEAD + b"\r\n" + photo[:5000]):  # gone in the middle of its request
            with socket.create_connection((host, int(port))) as gone:
                gone.sendall(part)
        whole = b"POST /v1/pictures HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s" % (len(photo), photo)
        for _ in range(6):  # gone before the answer
            with socket.create_connection((host, int(port))) as gone:
                gone.sendall(whole)
        with connect(f"ws://{host}:{port}/v1/camera") as camera:
            camera.send(photo)
            camera.socket.shutdown(socket.SHUT_RDWR)  # gone without a word
        with connect(f"ws://{host}:{port}/v1/camera") as camera:
            camera.send(photo)
            camera.send("not a picture")  # refused while its frame is read
            with pytest.raises(ConnectionClosed, match="1008"):
                list(camera)

        _until(lambda: _gauge(client, "mien_requests_waiting") == _gauge(client, "mien_cameras") == 0)
        assert client.post("/v1/pictures", content=photo).status_code == 200
        assert "Traceback" not in log.read_text()


def test_a_killed_worker_is_replaced_and_its_videos_are_given_up(running: Running, tmp_path: Path, photo: bytes) -> None:
    with running(tmp_path, "--workers", "2") as (process, address, log):
        _until(lambda: log.read_text().count("Application startup complete") == 2)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list the children of a process")
        clip = _clip(photo, 300)
        with httpx.Client(base_url=address, timeout=60) as client:
            job = client.post("/v1/videos", content=clip).json()
            folder = next((tmp_path / "tmp").glob("mien-server-*")) / job["id"]
            os.kill(int((folder / "worker").read_text()), signal.SIGKILL)
        _until(lambda: log.read_text().count("Application startup complete") == 3)
        with httpx.Client(base_url=address, timeout=60) as client:
            found = client.get(f"/v1/videos/{job['id']}").json()
            assert (found["state"], found["error"][:28]) == ("failed", "the server was interrupted b")
            assert not (folder / "video").exists()
            for _ in range(10):
                assert client.post("/v1/faces", content=photo).status_code == 200
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    assert list((tmp_path / "tmp").iterdir()) == []


def _clip(photo: bytes, frames: int) -> bytes:
    import av

    picture = np.array(Image.open(io.BytesIO(photo)).convert("RGB"))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast"})
        stream.width = stream.height = 512
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


PLAYLISTS = {
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{file}\n#EXTINF:2,\n{url}\n#EXT-X-ENDLIST\n",
    "hls-key": '#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:2,\n{file}\n#EXT-X-ENDLIST\n',
    "concat": "ffconcat version 1.0\nfile '{file}'\nfile '{url}'\n",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
    "m=video {port} TCP/RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "dash": '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" mediaPresentationDuration="PT2S">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
    "<SegmentBase/></Representation></AdaptationSet></Period></MPD>\n",
    "nested": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{url}\n#EXT-X-STREAM-INF:BANDWIDTH=2\n{file}\n",
    "image2": "{file}\n",
}


@pytest.fixture(scope="module")
def trap(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A file whose reader would wait forever, and an address that knows whether someone came: what playlists name."""
    fifo = tmp_path_factory.mktemp("trap") / "forbidden.ts"
    os.mkfifo(fifo)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        port = listener.getsockname()[1]
        yield {"file": f"file:{fifo}", "url": f"http://127.0.0.1:{port}/forbidden.ts", "port": port}
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_playlist_sent_as_a_video_opens_nothing_else(client: TestClient, trap: dict[str, Any]) -> None:
    for kind, text in PLAYLISTS.items():
        job = client.post("/v1/videos", content=text.format(**trap).encode()).json()
        _until(lambda path=f"/v1/videos/{job['id']}": client.get(path).json()["state"] == "failed")
        assert "is not a video mien can read" in client.get(f"/v1/videos/{job['id']}").json()["error"], kind
        assert client.post("/v1/pictures", content=text.format(**trap).encode()).status_code == 422


def test_a_playlist_named_as_a_video_opens_nothing_else_in_predict(trap: dict[str, Any], tmp_path: Path) -> None:
    names = []
    for kind, text in PLAYLISTS.items():
        for ending in ("mp4", "dat"):
            names.append(f"{kind}.{ending}")
            (tmp_path / names[-1]).write_text(text.format(**trap))
    strace = shutil.which("strace")
    traced = [strace, "-f", "-qq", "-e", "trace=open,openat,socket,connect", "-o", "calls"] if strace else []
    command = [*traced, sys.executable, "-m", "mien", "predict", *names, "--out", "table.csv"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode != 0
    for name in names:
        assert f"{name}" in done.stdout + done.stderr
    if strace:
        calls = (tmp_path / "calls").read_text()
        assert "hls.mp4" in calls
        assert "forbidden" not in calls
        assert "AF_INET" not in calls


@pytest.mark.parametrize("example", ["application/json"])
def test_the_examples_in_the_description_run(client: TestClient, example: str) -> None:
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        content = methods.get("post", {}).get("requestBody", {}).get("content", {})
        if example in content:
            answer = client.post(path, content=json.dumps(content[example]["example"]), headers={"Content-Type": example})
            assert answer.status_code == 200
            assert answer.json()["pictures"][0]["source"] == "dot"


def test_a_wrong_address_or_method_says_what_to_do(client: TestClient) -> None:
    assert "/openapi.json" in client.get("/v2").json()["detail"]
    wrong = client.put("/v1/videos/x")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "DELETE, GET")
    assert wrong.json() == {"detail": "send DELETE or GET to this address"}
