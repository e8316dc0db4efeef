"""A camera on the network: a small RTSP server that hands out real RTP packets of H.264, as ffmpeg's own muxer cuts them."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest

import mien.video.container
from mien.errors import InputError
from mien.structures import Frame
from mien.video.reader import open_video

WIDTH, HEIGHT, COUNT, RATE = 64, 48, 20, 15
SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=door\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 0 RTP/AVP 96\r\n"
    "a=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1\r\na=control:video\r\n"
)


def rtp_packets() -> list[bytes]:
    """Return the RTP packets of a clip whose frames grow brighter."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(0.5)
        packets: list[bytes] = []
        with av.open(f"rtp://127.0.0.1:{receiver.getsockname()[1]}?pkt_size=600", "w", format="rtp") as container:
            stream = container.add_stream(
                "libx264", rate=RATE, options={"preset": "ultrafast", "tune": "zerolatency", "g": "5"}
            )
            stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            for number in range(COUNT):
                frame = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), 40 + 8 * number, np.uint8), format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, RATE)
                sent = list(stream.encode(frame)) + (list(stream.encode()) if number == COUNT - 1 else [])
                container.mux(sent)
                packets += waiting(receiver, at_least=len(sent))
    return packets


def waiting(receiver: socket.socket, at_least: int) -> list[bytes]:
    """Return what has come, at least so many."""
    found: list[bytes] = []
    while True:
        receiver.settimeout(5 if len(found) < at_least else 0.01)
        try:
            found.append(receiver.recv(2048))
        except TimeoutError:
            return found


@contextmanager
def camera(packets: list[bytes], *, refuse: bool = False) -> Iterator[str]:
    """Serve packets to one client over RTSP's own connection, then hang up."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(10)

    def serve() -> None:
        client, _ = listener.accept()
        with client, client.makefile("rwb") as lines:
            while request := lines.readline().decode():
                fields = dict(iter(lambda: lines.readline().decode().strip().partition(": ")[::2], ("", "")))
                verb, body, more = request.split()[0], "", ""
                if verb == "DESCRIBE":
                    body, more = SDP, "Content-Type: application/sdp\r\n"
                elif verb == "SETUP":
                    more = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                status = "401 Unauthorized" if refuse and verb == "DESCRIBE" else "200 OK"
                head = f"RTSP/1.0 {status}\r\nCSeq: {fields['CSeq']}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
                lines.write((head + body).encode())
                lines.flush()
                if verb == "PLAY":
                    for packet in packets:
                        lines.write(b"$\x00" + struct.pack(">H", len(packet)) + packet)
                    lines.flush()
                    return

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"rtsp://127.0.0.1:{listener.getsockname()[1]}/door"
    finally:
        thread.join()
        listener.close()


def test_a_camera_on_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.video.container, "TIMEOUT", 1.0)
    frames: list[Frame] = []
    with (
        camera(rtp_packets()) as address,
        open_video(address) as video,
        pytest.raises(InputError, match="the stream stopped at"),
    ):
        frames.extend(video)  # keeps what came before the error
    assert video.live
    assert len(frames) >= COUNT - 2  # what was not read while the connection was looked at
    assert {frame.image.shape for frame in frames} == {(HEIGHT, WIDTH, 3)}
    np.testing.assert_allclose(np.diff([frame.image.mean() for frame in frames]), 8, atol=4)
    np.testing.assert_allclose(np.diff([frame.time for frame in frames]), 1 / RATE, atol=0.005)


def test_a_camera_that_wants_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mien.video.container, "TIMEOUT", 1.0)
    refused = pytest.raises(InputError, match=r"cannot be opened \(.*401.*\)\. Check the URL")
    with camera([], refuse=True) as address, refused as caught:
        open_video(address.replace("://", "://me:s3cret@"))
    assert str(caught.value).startswith(f"{address} cannot")
