import io
import time
from typing import Any

import av
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image
from starlette.websockets import WebSocketDisconnect

from mien.output.table import columns
from mien.server.app import create_app
from mien.server.settings import Settings


@pytest.fixture(scope="module")
def clip(photo: bytes) -> bytes:
    """A video of 20 frames at 10 frames per second, in which a face moves to the right."""
    picture = np.array(Image.open(io.BytesIO(photo)).convert("RGB").resize((256, 256)))
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 256
        for i in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(picture, 2 * i, 1), format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def _finished(client: TestClient, job_id: str) -> dict[str, Any]:
    end = time.monotonic() + 60
    while (job := client.get(f"/v1/videos/{job_id}").json())["state"] in ("queued", "running"):
        assert time.monotonic() < end
        time.sleep(0.05)
    return job


def test_a_form_is_refused(client: TestClient, clip: bytes) -> None:
    response = client.post("/v1/videos", files={"file": ("clip.mp4", clip)})
    assert (response.status_code, "as a form; send the bytes" in response.json()["detail"]) == (422, True)


def test_the_time_between_sparse_frames_is_counted(client: TestClient, clip: bytes) -> None:
    with av.open(io.BytesIO(clip)) as source, av.open(slow := io.BytesIO(), "w", format="mp4") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.pts, packet.dts, packet.duration, packet.stream = (
                    5 * packet.pts,
                    5 * packet.dts,
                    5 * packet.duration,
                    stream,
                )
                target.mux(packet)
    job = _finished(client, client.post("/v1/videos?fps=0.5", content=slow.getvalue()).json()["id"])
    (person,) = job["summary"]["by_person"]
    assert (person["share_of"], person["seconds"]) == ("time", 8)  # frames at 0, 2, 4, 6 and 8 s


def test_a_video_becomes_a_table_and_a_summary(client: TestClient, clip: bytes) -> None:
    response = client.post("/v1/videos?detect_every=2", content=clip, headers={"Content-Type": "video/mp4"})
    assert response.status_code == 202
    job = _finished(client, response.json()["id"])
    assert (job["state"], job["frames"], job["rows"], job["progress"], job["error"]) == ("done", 20, 20, 1.0, None)
    assert job["summary"]["people"] == 1
    assert job["summary"]["detection_rate"] == 1
    table = f"/v1/videos/{job['id']}/table"
    found = client.get(table).json()
    assert [(row["frame"], row["track"]) for row in found] == [(i, 1) for i in range(20)]
    assert len(client.get(f"{table}?format=jsonl").text.splitlines()) == 20
    header, *lines = client.get(f"{table}?format=csv").text.splitlines()
    assert header.split(",") == columns(client.get("/v1/model").json()["classes"])
    assert len(lines) == 20
    described = client.get("/openapi.json").json()["paths"]["/v1/videos/{job_id}/table"]["get"]["responses"]["200"]["content"]
    kinds = {client.get(f"{table}?format={name}").headers["content-type"] for name in ("json", "jsonl", "csv")}
    assert {kind.partition(";")[0] for kind in kinds} == set(described)
    assert "format: input should be" in client.get(f"{table}?format=xls").json()["detail"]
    folder = client.app.state.service.jobs.folder / job["id"]  # type: ignore[attr-defined]
    assert {path.name for path in folder.iterdir()} == {"job.json", "rows.jsonl"}  # the video is gone
    assert client.delete(f"/v1/videos/{job['id']}").status_code == 204
    assert not folder.exists()
    assert client.get(f"/v1/videos/{job['id']}").status_code == 404


def test_a_video_without_faces_has_an_empty_table(client: TestClient) -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64)).save(file, "GIF", save_all=True, append_images=[Image.new("RGB", (64, 64), "red")])
    job = _finished(client, client.post("/v1/videos", content=file.getvalue()).json()["id"])
    assert (job["state"], job["rows"]) == ("done", 0)
    assert client.get(f"/v1/videos/{job['id']}/table").json() == []


@pytest.mark.parametrize(
    "content",
    [
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5000 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet/></Period></MPD>',
        bytes(range(256)) * 40,
    ],
    ids=["concat", "hls", "sdp", "dash", "noise"],
)
def test_what_is_no_video_fails_with_a_sentence(client: TestClient, content: bytes) -> None:
    job = _finished(client, client.post("/v1/videos", content=content).json()["id"])
    assert job["state"] == "failed"
    assert "is not a video mien can read" in job["error"]
    assert client.get(f"/v1/videos/{job['id']}/table").json() == []


