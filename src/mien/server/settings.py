"""What an operator can set: the model, the limits of a request, and who may call."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Ge, Gt
from pydantic import BaseModel, ConfigDict, StringConstraints

Count = Annotated[int, Ge(1)]
Seconds = Annotated[float, Gt(0)]
Key = Annotated[str, StringConstraints(pattern=r"^[!-~]+$")]

MEGABYTE = 10**6


class Settings(BaseModel):
    """The settings of a server. A limit that a request exceeds is answered with 413, 422 or 429, and says which it was.

    Attributes:
        model: A bundled model, the path of an `.onnx` file or `hf://user/model`; None takes the default model.
        providers: Execution providers of ONNX Runtime, such as `cuda,cpu`; None takes CUDA if it works, else the CPU.
        detector: Name of the face detector.
        min_face: Ignore faces whose shorter side is below this, px.
        max_faces: Keep at most this many faces of a picture or frame, the largest.
        unsure_below: Answers with a confidence below this are marked unsure.
        threads: Requests that are worked on at the same time, at most one per core; the others wait.
        max_waiting: Requests that may wait; one more gets 429.
        max_waiting_bytes: Bytes of the pictures that may wait or be worked on.
        max_bytes: Bytes of one picture, or of one frame of a camera.
        max_pixels: Pixels of one picture or frame.
        max_pictures: Pictures or faces in one request.
        max_video_bytes: Bytes of one video.
        max_video_seconds: Length of one video.
        max_video_frames: Frames of one video that are read.
        max_jobs: Videos that wait or are read; one more gets 429.
        keep_seconds: How long the table of a finished video is kept.
        max_connections: Connections at the same time; one more gets 503.
        max_cameras: WebSocket connections at the same time.
        camera_seconds: How long a camera may be silent before its connection is closed.
        upload_seconds: How long a request may take to arrive.
        idle_seconds: How long a client may wait with its request's first lines, or with taking its answer; up to twice as long.
        grace_seconds: After a stop: time to finish the requests and videos that were accepted.
        keys: API keys, ASCII without spaces, one of which every request must carry; none lets everyone in.
        origins: Web pages, such as `https://example.org`, that may call the server from a browser. `*` stands for all.
        language: Code of the language in which the page starts, or a table of your own; None takes the browser's language.
        jobs_folder: Folder for videos while they are read; None makes a temporary one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str | None = None
    providers: str | None = None
    detector: str = "centerface"
    min_face: float | None = None
    max_faces: Count = 100
    unsure_below: Annotated[float, Ge(0)] = 0.5
    threads: Count = 4
    max_waiting: Count = 64
    max_waiting_bytes: Count = 256 * MEGABYTE
    max_bytes: Count = 20 * MEGABYTE
    max_pixels: Count = 40_000_000
    max_pictures: Count = 64
    max_video_bytes: Count = 500 * MEGABYTE
    max_video_seconds: Seconds = 3600
    max_video_frames: Count = 200_000
    max_jobs: Count = 16
    keep_seconds: Seconds = 3600
    max_connections: Count = 512
    max_cameras: Count = 8
    camera_seconds: Seconds = 30
    upload_seconds: Seconds = 60
    idle_seconds: Seconds = 10
    grace_seconds: Seconds = 20
    keys: tuple[Key, ...] = ()
    origins: tuple[str, ...] = ()
    language: str | None = None
    jobs_folder: str | None = None


LIMITS = tuple(
    name for name in Settings.model_fields if name == "threads" or name.startswith("max_") or name.endswith("_seconds")
)
"""Names of the settings that `mien serve --limit NAME=N` changes."""
