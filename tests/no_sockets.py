"""Run a command that the kernel ends as soon as it opens a socket: `python no_sockets.py FAMILIES COMMAND ...`.

FAMILIES are address families, such as `2,10` for AF_INET and AF_INET6, or `any`. The filter (seccomp) holds for every thread,
for native code, and for the processes that the command starts. The exit status is 77 if this system does not allow it.
"""

import ctypes
import os
import platform
import struct
import sys

SYSTEM_CALLS = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""By processor: its number in linux/audit.h, and the number of the system call `socket`."""


def forbid_sockets(families: list[int]) -> None:
    """Set the filter, a program of linux/filter.h over `struct seccomp_data`; without families it forbids every socket."""
    if platform.system() != "Linux" or platform.machine() not in SYSTEM_CALLS:
        sys.exit(77)
    arch, socket = SYSTEM_CALLS[platform.machine()]
    load, equal, end, allow, kill = 0x20, 0x15, 0x06, 0x7FFF0000, 0x80000000
    program = [(load, 0, 0, 4), (equal, 1, 0, arch), (end, 0, 0, allow)]
    program += [(load, 0, 0, 0), (equal, 1, 0, socket), (end, 0, 0, allow), (load, 0, 0, 16)]  # 16: the first argument
    for family in families:
        program += [(equal, 0, 1, family), (end, 0, 0, kill)]
    program.append((end, 0, 0, allow if families else kill))
    steps = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in program))
    libc, no_new_privileges, seccomp, by_filter = ctypes.CDLL(None), 38, 22, 2
    if libc.prctl(no_new_privileges, 1, 0, 0, 0):
        sys.exit(77)
    if libc.prctl(seccomp, by_filter, struct.pack("@HP", len(program), ctypes.addressof(steps)), 0, 0):
        sys.exit(77)


if __name__ == "__main__":
    forbid_sockets([] if sys.argv[1] == "any" else [int(family) for family in sys.argv[1].split(",")])
    os.execv(sys.argv[2], sys.argv[2:])
