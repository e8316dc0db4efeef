"""Which frames of a video are damaged: corrupt themselves, or decoded from a frame that is corrupt or missing.

A decoder conceals what it cannot read and marks that frame only. Later frames copy from it until the next key frame, and with
B-frames some of those are shown before it. So frames are followed in decoding order, and one is passed on when those it may
copy from are known.
"""

from __future__ import annotations

import math
import os
import struct
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from mien.video.container import Location

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

ONE_FRAME_EACH = frozenset(("h264", "hevc", "vp8", "vp9", "av1", "mjpeg"))
"""Codecs whose packets give one frame each. Packets of other codecs may be placeholders that give none."""

MIN_HOLE = {"matroska": 64, "flv": 40, "avi": 64}
"""Bytes between two packets from which some were skipped, where the headers of a packet take fewer; by ffmpeg's names."""

FLV_HEADER = 16
"""Fewest bytes around a packet of an FLV file; they end with its size."""

AVI_INDEX = 32 * 2**20
"""Bytes at the end of an AVI file in which its index is looked for: that of twenty hours with sound takes fewer."""

MAX_HELD, MAX_HELD_BYTES = 17, 256_000_000
"""Most frames, and bytes, that wait for a frame that is decoded before and shown after them; H.264 and HEVC allow 16."""


@dataclass(slots=True, eq=False)
class _Group:
    """A key frame and the frames decoded after it, up to the next key frame."""

    start: float | None  # time stamp of the key frame; None if the file begins without one
    before: _Group | None = None
    damaged_from: float = math.inf  # position of the first damaged frame, in decoding order


class Place(NamedTuple):
    """A frame's place in the file: its position in decoding order, its time stamp, and the key frame it is decoded from."""

    position: int
    stamp: int | None
    group: _Group

    @property
    def damaged(self) -> bool:
        """Whether the frame, or one that it may copy from, is corrupt or missing."""
        before = self.group.before
        leading = before is not None and before.damaged_from < math.inf and self._is_shown_before_its_key_frame
        return leading or self.group.damaged_from <= self.position

    @property
    def is_orphan(self) -> bool:
        """Whether the file begins after what the frame copies from, as a cut video may."""
        before = self.group.before
        return self.group.start is None or (before is not None and before.start is None and self._is_shown_before_its_key_frame)

    @property
    def _is_shown_before_its_key_frame(self) -> bool:
        return self.stamp is not None and self.group.start is not None and self.stamp < self.group.start


class Decoded(NamedTuple):
    """A decoded frame.

    Attributes:
        frame: The frame.
        place: Its place in the file.
        corrupt: Whether it was decoded with errors.
        excused: Whether it may have errors because the file begins or ends there.
    """

    frame: VideoFrame
    place: Place
    corrupt: bool
    excused: bool

    @property
    def damaged(self) -> bool:
        """Whether its pixels may be wrong; final once the frame `is_settled`."""
        return self.corrupt or self.place.damaged


