"""Videos: each is a job with a folder of its own, so that any worker process of the server can tell how far it is.

The folder holds the video while it is read, `job.json`, and the rows of the table, one JSON object per line. It is removed
`keep_seconds` after the job has ended, and when the server ends.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from mien.atomic import atomic_path
from mien.errors import InputError, MienError
from mien.output.summary import Seen, Summary, max_sample_gap
from mien.output.table import json_line, reading_rows
from mien.predict.recognizer import Recognizer, VideoOptions
from mien.server.schemas import Job
from mien.server.settings import Settings
from mien.video.reader import VideoReader
from mien.video.sources import Source

STATUS, VIDEO, ROWS, CANCEL, WORKER = "job.json", "video", "rows.jsonl", "cancel", "worker"
"""Names in the folder of a job."""

REPORT_SECONDS = 0.5
"""How often a job that is being read says how far it is."""

SWEEP_SECONDS = 30
"""How often jobs that ended are looked through."""


class Jobs:
    """The videos of a server.

    Args:
        recognizer: Shared with the other requests.
        settings: The limits.
        folder: Folder of all jobs.
    """

    def __init__(self, recognizer: Recognizer, settings: Settings, folder: Path) -> None:
        self.recognizer, self.settings, self.folder = recognizer, settings, folder
        self._waiting: queue.SimpleQueue[tuple[str, VideoOptions] | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._swept = 0.0
        self._thread = threading.Thread(target=self._work, name="mien-videos", daemon=True)
        self._thread.start()

    def has_room(self) -> bool:
        """Return whether another video is taken."""
        self._sweep()
        states = [self._status(each)["state"] for each in self.folder.iterdir() if (each / STATUS).is_file()]
        return sum(state in ("queued", "running") for state in states) < self.settings.max_jobs

    def new_folder(self) -> Path:
        """Return a new folder for a video that is about to arrive."""
        folder = self.folder / secrets.token_urlsafe(16)
        folder.mkdir(mode=0o700)
        return folder

    def submit(self, folder: Path, options: VideoOptions) -> Job:
        """Queue the video in a folder of `new_folder`."""
        job = Job(id=folder.name, state="queued", progress=0.0, frames=0, rows=0, error=None, summary=None)
        (folder / WORKER).write_text(str(os.getpid()))
        self._write(job)
        self._waiting.put((job.id, options))
        return job

    def get(self, job_id: str) -> Job | None:
        """Return a job; None if there is no such job, or it ended too long ago."""
        self._sweep()
        folder = self._folder(job_id)
        if folder is None:
            return None
        with suppress(FileNotFoundError):
            return Job.model_validate(self._status(folder))
        return None

    def rows(self, job_id: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of the table so far."""
        folder = self._folder(job_id)
        if folder is not None and (folder / ROWS).is_file():
            with (folder / ROWS).open(encoding="utf-8") as file:
                for line in file:
                    if line.endswith("\n"):  # else it is just being written
                        yield json.loads(line)

    def cancel(self, job_id: str) -> None:
        """Stop a job as soon as its current frame is done; forget one that has ended."""
        folder = self._folder(job_id)
        if folder is None:
            return
        with suppress(FileNotFoundError):
            if self._status(folder)["state"] in ("queued", "running"):
                (folder / CANCEL).touch()
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Go on with what is accepted for `grace_seconds`, then cancel the rest."""
        self._waiting.put(None)
        self._thread.join(self.settings.grace_seconds)
        self._stopping.set()
        self._thread.join()

    def _folder(self, job_id: str) -> Path | None:
        folder = self.folder / job_id
        return folder if folder.parent == self.folder and job_id not in ("", ".", "..") and folder.is_dir() else None

    def _status(self, folder: Path) -> dict[str, Any]:
        status = json.loads((folder / STATUS).read_text(encoding="utf-8"))
        with suppress(FileNotFoundError):  # it has just ended
            if status["state"] in ("queued", "running") and not _is_alive(int((folder / WORKER).read_text())):
                (folder / VIDEO).unlink(missing_ok=True)
                status |= {"state": "failed", "error": "the server was interrupted before the end of this video; send it again"}
                self._write(Job.model_validate(status))
        return status

    def _write(self, job: Job) -> None:
        with atomic_path(self.folder / job.id / STATUS) as tmp_path:
            tmp_path.write_text(job.model_dump_json(), encoding="utf-8")

    def _sweep(self) -> None:
        """Remove what ended too long ago, and videos that never arrived completely."""
        now = time.time()
        if now - self._swept < min(SWEEP_SECONDS, self.settings.keep_seconds):
            return
        self._swept = now
        for folder in self.folder.iterdir():
            with suppress(FileNotFoundError):
                old = now - folder.stat().st_mtime > self.settings.keep_seconds
                if old and (not (folder / STATUS).exists() or self._status(folder)["state"] not in ("queued", "running")):
                    shutil.rmtree(folder, ignore_errors=True)

    def _work(self) -> None:
        while (entry := self._waiting.get()) is not None:
            job_id, options = entry
            folder = self.folder / job_id
            job = Job.model_validate(self._status(folder)).model_copy(update={"state": "running"})
            try:
                job = self._read(folder, job, options)
            except MienError as error:
                job = self.get(job_id) or job
                job = job.model_copy(update={"state": "failed", "error": str(error)})
            except OSError as error:
                job = job.model_copy(
                    update={"state": "failed", "error": f"the server could not keep the video ({error.strerror})"}
                )
            with suppress(FileNotFoundError):
                (folder / VIDEO).unlink()
            with suppress(OSError):
                self._write(job)
                (folder / WORKER).unlink()  # only unfinished jobs have one

    def _read(self, folder: Path, job: Job, options: VideoOptions) -> Job:
        """Read a video to its end, and return its job: done, failed or cancelled."""
        summary, seen, reader = Summary(self.recognizer.classes, max_sample_gap(options.fps)), Seen(), None
        error, frames, rows, reported = None, 0, 0, 0.0
        name, end = "video", self.settings.max_video_seconds

        def opened(video: VideoReader) -> None:
            nonlocal reader
            reader = video
            if video.duration is not None and video.duration > end and (options.end or video.duration) > end:
                raise InputError(f"the video is {video.duration:.0f} s long; send at most {end:g} s")

        state = "done"
        with (folder / VIDEO).open("rb") as video, (folder / ROWS).open("w", encoding="utf-8") as table:
            for reading in self.recognizer.stream([Source(name, "video", video)], options, on_video=opened):
                if reading.error is not None:
                    error = str(reading.error)
                    continue
                frame = reading.frame
                assert frame is not None
                assert frame.time is not None
                frames += 1
                seen.add(frame.time, len(reading.predictions), frame.damaged)
                for row in reading_rows(reading, self.recognizer.classes):
                    summary.add(row)
                    table.write(json_line(row) + "\n")
                    rows += 1
                if (folder / CANCEL).exists() or self._stopping.is_set():
                    state = "cancelled"
                    break
                if frames >= self.settings.max_video_frames or frame.time > end:
                    error = f"stopped after {frames:,} frames ({frame.time:.0f} s), the most this server reads of a video"
                    break
                if time.monotonic() - reported > REPORT_SECONDS:
                    reported = time.monotonic()
                    table.flush()
                    length = reader.duration if reader else None
                    done = min(1.0, frame.time / length) if length else None
                    job = job.model_copy(update={"state": "running", "progress": done, "frames": frames, "rows": rows})
                    self._write(job)
        totals = summary.add_video(name)
        totals.seen = seen.to_dict()
        state = "failed" if error and state == "done" and not frames else state
        update = {"state": state, "frames": frames, "rows": rows, "error": error, "summary": summary.to_dict()["videos"][0]}
        return job.model_copy(update=update | ({"progress": 1.0} if state == "done" else {}))


def _is_alive(process: int) -> bool:
    if sys.platform == "win32":  # where signal 0 is Ctrl-C
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # it is another user's
        pass
    return True
