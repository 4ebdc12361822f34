"""What every child process does about itself before it touches a module, and its request loop.

A child holds a PIN and loads a vendor's code: it hardens itself as the agent does, dies with its
supervisor, and leaves signals meant for the terminal's or the service's process group to the
supervisor, which ends it by closing the pipe.
"""

import itertools
import mmap
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keycustody.errors import KeycustodyError, TokenUnavailable
from keycustody.token import hardening
from keycustody.token.api import AnyReply, Failed
from keycustody.token.frames import BlockingFrames
from keycustody.token.remedies import Remedy

# linux/prctl.h
_PR_SET_PDEATHSIG = 1


def harden() -> None:
    """Close the ways by which a secret leaves this process unasked, and end with the supervisor.
    Raises `OSError`."""
    hardening.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # Whether memory is locked the agent has said: its limits are its children's.
    hardening.harden()
    # Or a worker that wakes takes the processor from the agent that just woke it (docs/adr/0015).
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # SIGTERM too: systemd sends it to the whole group, and accepted work must still be answered.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


#: Numbers in memory that the supervisor shares, because they have to be known of a child that died
#: or hangs: requests that it has begun, objects that it has made, bytes of memory that it occupies.
#: Native byte order; both ends are one machine.
LEDGER = struct.Struct("=3Q")
_BEGUN, _COSTS = struct.Struct("=Q"), struct.Struct("=2Q")
#: Asking the kernel for the last of them costs some microseconds: once in so many requests.
_MEMORY_EVERY = 64


def serve(
    fd: int,
    ledger_fd: int,
    requests: Any,
    answer: Callable[[Any], AnyReply],
    cause: Callable[[BaseException], str],
    remedy: Callable[[str], str] = lambda _cause: "",
    made: Callable[[], int] = lambda: 0,
) -> None:
    """Answer the requests on `fd`, one at a time and in order, until its other end is closed.

    Each is counted in the memory behind `ledger_fd` before it is begun. Every exception becomes a
    `Failed`; `cause` names what the module said, and `remedy` what is to be done about that. `made`
    is how many objects were made so far.
    """

    def answered(request: Any) -> AnyReply:
        try:
            return answer(request)
        except KeycustodyError as error:
            said = cause(error)
            # Any other error is about the request or its key, whatever the module said to that.
            ails = isinstance(error, TokenUnavailable)
            return Failed(error.code, error.message, said, remedy(said) if ails else "")
        except Exception as error:  # noqa: BLE001 (whatever it is, the supervisor must have an answer)
            said = cause(error)
            # A module that answers what cannot be (a length of 2**40) ends in any exception.
            # Not its text: nobody knows what is in it.
            return Failed(
                TokenUnavailable.code,
                "The token's module gave an answer that makes no sense.",
                said or type(error).__name__,
                remedy(said) or Remedy.RENEW,
            )

    with socket.socket(fileno=fd) as connection, mmap.mmap(ledger_fd, LEDGER.size) as ledger:
        # Descriptors that were passed on are inheritable; these are ours alone.
        os.set_inheritable(fd, False)
        os.close(ledger_fd)
        frames: BlockingFrames[Any] = BlockingFrames(connection, requests)
        memory = 0
        # A broken pipe, or a frame that is none: the supervisor is gone. Nobody is left to tell.
        try:
            for begun in itertools.count(1):
                request = frames.read()
                if request is None:
                    return
                _BEGUN.pack_into(ledger, 0, begun)
                reply = answered(request)
                del request
                if begun % _MEMORY_EVERY == 1:
                    memory = _resident()
                _COSTS.pack_into(ledger, _BEGUN.size, made(), memory)
                _write(frames, reply)
                del reply
        except (OSError, ValueError):
            return


def _resident() -> int:
    """Return how many bytes of memory this process occupies (proc(5), statm); 0 without /proc."""
    try:
        return int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
    except (OSError, IndexError):
        return 0


def _write(frames: BlockingFrames[Any], reply: AnyReply) -> None:
    try:
        frames.write(reply)
    except KeycustodyError as error:
        frames.write(Failed(error.code, error.message))