class DamageTracker:
    """Follows the packets and frames of one video and tells which frames are damaged.

    Args:
        codec: The decoder's name.
        is_broadcast: Whether it is a recording of a broadcast, which may end within a frame without being damaged.
        hold: Keep frames until it is known whether they are damaged. A live stream does not wait for that.

    Attributes:
        counts_missing: Whether every packet gives a frame, so that one that does not is corrupt.
    """

    def __init__(self, codec: str, is_broadcast: bool, hold: bool) -> None:
        self.counts_missing, self._is_broadcast, self._hold = codec in ONE_FRAME_EACH, is_broadcast, hold
        self.restart()

    def restart(self) -> None:
        """Forget the frames before, because reading continues elsewhere."""
        self._latest = Place(-1, None, _Group(None))
        self._coming: list[Place] = []  # of packets whose frames have not come, in decoding order
        self._errors: list[Place] = []  # not told yet
        self._after_hole: Place | None = None
        self._unstamped = 0  # latest packets without a time stamp
        self._shown: int | None = None  # time stamp of the last frame

    def packet(self, packet: Packet, stamp: int | None, after_hole: bool) -> None:
        """Note the next packet to decode, which has a frame that is shown.

        Args:
            packet: The packet.
            stamp: Its time stamp; None if that cannot be trusted.
            after_hole: Bytes before it were skipped.
        """
        group = self._latest.group
        if packet.is_keyframe:
            if group.before is not None:
                group.before.before = None  # a chain of all groups would fill the memory
            group = _Group(-math.inf if stamp is None else stamp, group)
        self._latest = Place(self._latest.position + 1, stamp, group)
        if after_hole:
            self._after_hole = self._latest
        self._unstamped = self._unstamped + 1 if stamp is None else 0
        if stamp is not None:
            self._coming.append(self._latest)
        if self._unstamped > MAX_HELD or len(self._coming) > 4 * MAX_HELD:
            self._coming.clear()

    def cut(self) -> None:
        """Note that bytes after the latest packet were skipped: its end may be missing."""
        self._damage(self._latest)

    def undecodable(self) -> None:
        """Note that the latest packet could not be decoded."""
        is_lost = self._latest.is_orphan and not self._is_broadcast  # a cut gives no error, so this is damage
        if is_lost or not (self.counts_missing and self._coming):  # else its frame will be missing: threads report late
            self._mark(self._latest)

    def lost(self, after: Place) -> None:
        """Note that frames before this place are missing, because bytes were skipped."""
        for place in (after, self._after_hole):
            if place is not None and place.stamp != place.group.start:  # a key frame needs no other
                self._damage(place)

    def frame(self, frame: VideoFrame, stamp: int | None, is_last: bool) -> Decoded | None:
        """Return the next frame to show with its place; None if it is late, so that it cannot be shown.

        Args:
            frame: The frame.
            stamp: Its time stamp; None if that cannot be trusted.
            is_last: Whether all packets have been read.
        """
        place = next((each for each in self._coming if each.stamp == stamp), None)
        if place is None and stamp is not None and self._shown is not None and stamp < self._shown:
            return None  # after an error, decoders return frames that were due long before
        self._shown = stamp
        if place is None:
            place = self._latest._replace(stamp=None)
        else:
            self._coming.remove(place)
            self._miss([each for each in self._coming if (each.stamp or 0) < (stamp or 0)])
        if frame.interlaced_frame:
            self.counts_missing = False  # each packet may hold half a frame
        corrupt = frame.is_corrupt
        excused = place.is_orphan or (self._is_broadcast and is_last and place.position == self._latest.position)
        if corrupt and not excused:
            self._mark(place)
        return Decoded(frame, place, corrupt, excused)

    def end(self) -> None:
        """Note that no frame will come any more."""
        cut_off = self._latest.position if self._is_broadcast else None
        self._miss([each for each in self._coming if each.position != cut_off])
        self._coming.clear()

    def is_settled(self, decoded: Decoded) -> bool:
        """Return whether it is known if a frame is damaged: all frames decoded before it, and the next packet, have come."""
        return not self._hold or decoded.place.position < min(each.position for each in (self._latest, *self._coming[:1]))

    def errors(self, decoded: Decoded | None = None) -> int:
        """Return how many frames up to one were missing or corrupt, and were not told before; None takes all."""
        shown = math.inf if decoded is None or decoded.place.stamp is None else decoded.place.stamp
        later = [each for each in self._errors if each.stamp is not None and each.stamp > shown]
        told, self._errors = len(self._errors) - len(later), later
        return told

    def _miss(self, places: list[Place]) -> None:
        for place in places:
            self._coming.remove(place)
            if self.counts_missing and not place.is_orphan:
                self._mark(place)

    def _mark(self, place: Place) -> None:
        self._errors.append(place)
        self._damage(place)

    def _damage(self, place: Place) -> None:
        place.group.damaged_from = min(place.group.damaged_from, place.position)