def test_limits_of_a_video(clip: bytes) -> None:
    with TestClient(create_app(Settings(max_video_frames=5, max_video_bytes=50_000_000))) as client:
        job = _finished(client, client.post("/v1/videos", content=clip).json()["id"])
        assert (job["state"], job["frames"]) == ("done", 5)
        assert job["error"].startswith("stopped after 5 frames")
        assert client.post("/v1/videos", content=b"").json()["detail"].startswith("the request has no video")
        assert "fps: input should be greater than 0" in client.post("/v1/videos?fps=0", content=clip).json()["detail"]
        assert client.post("/v1/videos?start=5&end=2", content=clip).status_code == 422
        assert list(client.app.state.service.jobs.folder.iterdir()) == [  # type: ignore[attr-defined]
            client.app.state.service.jobs.folder / job["id"]  # type: ignore[attr-defined]
        ]
    with TestClient(create_app(Settings(max_video_seconds=1, max_video_bytes=len(clip) + 1))) as client:
        job = _finished(client, client.post("/v1/videos", content=clip).json()["id"])
        assert (job["state"], job["error"]) == ("failed", "the video is 2 s long; send at most 1 s")
        assert client.post("/v1/videos", content=clip + b"more").status_code == 413


def test_a_cancelled_video_stops_and_keeps_its_rows(client: TestClient, clip: bytes) -> None:
    service = client.app.state.service  # type: ignore[attr-defined]
    job_id = client.post("/v1/videos?detect_every=1", content=clip).json()["id"]
    assert client.delete(f"/v1/videos/{job_id}").status_code == 204
    job = _finished(client, job_id)
    assert job["state"] == "cancelled"
    assert job["frames"] < 20
    assert len(client.get(f"/v1/videos/{job_id}/table").json()) == job["rows"]
    assert service.jobs.has_room()


def test_too_many_videos_wait(client: TestClient, clip: bytes) -> None:
    first = [client.post("/v1/videos", content=clip) for _ in range(6)]
    assert first[0].status_code == 202
    busy = [response for response in first if response.status_code == 429]
    assert busy
    assert busy[0].headers["Retry-After"] == "10"
    for response in first:
        if response.status_code == 202:
            _finished(client, response.json()["id"])


def test_finished_videos_are_forgotten_in_time(clip: bytes) -> None:
    with TestClient(create_app(Settings(keep_seconds=0.3))) as client:
        job_id = client.post("/v1/videos?fps=1", content=clip).json()["id"]
        _finished(client, job_id)
        time.sleep(0.7)
        assert client.get(f"/v1/videos/{job_id}").status_code == 404
        folder = client.app.state.service.jobs.folder  # type: ignore[attr-defined]
        assert list(folder.iterdir()) == []
    assert not folder.exists()


def test_a_camera_follows_faces_and_goes_on_after_a_bad_frame(client: TestClient, photo: bytes) -> None:
    with client.websocket_connect("/v1/camera") as socket:
        for number, data in enumerate((photo, photo, b"no picture", photo)):
            socket.send_bytes(data)
            answer = socket.receive_json()
            assert (answer["frame"], answer["skipped"]) == (number, 0)
            if data == photo:
                assert [face["track"] for face in answer["faces"]] == [1]
                assert (answer["width"], answer["error"]) == (512, None)
            else:
                assert answer["error"].startswith("frame 2: is not a picture")
        with client.websocket_connect("/v1/camera") as second:
            assert second.receive()["code"] == 1013  # only one at a time here
        socket.send_text("hello")
        assert socket.receive()["code"] == 1008
    with client.websocket_connect("/v1/camera") as socket:
        socket.send_bytes(b"x" * 2_100_000)
        assert socket.receive()["code"] == 1009
    service = client.app.state.service  # type: ignore[attr-defined]
    end = time.monotonic() + 10
    while service.cameras and time.monotonic() < end:
        time.sleep(0.01)
    assert service.cameras == 0


def test_a_silent_camera_is_closed(photo: bytes) -> None:
    app = create_app(Settings(threads=1, camera_seconds=0.4))
    with TestClient(app) as client, client.websocket_connect("/v1/camera") as socket:
        app.state.service.threads.submit(time.sleep, 0.8)  # a busy server: who waits for an answer is not silent
        socket.send_bytes(photo)
        assert len(socket.receive_json()["faces"]) == 1
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1008
