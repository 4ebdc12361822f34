"""Runs a command under some of what deploy/keycustody.service forbids, which only a kernel can try.

python caged.py COMMAND...

No memory is both written and executed (MemoryDenyWriteExecute=), and no socket is of another family
than AF_UNIX (RestrictAddressFamilies=). Exits with 77 where the kernel or machine cannot do that.
"""

import ctypes
import os
import platform
import socket
import struct
import sys

# linux/prctl.h, linux/seccomp.h
_NO_NEW_PRIVS, _MDWE, _SECCOMP = 38, 65, 22
_FILTER = 2
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EAFNOSUPPORT = 97
#: The number of socket(2), by architecture.
_SOCKET = {"x86_64": 41, "aarch64": 198}
CANNOT = 77

_libc = ctypes.CDLL(None, use_errno=True)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _step(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _sockets(number: int) -> bytes:
    """Let every call through but socket() of a family that is not AF_UNIX."""
    return b"".join(
        (
            _step(0x20, 0, 0, 0),  # load the call's number
            _step(0x15, 0, 3, number),  # another one: allow
            _step(0x20, 0, 0, 16),  # load its first argument
            _step(0x15, 1, 0, socket.AF_UNIX),
            _step(0x06, 0, 0, _ERRNO | _EAFNOSUPPORT),
            _step(0x06, 0, 0, _ALLOW),
        )
    )


def main() -> None:
    number = _SOCKET.get(platform.machine())
    if number is None:
        sys.exit(CANNOT)
    steps = _sockets(number)
    held = ctypes.create_string_buffer(steps, len(steps))
    program = _Program(len(steps) // 8, ctypes.cast(held, ctypes.c_void_p).value)
    done = (
        _libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0),
        _libc.prctl(_MDWE, 1, 0, 0, 0),
        _libc.prctl(_SECCOMP, _FILTER, ctypes.byref(program), 0, 0),
    )
    if any(done):
        sys.exit(CANNOT)
    os.execv(sys.argv[1], sys.argv[1:])  # noqa: S606 - what the test names


if __name__ == "__main__":
    main()
