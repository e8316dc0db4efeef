"""Damage files and values, always in the same way for the same number, and try the damaged ones in a process of its own.

A test file of this folder is also a script. Its tests call `try_cases`, which runs the script in a new process; there it calls
`serve`, which tries one case after the other. A case may be read or refused with a `MienError`. It must not crash, hang for
more than `SECONDS`, hold more than `MEMORY`, or raise anything else.

    def attempt(number: int) -> None:           # raises MienError if it refuses the file
        read_image(damaged(SEEDS, number))

    def test_pictures() -> None:
        try_cases(__file__, "pictures", 500)

    if __name__ == "__main__":
        serve({"pictures": attempt})

The suite tries a few hundred cases. `make fuzz` tries as many as MIEN_FUZZ says: MIEN_FUZZ=100000 make fuzz.
"""

from __future__ import annotations

import copy
import faulthandler
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 10
"""Of processor time; on the clock a busy machine may take six times as long before a case counts as hanging."""

MEMORY = 3 * 2**28
"""Bytes: a gigabyte, of which a quarter is left for the pages of the libraries' files, which `peak` does not count."""

CHUNK = 500
"""Cases per process; the memory that libraries keep does not add up for longer."""

NUMBERS = [
    *(0, 1, 2, 3, 7, 8, 16, 127, 128, 255, 256, 0x7FFF, 0x8000, 0xFFFF, 10_000, 1 << 20),
    *(0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF, 0xFFFFFFFFFFFFFFFF),
]
"""Values that break readers, for fields of headers."""

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 10**9, -(10**9), 2**63, 10**400, 0.0, -0.0, 0.5, 1e-300, 1e300),
    *(float("nan"), float("inf"), float("-inf"), "", " ", "x", "a" * 10_000, "é", "e\u0301", "\0", "\x1b[2J", "\u202e", "../x"),
    *("/", "nan", "=1+1", "1e999", "null", [], {}, [[]], [1, 2, 3], ["x"] * 300, {"": None}, {"x": {"x": {}}}),
]
"""Values that break whoever checks them, for entries of recipes, metadata and tables."""


def cases(short: int) -> int:
    """Return how many cases to try: `short` in the suite, else what MIEN_FUZZ says."""
    return int(os.environ.get("MIEN_FUZZ") or short)


# Bytes


def flip(data: bytearray, chance: random.Random) -> None:
    """Change some bytes, or bits, anywhere."""
    for _ in range(chance.choice([1, 2, 4, 16, 64])):
        place = chance.randrange(len(data))
        data[place] = chance.choice([chance.randrange(256), data[place] ^ 1 << chance.randrange(8), 0, 255])


def overwrite(data: bytearray, chance: random.Random) -> None:
    """Write a dangerous number over a few bytes, mostly of the header."""
    for _ in range(chance.choice([1, 1, 2, 4])):
        size = chance.choice([1, 2, 4, 8])
        place = chance.randrange(min(len(data), chance.choice([64, 256, 1024, len(data)])))
        number = chance.choice(NUMBERS) & (1 << 8 * size) - 1
        data[place : place + size] = number.to_bytes(size, chance.choice(["big", "little"]))


def cut(data: bytearray, chance: random.Random) -> None:
    """Cut off the end."""
    del data[max(1, chance.randrange(len(data))) :]


def insert(data: bytearray, chance: random.Random) -> None:
    """Put bytes in: random ones, or a copy of a part."""
    place, start = chance.randrange(len(data)), chance.randrange(len(data))
    size = chance.choice([1, 2, 4, 32, 256])
    data[place:place] = chance.randbytes(size) if chance.random() < 0.5 else data[start : start + size]


def remove(data: bytearray, chance: random.Random) -> None:
    """Take bytes out, or make them zero."""
    place, size = chance.randrange(len(data)), chance.choice([1, 4, 32, 256])
    data[place : place + size] = b"" if chance.random() < 0.5 and len(data) > 2 * size else bytes(min(size, len(data) - place))


WAYS = [flip, flip, overwrite, overwrite, cut, insert, remove]


def damaged(seeds: Sequence[bytes], number: int, ways: Sequence[Callable[[bytearray, random.Random], None]] = WAYS) -> bytes:
    """Return the damaged file of a number, made from one of the seeds."""
    chance = random.Random(number)
    data = bytearray(seeds[number % len(seeds)])
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        chance.choice(ways)(data, chance)
    return bytes(data)


# Values of dicts and lists, such as a recipe or a model's metadata


