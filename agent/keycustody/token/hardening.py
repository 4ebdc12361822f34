"""What a process that holds a PIN or keys does about itself: agent, worker, offline command.

It leaves no core, cannot be read through `/proc` or a debugger by its own user, gains no privileges
from what it starts, and keeps its memory out of swap where the system lets it (docs/adr/0028).
Linux only.
"""

import ctypes
import os
import resource
from pathlib import Path

# linux/prctl.h
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38
# linux/capability.h
_CAP_IPC_LOCK = 1 << 14
# asm-generic/mman.h. ON_FAULT: pages are locked once they are used, so that nothing grows; without
# it, every thread's whole stack and every arena would be filled.
_MCL_CURRENT, _MCL_FUTURE, _MCL_ON_FAULT = 1, 2, 4


def harden() -> str:
    """Close the ways by which a secret leaves this process unasked; returns why its memory is not
    locked, or nothing if it is. Raises `OSError`."""
    prctl(_PR_SET_DUMPABLE, 0)
    prctl(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _lock_memory()


def prctl(option: int, value: int) -> None:
    """Set one of prctl(2)'s options. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def _lock_memory() -> str:
    """Keep this process's memory out of swap, now and from now on.

    Only under a limit that can never be reached: one that is reached later fails an allocation, in
    the middle of work. So RLIMIT_MEMLOCK has to be infinite, or CAP_IPC_LOCK held.
    """
    _, limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and not _capabilities() & _CAP_IPC_LOCK:
        return f"RLIMIT_MEMLOCK is {limit} bytes; it has to be infinite"
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (limit, limit))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mlockall(_MCL_CURRENT | _MCL_FUTURE | _MCL_ON_FAULT) != 0:
        return f"mlockall: {os.strerror(ctypes.get_errno())}"
    return ""


def _capabilities() -> int:
    """Return the effective capabilities, as capabilities(7) numbers them."""
    for line in Path("/proc/self/status").read_bytes().splitlines():
        if line.startswith(b"CapEff:"):
            return int(line.split()[1], 16)
    return 0
