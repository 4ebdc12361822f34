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
from typing import Any

from keycustody.errors import InternalError, KeycustodyError
from keycustody.token import hardening
from keycustody.token.api import AnyReply, Failed
from keycustody.token.frames import BlockingFrames

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


#: How many requests the child has begun: a number in memory that the supervisor shares, because it
#: has to be known of a child that died. Native byte order; both ends are one machine.
BEGUN = struct.Struct("=Q")


def serve(
    fd: int,
    begun_fd: int,
    requests: Any,
    answer: Callable[[Any], AnyReply],
    cause: Callable[[BaseException], str],
) -> None:
    """Answer the requests on `fd`, one at a time and in order, until its other end is closed.

    Each is counted in the memory behind `begun_fd` before it is begun. Every exception becomes a
    `Failed`; `cause` names what the module said.
    """
    with socket.socket(fileno=fd) as connection, mmap.mmap(begun_fd, BEGUN.size) as counter:
        # Descriptors that were passed on are inheritable; these are ours alone.
        os.set_inheritable(fd, False)
        os.close(begun_fd)
        frames: BlockingFrames[Any] = BlockingFrames(connection, requests)
        # A broken pipe, or a frame that is none: the supervisor is gone. Nobody is left to tell.
        try:
            for begun in itertools.count(1):
                request = frames.read()
                if request is None:
                    return
                BEGUN.pack_into(counter, 0, begun)
                reply = _answered(answer, request, cause)
                del request
                _write(frames, reply)
                del reply
        except (OSError, ValueError):
            return


def _answered(
    answer: Callable[[Any], AnyReply], request: Any, cause: Callable[[BaseException], str]
) -> AnyReply:
    try:
        return answer(request)
    except KeycustodyError as error:
        return Failed(error.code, error.message, cause(error))
    except Exception as error:  # noqa: BLE001 (whatever it is, the supervisor must have an answer)
        # Not its text: nobody knows what is in it.
        return Failed(
            InternalError.code,
            "The token's worker failed in a way that it does not explain.",
            cause(error) or type(error).__name__,
        )


def _write(frames: BlockingFrames[Any], reply: AnyReply) -> None:
    try:
        frames.write(reply)
    except KeycustodyError as error:
        frames.write(Failed(error.code, error.message))
