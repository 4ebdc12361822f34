"""Turns: a few places that principals share in round robin.

Rules:

* A principal holds at most `each` of the places, so that some are left to others.
* Whoever finds a place free takes it at once. Otherwise it waits in its principal's own queue, and
  a place that becomes free goes to the principal whose turn it is. So one that asks for a thousand
  delays another by its places, and not by its queue.
* Who gives up waiting, or is cancelled, leaves no trace.

Within a principal, first come, first served. How many may wait is not decided here.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable

from keycustody.errors import DeadlineExceeded

#: Told how many seconds somebody waited; not of who had a place at once. It must be quick.
Waited = Callable[[float], None]

_Queue = OrderedDict["asyncio.Future[None]", None]


def _unheard(seconds: float) -> None:
    """Nobody wants to know."""


class Turns:
    """`places` in all, of which a principal holds at most `each`."""

    def __init__(self, places: int, each: int, waited: Waited = _unheard) -> None:
        self._waited = waited
        self._places, self._each = places, each
        self._taken = 0
        #: Also of those that hold none: there are no more principals than the settings name.
        self._held: dict[str, int] = {}
        #: Those who wait, by principal; the first principal is the next to get a place.
        self._queues: OrderedDict[str, _Queue] = OrderedDict()

    def resize(self, places: int, each: int) -> None:
        """Share out another number of places. Who has one keeps it."""
        self._places, self._each = places, each
        self._share_out()

    def waiting(self, principal: str) -> int:
        """How many of a principal's wait."""
        return len(self._queues.get(principal, ()))

    def take_at_once(self, principal: str) -> bool:
        """Take a place, which has to be given back, if there is one now; else `take` waits for it.
        Apart, because most find one, and a coroutine less is worth it to them."""
        held = self._held.get(principal, 0)
        if self._taken < self._places and held < self._each and principal not in self._queues:
            self._taken += 1
            self._held[principal] = held + 1
            return True
        return False

    async def take(self, principal: str, seconds: float) -> None:
        """Take a place, which has to be given back. Raises `DeadlineExceeded` after so many seconds
        without one."""
        if not self.take_at_once(principal):
            await self._wait(principal, seconds)

    def give(self, principal: str) -> None:
        """Give a place back."""
        self._taken -= 1
        self._held[principal] -= 1
        if self._queues:
            self._share_out()

    async def _wait(self, principal: str, seconds: float) -> None:
        loop, began = asyncio.get_running_loop(), time.perf_counter()
        place: asyncio.Future[None] = loop.create_future()
        self._queues.setdefault(principal, OrderedDict())[place] = None
        expiry = loop.call_later(seconds, self._expire, principal, place)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled() and place.exception() is None:
                self.give(principal)  # it came in the same moment
            self._withdraw(principal, place)
            raise
        finally:
            expiry.cancel()
            self._waited(time.perf_counter() - began)

    def _share_out(self) -> None:
        """Give free places to those who wait: each principal one, and round again."""
        passed = 0
        while self._taken < self._places and passed < len(self._queues):
            principal, queue = next(iter(self._queues.items()))
            self._queues.move_to_end(principal)
            held = self._held.get(principal, 0)
            if held >= self._each:
                passed += 1
                continue
            passed = 0
            place, _ = queue.popitem(last=False)
            if not queue:
                del self._queues[principal]
            if place.done():
                continue  # cancelled a moment ago, and about to say so itself
            self._taken += 1
            self._held[principal] = held + 1
            place.set_result(None)

    def _expire(self, principal: str, place: "asyncio.Future[None]") -> None:
        if not place.done():
            self._withdraw(principal, place)
            place.set_exception(
                DeadlineExceeded("The request waited for its turn until its deadline; try again.")
            )

    def _withdraw(self, principal: str, place: "asyncio.Future[None]") -> None:
        queue = self._queues.get(principal)
        if queue is not None:
            queue.pop(place, None)
            if not queue:
                del self._queues[principal]
