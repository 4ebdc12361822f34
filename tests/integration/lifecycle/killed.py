"""A command that dies by SIGKILL at its N-th change of the token: before it, or right after it.

argv: N, "before" or "after", and the command line. Exits as the command does if it makes fewer.
"""

import itertools
import os
import signal
import sys
from typing import Any

from keycustody.cli import main
from keycustody.token.api import CreateVersion, DestroyObjects, WriteData
from keycustody.token.pool import Pool

number, when = int(sys.argv[1]), sys.argv[2]
sys.argv = ["keycustody", *sys.argv[3:]]
changes = itertools.count(1)
call = Pool.call


async def deadly(self: Pool, request: Any, *, timeout: float) -> Any:
    if not isinstance(request, CreateVersion | WriteData | DestroyObjects):
        return await call(self, request, timeout=timeout)
    mine = next(changes) == number
    if mine and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    reply = await call(self, request, timeout=timeout)
    if mine:
        os.kill(os.getpid(), signal.SIGKILL)
    return reply


Pool.call = deadly  # type: ignore[method-assign]
main()