def damaged_value(value: Any, number: int) -> Any:
    """Return a copy of nested dicts and lists in which a few entries are replaced, removed, renamed or repeated."""
    chance, wrapped = random.Random(number), [copy.deepcopy(value)]
    for _ in range(chance.choice([1, 1, 1, 2, 4])):
        holder, key = chance.choice(_entries(wrapped))
        way = chance.randrange(8)
        if way == 0:
            del holder[key]
        elif way == 1 and isinstance(holder, dict):
            holder[chance.choice([f"{key}x", str(key).upper(), "", "x"])] = holder.pop(key)
        elif way == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif way == 3:
            other, place = chance.choice(_entries(wrapped))
            holder[key] = copy.deepcopy(other[place])
        elif way == 4:
            holder[key] = [holder[key]] if chance.random() < 0.5 else str(holder[key])
        elif way == 5 and isinstance(holder[key], (int, float)) and not isinstance(holder[key], bool):
            holder[key] *= chance.choice([-1, 0, 0.5, 2, 1000, 1e12])
        else:
            holder[key] = copy.deepcopy(chance.choice(VALUES))
        if not wrapped:
            wrapped.append(None)
    return wrapped[0]


def _entries(value: Any) -> list[tuple[Any, Any]]:
    """Return every entry of nested dicts and lists as its holder and its key or index; the outermost is a list of one."""
    found, waiting = list[tuple[Any, Any]](), [value]
    while waiting:
        holder = waiting.pop()
        for key in list(holder) if isinstance(holder, dict) else range(len(holder)):
            found.append((holder, key))
            if isinstance(holder[key], (dict, list)):
                waiting.append(holder[key])
    return found


# A process of its own


@dataclass
class Outcome:
    """What became of the cases: how many were read and refused, what went wrong with which, and the peak memory, bytes."""

    read: int = 0
    refused: int = 0
    wrong: list[tuple[int, str]] = field(default_factory=list)
    peak: int = 0
    stderr: str = ""


def try_cases(script: str, kind: str, short: int) -> Outcome:
    """Try the first cases of a kind in new processes; fail if one of them crashed, hung, or did what no case may do."""
    outcome, first, last = Outcome(), 0, cases(short)
    while first < last:
        end = min(first + CHUNK, last)
        old_client = "ignore:The anyio.abc.BlockingPortal alias:DeprecationWarning"  # Starlette's, with the lowest versions
        command = [sys.executable, "-W", "error", "-W", old_client, script, kind, str(first), str(end)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace")
        lines = done.stdout.splitlines()
        outcome.stderr += done.stderr
        for part in map(json.loads, (line for line in lines if line.startswith("{"))):
            outcome.read += part["read"]
            outcome.refused += part["refused"]
            outcome.wrong += [(number, why) for number, why in part["wrong"]]
            outcome.peak = max(outcome.peak, part["peak"])
        tried = [int(line) for line in lines if line.isdecimal()]
        first = tried[-1] + 1 if tried else end
        if done.returncode != 0 or not tried:
            outcome.wrong.append((first - 1, f"status {done.returncode}: {done.stderr[-1500:]}"))
    print(f"{kind}: {outcome.read:,} read, {outcome.refused:,} refused, {len(outcome.wrong)} wrong, {outcome.peak >> 20} MB")
    assert not outcome.wrong, f"{len(outcome.wrong)} of {last:,} {kind}; the first: {outcome.wrong[:5]}"
    assert outcome.read + outcome.refused == last
    return outcome


def serve(kinds: Mapping[str, Callable[[int], object]]) -> None:
    """Try the cases that the command line names and print what became of them: KIND FIRST LAST."""
    from mien.errors import MienError

    kind, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    attempt, read, refused, wrong, highest = kinds[kind], 0, 0, list[tuple[int, str]](), 0
    for number in range(first, last):
        print(number, flush=True)  # the last one is to blame for a crash
        forget_peak()
        faulthandler.dump_traceback_later(6 * SECONDS, exit=True)
        began = time.process_time()
        try:
            attempt(number)
            read += 1
        except MienError as error:
            refused += 1
            if not str(error).isprintable():
                wrong.append((number, f"an error that is not printable: {str(error)!r}"))
        except BaseException as error:
            wrong.append((number, repr(error)[:500]))
        faulthandler.cancel_dump_traceback_later()
        if (taken := time.process_time() - began) > SECONDS:
            wrong.append((number, f"{taken:.0f} s"))
        highest = max(highest, peak())
        if peak() > MEMORY:
            wrong.append((number, f"{peak() >> 20} MB"))
            break  # the next process goes on
    print(json.dumps({"read": read, "refused": refused, "wrong": wrong, "peak": highest}))


def peak() -> int:
    """Return the most memory that this process held since `forget_peak`, bytes; on other systems than Linux since its start.

    On Linux without the pages of files, such as torch's libraries: how many of them are in memory is the system's choice.
    """
    status = Path("/proc/self/status")
    if status.exists():
        values = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return (int(values["VmHWM"].split()[0]) - int(values["RssFile"].split()[0])) * 1024
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024


def forget_peak() -> None:
    """Start a new measurement of `peak`, so that it is known which case needed the memory."""
    if sys.platform == "linux":
        with suppress(OSError):  # a container may not allow it
            Path("/proc/self/clear_refs").write_text("5")
