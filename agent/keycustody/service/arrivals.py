"""Reading requests within a time, for next to nothing: most are there already when they are read.

A timer for each would cost as much as all the rest of admission. So one looks now and then at those
that are being read, and cancels what is late.
"""

import asyncio
from typing import Any, Protocol

from keycustody.errors import DeadlineExceeded, InvalidRequest

#: Seconds between two looks, while there is something to look at; so late may the end of one be.
_EVERY = 0.25


class Readable(Protocol):
    """A call whose request can be read."""

    async def read(self) -> Any:
        """Return its bytes, or something else if the call ended without any."""
        ...


class Arrivals:
    """The requests that are being read."""

    def __init__(self) -> None:
        #: Who reads, and until when it may, in the loop's time.
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False

    async def read(self, call: Readable, seconds: float) -> bytes:
        """Return a call's request; raises `DeadlineExceeded` if it takes longer than that, and
        `InvalidRequest` if the call ends without one."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._reading[task] = loop.time() + seconds
        if not self._looking:
            self._looking = True
            loop.call_later(_EVERY, self._look)
        try:
            data = await call.read()
        except asyncio.CancelledError:
            if task not in self._late or task.uncancel() > 0:
                raise
            raise DeadlineExceeded(
                f"The request did not arrive within {seconds:.1f} s of its turn; try again."
            ) from None
        finally:
            del self._reading[task]
            self._late.discard(task)
        if not isinstance(data, bytes):
            raise InvalidRequest("The call ended before its request was there.")
        return data

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for task, until in self._reading.items():
            if now >= until and task not in self._late:
                self._late.add(task)
                task.cancel()
        self._looking = bool(self._reading)
        if self._looking:
            loop.call_later(_EVERY, self._look)
