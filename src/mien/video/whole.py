"""Whether a video is whole: what its header promises, and how its file ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mien.video.container import Address, piece

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
"""What the properties of an ASF file (.wmv) begin with."""

ASF_HEADER = 1 << 16
"""Bytes in which they are looked for."""

TS_PACKETS = ((188, 0), (192, 4), (204, 0))
"""Sizes of the packets of a transport stream, and where in them their mark stands."""

TS_MARK = 0x47


def promised(container: InputContainer, stream: VideoStream, duration: float | None, address: Address) -> float | None:
    """Return how long a video must be if it is whole; None where the header only guesses."""
    kind = container.format.name
    if kind == "avi" and stream.frames and stream.average_rate:
        return float(stream.frames / stream.average_rate)
    if kind == "asf":
        return _missed_by_asf(piece(address, 0, ASF_HEADER), container.size)
    alone = len(container.streams) == 1 or "DURATION" in stream.metadata
    return duration if kind.startswith("mov") or (kind.startswith(("matroska", "flv")) and alone) else None


def breaks_off(container: InputContainer, address: Address, reached: int | None) -> bool:
    """Return whether a file ends within something that it began.

    Args:
        container: The open file.
        address: What was opened.
        reached: Where its last packet of the video ends, in bytes; None if unknown.
    """
    if container.format.name == "yuv4mpegpipe":
        return reached is not None and address.timeout is None and reached < container.size
    return container.format.name == "mpegts" and _is_part_of_ts(piece(address, -3 * 204, 3 * 204))


def _missed_by_asf(header: bytes, size: int) -> float | None:
    """Return the length, in seconds, of an ASF file that is shorter, in bytes, than its header says; None of any other.

    The length alone says little: it is that of the longest stream.
    """
    start = header.find(ASF_FILE)
    fields = header[start : start + 104]
    if start < 0 or len(fields) < 104 or fields[88] & 1:  # 1: it was sent live, and the rest is not filled in
        return None
    whole, length, lead = (int.from_bytes(fields[at : at + 8], "little") for at in (40, 64, 80))
    return length / 1e7 - lead / 1e3 if size < whole else None


def _is_part_of_ts(tail: bytes) -> bool:
    """Return whether the end of a transport stream is not the end of a packet."""
    return len(tail) == 3 * 204 and not any(
        all(tail[len(tail) - number * size + mark] == TS_MARK for number in (1, 2, 3)) for size, mark in TS_PACKETS
    )
