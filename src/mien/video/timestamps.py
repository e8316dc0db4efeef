"""When a frame is shown and what its number is, from the time stamps of packets and frames; and how long a video should be."""

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
"""Seconds by which a video may end before its declared duration without counting as truncated."""

HOLE_PACKETS = 32
"""Packets after a hole in the file within which the gap in the time stamps must be: decoders reorder up to 16."""

MAX_GAP = 50
"""Intervals of the longest gap in a broadcast that is a loss, and not a programme that was cut out."""


class Clock:
    """Turns time stamps into seconds from the first frame.

    Where time stamps jump back, as in joined recordings, time continues from the frame before.

    Args:
        tick: Seconds per unit of the time stamps.
        fps: Average frame rate, for frames without a time stamp; None if unknown.
    """

    def __init__(self, tick: Fraction, fps: float | None) -> None:
        self.origin, self.tick = 0, tick  # origin: the time stamp of second 0
        self.interval = 1 / (fps or 25.0)
        self.last: float | None = None  # when the frame before is shown
        self.longest_gap = SLACK
        self.packets_end: int | None = None

    def time(self, pts: int | None) -> float:
        """Return when a frame is shown, in seconds."""
        following = 0.0 if self.last is None else self.last + self.interval
        time = following if pts is None else (pts - self.origin) * self.tick.numerator / self.tick.denominator
        if self.last is not None and time < self.last and pts is not None:
            time = following
            self.origin = pts - round(time / self.tick)
        self.longest_gap = max(self.longest_gap, time - (time if self.last is None else self.last))
        self.last = time
        return time

    def stamp(self, time: float) -> int:
        """Return the time stamp of a second, or at most one unit before it."""
        return self.origin + math.floor(time / self.tick - 0.5)

    def packet(self, packet: Packet) -> None:
        """Note where a packet ends."""
        if packet.pts is not None and packet.size:
            end = packet.pts + (packet.duration or 0)
            self.packets_end = end if self.packets_end is None else max(self.packets_end, end)

    @property
    def end(self) -> float:
        """When the last frame ends, in seconds."""
        return 0.0 if self.last is None else self.last + self.interval

    def falls_short(self, duration: float) -> bool:
        """Return whether the video ended before `duration` seconds, by more than the longest gap between two frames."""
        packets_end = 0.0 if self.packets_end is None else float((self.packets_end - self.origin) * self.tick)
        return max(self.end, packets_end) < duration - self.longest_gap