class Holes:
    """Finds where ffmpeg skipped bytes of a file because it could make no sense of them. Packets may be lost there.

    Args:
        container: The open video.
        stream: Its video stream.
        location: Where it is read from.

    Attributes:
        streams: Those whose packets `before` must see.
        found: Whether there was one so far.
        cuts: Whether the packet before the latest one is the video's, so that its end may be missing.
        spoil_times: Whether the time stamps of that packet may be wrong too: an FLV file stores them in the packet, and ffmpeg
            takes one that is partly zeros for a whole one.
        left_out: How many packets of the video were left out for that reason.
        empty: Whether there were packets without data so far, which repeat a frame.
        shift: How many packets of an AVI file were lost before the latest one.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, location: Location) -> None:
        self._kind, self._stream, self._location = container.format.name.split(",")[0], stream, location
        self.streams: list[Any] = list(container.streams) if self._kind in MIN_HOLE else [stream]
        self.found = self.empty = self.cuts = False
        self.spoil_times = self._kind == "flv"
        if self.spoil_times:  # it has one video: ffmpeg takes some damaged bytes for the beginning of another
            self.streams, self._size = [stream, *container.streams.audio], container.size
        self.shift = 0
        self._video: tuple[int, int] | None = None  # position and number of the last packet of an AVI file's video
        self.restart()

    def restart(self) -> None:
        """Forget the last packet, because reading continues elsewhere."""
        self.left_out = 0
        self._start, self._end = -1, -1  # of the last packet
        self._is_video = False  # whether that is the video's

    def before(self, packet: Packet) -> bool:
        """Return whether bytes were skipped before the next packet; in an AVI file, correct its time then."""
        start = packet.pos
        if self.spoil_times and not packet.size and packet.dts is None:
            start = self._size  # the end of the file
        if self._kind not in MIN_HOLE or start is None or start < 0:
            return self._kind == "mpegts" and packet.is_corrupt
        if self.spoil_times and packet.stream is not self._stream and self._goes_past_the_end(packet):
            return False  # damaged bytes that ffmpeg takes for the header of a sound
        hole = self._end >= 0 and start - self._end > MIN_HOLE[self._kind]
        self._end = (self._end if start == self._start else start) + packet.size  # parts of one block have one position
        self._start = start
        is_video, self._is_video = self._is_video, packet.stream_index == self._stream.index
        if hole:
            self.found, self.cuts = True, is_video
        self.empty = self.empty or not packet.size
        if self._kind == "avi" and packet.stream_index == self._stream.index and packet.dts is not None:
            if hole and self._video is not None and packet.dts is not None:
                number = _number_in_avi(self._location, packet, start - self._video[0], self._video[1])
                self.shift = self.shift if number is None else number - packet.dts
            packet.dts += self.shift
            packet.pts = None if packet.pts is None else packet.pts + self.shift
            self._video = start, packet.dts
        return hole

    def _goes_past_the_end(self, packet: Packet) -> bool:
        """Return whether a packet of an FLV file is longer than the rest of it. Some parsers drop the mark of ffmpeg."""
        return packet.is_corrupt or 0 < self._size - FLV_HEADER < (packet.pos or 0) + packet.size


def _number_in_avi(location: Location, packet: Packet, distance: int, number: int) -> int | None:
    """Return a packet's number in the index at the end of an AVI file; None if the file has no index.

    AVI files store no times, so a packet's time is its number. The packet is found by its size, near its position.

    Args:
        location: The file.
        packet: A packet after lost ones.
        distance: Bytes from the start of the last packet before them to its start.
        number: The number of that last packet.
    """
    path = location.file.removeprefix("file:") if isinstance(location.file, str) else None
    with nullcontext(location.file) if path is None else Path(path).open("rb") as file:
        here = file.tell()
        file.seek(max(0, file.seek(0, os.SEEK_END) - AVI_INDEX))
        tail = file.read(AVI_INDEX)
        file.seek(here)
    begin = tail.rfind(b"idx1")
    if begin < 0:
        return None
    count = int.from_bytes(tail[begin + 4 : begin + 8], "little") // 16
    entries = [struct.unpack_from("<4sIII", tail, begin + 8 + 16 * i) for i in range(min(count, (len(tail) - begin - 8) // 16))]
    video = [(offset, size) for name, _, offset, size in entries if name[:2] == b"%02d" % packet.stream_index]
    if number >= len(video):
        return None
    expected = video[number][0] + distance
    alike = [i for i in range(number + 1, len(video)) if video[i][1] == packet.size]
    return min(alike, key=lambda i: abs(video[i][0] - expected), default=None)
