"""A file system that knows no locks, as some network ones: ``python no_locks.py PROGRAM ARGUMENT...``.

The kernel itself answers flock with ENOLCK in this process and in all it starts (a seccomp filter, Linux alone).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

FLOCK = {"x86_64": 73, "aarch64": 32}.get(platform.machine())
_SET_NO_NEW_PRIVS, _SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_FAIL, _ALLOW = 0x00050000, 0x7FFF0000


def forbid_flock() -> None:
    """Let every flock from now on fail."""
    assert FLOCK is not None
    program = [
        (_LOAD, 0, 0, 0),  # the number of the system call
        (_JUMP_IF_EQUAL, 0, 1, FLOCK),
        (_RETURN, 0, 0, _FAIL | errno.ENOLCK),
        (_RETURN, 0, 0, _ALLOW),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in program))
    described = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert libc.prctl(_SET_SECCOMP, _FILTER_MODE, described, 0, 0) == 0, os.strerror(ctypes.get_errno())


if __name__ == "__main__":
    forbid_flock()
    os.execv(sys.argv[1], sys.argv[1:])