class FrameNumbers:
    """Numbers frames by the rank of their time stamp among those of the file's packets.

    So a frame that cannot be decoded leaves a gap, and no other number changes. Where packets have no time stamps, or the
    stamps run backwards as in joined recordings, frames are counted instead.

    Where bytes of the file were skipped, the packets in them are lost. A gap in the time stamps tells how many there were. In
    a broadcast with a constant rate, a short gap is enough: its packets follow each other without a pattern.

    Args:
        trusted: Whether the time stamps are the frames' own, see `has_own_times`.
        interval: Units of the time stamps from a frame to the next; None if unknown.
        is_broadcast: The file is a recording of a broadcast.

    Attributes:
        lost: Number of packets lost so far; at least 1 for each gap in a video without a constant rate.
    """

    def __init__(self, trusted: bool, interval: float | None, is_broadcast: bool) -> None:
        self.trusted = self.known = trusted
        self.interval, self.is_broadcast, self.lost = interval, is_broadcast, 0
        self.after_hole = 0  # number of packets to come in which a gap is a loss
        self.last_stamp: int | None = None  # of the frames passed
        self.first: int | None = None
        self.packets = 0
        self.by_time = False  # some packets had no time stamp, so that only the time tells how many there were
        self.even = 0  # number of steps of one interval since the last gap
        self.unstamped = 0  # frames without a time stamp since the last one with one
        self.waiting: list[int] = []  # a heap: time stamps of packets whose frames have not come yet
        self.passed = 0  # number of frames before those
        self.from_stamp: int | None = None
        self.last_dts: int | None = None

    def packet(self, packet: Packet, after_hole: bool = False) -> bool:
        """Note the time stamp of a packet that `is_shown`, and whether bytes before it were skipped.

        Returns:
            Whether packets of a broadcast are missing before it.
        """
        self.after_hole = HOLE_PACKETS if after_hole else self.after_hole - 1
        step = 0 if packet.dts is None or self.last_dts is None else packet.dts - self.last_dts
        backwards = step < 0
        self.last_dts = packet.dts
        self.packets += 1
        if backwards or (packet.pts is None and self.packets <= HOLE_PACKETS):
            self.known = False
        elif packet.pts is None:
            self.by_time = self.is_broadcast
        elif self.from_stamp is None or packet.pts >= self.from_stamp:
            heapq.heappush(self.waiting, packet.pts)
        return self.is_broadcast and self._is_loss(step)

    def cut(self) -> None:
        """Note that the file ended too early: frames between its last ones may be missing."""
        if self.even >= HOLE_PACKETS:
            self.after_hole = HOLE_PACKETS

    def stamp(self, frame: VideoFrame) -> int | None:
        """Return a frame's time stamp; None if it has none of its own."""
        return frame.pts if self.trusted else None

    def frame(self, pts: int | None) -> int:
        """Return a frame's number."""
        before = self.passed
        if self.from_stamp is not None and pts is not None and pts < self.from_stamp:
            return before - 1  # between the key frame before a seek's target and the target
        if self.known and pts is not None:
            self._pass(pts + 1)
        self.unstamped += pts is None
        self.passed = max(self.passed, before + 1)
        return self.passed - 1

    def count(self, before: int) -> None:
        """Count the frames that are shown before the latest packet is decoded and before a time stamp."""
        if self.known and self.last_dts is not None:
            self._pass(min(self.last_dts, before))

    def jump(self, pts: int) -> None:
        """Count all frames before a time stamp as passed, before a seek to it."""
        self._pass(pts)
        if self.by_time and self.interval and self.first is not None:
            self.passed = math.ceil((pts - self.first) / self.interval - 0.01)
        self.waiting.clear()
        self.from_stamp, self.last_dts = pts, None

    def first_stamp(self, pts: int | None) -> int | None:
        """Return the file's first time stamp, given that of the first decoded frame."""
        return min(self.waiting[0], pts) if self.known and self.waiting and pts is not None else pts

    def _pass(self, before: int) -> None:
        while self.waiting and self.waiting[0] < before:
            stamp = heapq.heappop(self.waiting)
            self.first = stamp if self.first is None else self.first
            if self.last_stamp is not None:
                if stamp < self.last_stamp and self.after_hole > 0:
                    continue  # its frame came too late, and was counted as lost
                self._step(stamp - self.last_stamp)
            self.last_stamp = stamp
            self.passed += 1

    def _step(self, step: int) -> None:
        """Count the packets lost in the gap before a frame, if it is one and bytes were skipped there."""
        interval = self.interval or math.inf
        if self._is_loss(step):
            if self.after_hole <= 0:
                self.after_hole = HOLE_PACKETS  # frames from both sides of the hole alternate, with more gaps between them
            missing = round(step / interval) - 1 - self.unstamped if self.even else 0
            self.lost += max(missing, 0 if self.unstamped else 1)
            self.passed += max(missing, 0)
        if abs(step - interval) <= max(0.1 * interval, 1):
            self.even += 1
        elif not self._is_loss(step):
            self.even = 0
        self.unstamped = 0

    def _is_loss(self, step: int) -> bool:
        """Return whether packets are missing in a step of the time stamps."""
        interval = self.interval or math.inf
        is_broken_rate = self.is_broadcast and self.even >= HOLE_PACKETS and step < MAX_GAP * interval
        return step > 1.5 * interval and (self.after_hole > 0 or is_broken_rate)


def is_shown(packet: Packet) -> bool:
    """Return whether a packet has a frame that is shown. VP8 puts frames that never are into packets of their own."""
    hidden = packet.stream.codec_context.name == "vp8" and packet.size and not memoryview(packet)[0] & 0x10
    return bool(packet.size and not packet.is_discard and not hidden)


def has_own_times(container: InputContainer, stream: VideoStream) -> bool:
    """Return whether time stamps are the frames' own. AVI stores none, so ffmpeg guesses those of reordered frames."""
    return container.format.name != "avi" or not stream.codec_context.has_b_frames


def duration_of(container: InputContainer, stream: VideoStream) -> float | None:
    """Return a stream's duration in seconds, its own or else the container's; None if unknown.

    Matroska's durations count from time 0, also if the stream starts later.
    """
    if stream.duration and stream.duration > 0 and stream.time_base:
        return float(stream.duration * stream.time_base)
    start = 0.0
    if container.format.name.startswith("matroska") and stream.start_time is not None and stream.time_base is not None:
        start = max(0.0, float(stream.start_time * stream.time_base))
    with suppress(KeyError, ValueError):  # Matroska's "00:00:02.000000000"
        hours, minutes, seconds = stream.metadata["DURATION"].split(":")
        return int(hours) * 3600 + int(minutes) * 60 + float(seconds) - start
    duration = container.duration
    return duration / 1e6 - start if duration and duration > 0 else None


def declared_duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Return the duration that a video must reach to be complete, in seconds; None where its header gives only a guess.

    The duration of a Matroska or FLV file is that of its longest stream, so it counts only where there is no other stream.
    """
    kind = container.format.name
    if kind == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    of_this_stream = len(container.streams) == 1 or "DURATION" in stream.metadata
    if kind.startswith("mov") or (kind.startswith(("matroska", "flv")) and of_this_stream):
        return duration_of(container, stream)
    return None
