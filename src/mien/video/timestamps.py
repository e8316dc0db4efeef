"""When a frame is shown and which one of its file it is, from the time stamps of packets and frames."""

from __future__ import annotations

import heapq
import math
from contextlib import suppress
from fractions import Fraction
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SLACK = 0.25
"""Seconds by which a video may end before its header says without being called cut short."""


class Clock:
    """Turns time stamps into seconds from the first frame; where they jump back, as in joined recordings, it goes on."""

    def __init__(self, tick: Fraction, fps: float | None) -> None:
        self.origin, self.tick = 0, tick  # the time stamp of second 0
        self.interval = 1 / (fps or 25.0)
        self.last: float | None = None
        self.widest = SLACK
        self.furthest: int | None = None

    def time(self, pts: int | None) -> float:
        """Return when a frame is shown, in seconds."""
        following = 0.0 if self.last is None else self.last + self.interval
        time = following if pts is None else (pts - self.origin) * self.tick.numerator / self.tick.denominator
        if self.last is not None and time < self.last and pts is not None:
            time = following
            self.origin = pts - round(time / self.tick)
        self.widest = max(self.widest, time - (time if self.last is None else self.last))
        self.last = time
        return time

    def stamp(self, time: float) -> int:
        """Return a time stamp at a second, or one tick before it at most."""
        return self.origin + math.floor(time / self.tick - 0.5)

    def restart(self) -> None:
        """Forget the last frame, because the next one comes from elsewhere."""
        self.last = None

    def packet(self, packet: Packet) -> None:
        """Take note of how far a packet reaches."""
        if packet.pts is not None and packet.size:
            stop = packet.pts + (packet.duration or 0)
            self.furthest = stop if self.furthest is None else max(self.furthest, stop)

    @property
    def end(self) -> float:
        """When the last frame ends, in seconds."""
        return 0.0 if self.last is None else self.last + self.interval

    def falls_short(self, whole: float) -> bool:
        """Return whether the video ended before `whole` seconds, by more than the longest wait between two frames."""
        reached = 0.0 if self.furthest is None else float((self.furthest - self.origin) * self.tick)
        return max(self.end, reached) < whole - self.widest


class Numbers:
    """Numbers frames by the place of their time stamp among those of the file's packets.

    Where packets have no time stamps, or they run backwards as in joined recordings, frames are counted instead.

    Args:
        trusted: The time stamps are the frames' own.
    """

    def __init__(self, trusted: bool) -> None:
        self.trusted = self.known = trusted
        self.waiting: list[int] = []  # time stamps of packets whose frames have not come, a heap
        self.passed = 0  # how many were before
        self.from_stamp: int | None = None
        self.last_dts: int | None = None

    def packet(self, packet: Packet) -> None:
        """Take note of a packet."""
        if not packet.size or packet.is_discard or _hidden(packet):
            return
        backwards = packet.dts is not None and self.last_dts is not None and packet.dts < self.last_dts
        self.last_dts = packet.dts
        if packet.pts is None or backwards:
            self.known = False
        elif self.from_stamp is None or packet.pts >= self.from_stamp:
            heapq.heappush(self.waiting, packet.pts)

    def stamp(self, frame: VideoFrame) -> int | None:
        """Return a frame's time stamp; None if it has none that is its own."""
        return frame.pts if self.trusted else None

    def frame(self, pts: int | None) -> int:
        """Return a frame's number."""
        before = self.passed
        if self.from_stamp is not None and pts is not None and pts < self.from_stamp:
            return before - 1  # one on the way to the place looked for
        if self.known and pts is not None:
            self._pass(pts + 1)
        self.passed = max(self.passed, before + 1)
        return self.passed - 1

    def jump(self, pts: int) -> None:
        """Count all frames before a time stamp as passed, and expect no more of them."""
        self._pass(pts)
        self.waiting.clear()
        self.from_stamp, self.last_dts = pts, None

    def least(self, pts: int | None) -> int | None:
        """Return the first time stamp of the file, given that of the first frame."""
        return min(self.waiting[0], pts) if self.known and self.waiting and pts is not None else pts

    def _pass(self, before: int) -> None:
        while self.waiting and self.waiting[0] < before:
            heapq.heappop(self.waiting)
            self.passed += 1


def _hidden(packet: Packet) -> bool:
    """Return whether a packet holds a frame that is never shown, which VP8 puts into packets of their own."""
    return packet.stream.codec_context.name == "vp8" and not memoryview(packet)[0] & 0x10


def trusted(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether a file's time stamps are its frames' own: AVI has none, so those of frames out of order are guesses."""
    return container.format.name != "avi" or not stream.codec_context.has_b_frames


def duration_of(container: InputContainer, stream: VideoStream) -> float | None:
    """Return a stream's length in seconds, its own or the container's."""
    if stream.duration and stream.duration > 0 and stream.time_base:
        return float(stream.duration * stream.time_base)
    with suppress(KeyError, ValueError):  # Matroska's "00:00:02.000000000"
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    whole = container.duration
    return whole / 1e6 if whole and whole > 0 else None
